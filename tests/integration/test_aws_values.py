"""Values that lie in AWS Secrets Manager and Systems Manager, read from a server that speaks their interfaces."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from roadstead.settings import aws_values
from roadstead.settings.findings import Finding, SettingsInvalidError
from roadstead.settings.load import load_unchecked
from roadstead.settings.model import Settings
from roadstead.testing.aws import AwsServer

S3 = 'version: 0.1\nstorage: {s3: {region: r, bucket: b, accesskey: a, secretkey: "REFERENCE"}}\n'


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """A server with secrets of every kind; the one called `denied` is for nobody but the owner."""
    with AwsServer(tmp_path_factory.mktemp("aws")) as server:
        document = json.dumps({"key": "value/with+all=", "empty": "", "blank": " \n", "line": "x\n", "number": 7})
        texts = {"registry": document, "plain": "plain text", "blank": "  ", "list": "[1]", "denied": document}
        for name, text in texts.items():
            server.call("secretsmanager", "create_secret", Name=name, SecretString=text)
        server.call("secretsmanager", "create_secret", Name="team/registry", SecretString=document)
        server.call("secretsmanager", "create_secret", Name="binary", SecretBinary=b"\x00\x01")
        server.call("secretsmanager", "create_secret", Name="never-given")
        server.call("secretsmanager", "create_secret", Name="gone", SecretString="x")
        server.call("secretsmanager", "delete_secret", SecretId="gone", RecoveryWindowInDays=7)
        server.call("ssm", "put_parameter", Name="/team/password", Value="hidden", Type="SecureString")
        server.call("ssm", "put_parameter", Name="/team/line", Value="x\n", Type="String")
        yield server


@pytest.fixture
def as_owner(aws: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS's library finds the server, and no value is remembered from another test."""
    use(aws.environment, monkeypatch)
    yield
    aws_values.forget()


def use(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    aws_values.forget()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def settings_with(reference: str, directory: Path) -> Settings:
    path = directory / "roadstead.toml"
    path.write_text(f'[storage]\nsecret_key = "{reference}"\n')
    return load_unchecked(path, environment={}).settings


def finding_of(reference: str, directory: Path) -> Finding:
    with pytest.raises(SettingsInvalidError) as caught:
        settings_with(reference, directory)
    [finding] = caught.value.findings
    return finding


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("${secret:registry#key}", "value/with+all="),
        ("${secret:team/registry#key}", "value/with+all="),
        ("before-${secret:registry#key}", "before-value/with+all="),
        ("${secret:plain}", "plain text"),
        ("${ssm:/team/password}", "hidden"),
    ],
)
@pytest.mark.usefixtures("as_owner")
def test_values_are_read(reference: str, value: str, tmp_path: Path) -> None:
    """A key of a secret, a whole secret, a parameter, alone and within a text."""
    key = settings_with(reference, tmp_path).storage.secret_key

    assert key is not None
    assert key.reveal() == value


def test_an_arn_names_a_secret(aws: AwsServer, as_owner: None, tmp_path: Path) -> None:
    """The ARN may stand where the name does."""
    arn = aws.call("secretsmanager", "describe_secret", SecretId="registry")["ARN"]

    key = settings_with(f"${{secret:{arn}#key}}", tmp_path).storage.secret_key

    assert key is not None
    assert key.reveal() == "value/with+all="


@pytest.mark.parametrize(
    ("reference", "name", "told"),
    [
        ("${secret:nowhere#key}", "secret.missing", "no such thing as the secret nowhere in eu-west-1"),
        ("${secret:registry#other}", "secret.key-missing", "it has blank, empty, key, line, number"),
        ("${secret:registry#empty}", "secret.empty", "the key empty of the secret registry is empty"),
        ("${secret:registry#blank}", "secret.whitespace", "nothing but blanks"),
        ("${secret:registry#line}", "secret.whitespace", "a line's end around it"),
        ("${secret:registry#number}", "secret.shape", "is not a text"),
        ("${secret:blank}", "secret.whitespace", "nothing but blanks"),
        ("${secret:plain#key}", "secret.not-json", "is not JSON"),
        ("${secret:list#key}", "secret.not-json", "is not a JSON object"),
        ("${secret:binary#key}", "secret.binary", "is binary"),
        ("${secret:never-given#key}", "secret.no-current", "never given a value"),
        ("${secret:gone#key}", "secret.deleted", "marked for deletion"),
        ("${ssm:/team/nowhere}", "secret.missing", "no such thing as the parameter /team/nowhere"),
        ("${ssm:/team/line}", "secret.whitespace", "a line's end around it"),
    ],
)
@pytest.mark.usefixtures("as_owner")
def test_what_is_wrong_has_a_name(reference: str, name: str, told: str, tmp_path: Path) -> None:
    """Each way in which a value can't be had is told before anything is served, and no value is in the words."""
    finding = finding_of(reference, tmp_path)

    assert (finding.key, finding.id) == ("storage.secret_key", name)
    assert told in finding.message
    assert reference in finding.message
    assert "value/with" not in str(finding)


def test_denied(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A role that may not read a secret is told so, with what it needs; what it may read it reads."""
    with AwsServer(tmp_path_factory.mktemp("denied")) as server:
        server.call("secretsmanager", "create_secret", Name="registry", SecretString="x")
        server.call("ssm", "put_parameter", Name="allowed", Value="yes", Type="String")
        key = server.make_user("ana", ["ssm:GetParameter"])
        server.deny_strangers()
        use({**server.environment, **key}, monkeypatch)

        finding = finding_of("${secret:registry}", tmp_path)
        allowed = settings_with("${ssm:allowed}", tmp_path).storage.secret_key

    aws_values.forget()
    assert finding.id == "secret.denied"
    assert "secretsmanager:GetSecretValue" in (finding.advice or "")
    assert allowed is not None
    assert allowed.reveal() == "yes"


def test_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, aws: AwsServer) -> None:
    """Where AWS doesn't answer it is said how it is found."""
    use({**aws.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, monkeypatch)
    monkeypatch.setattr(aws_values, "_ATTEMPTS", 1)

    finding = finding_of("${secret:registry}", tmp_path)

    aws_values.forget()
    assert "cannot be asked for" in finding.message
    assert "AWS_REGION" in (finding.advice or "")


def test_in_distributions_configuration(aws: AwsServer, as_owner: None, tmp_path: Path) -> None:
    """The same references stand in distribution's file, and in a process of its own."""
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(S3.replace("REFERENCE", "${secret:registry#key}"))
    bad.write_text(S3.replace("REFERENCE", "${secret:registry#other}"))

    key = load_unchecked(good, environment={}).settings.storage.secret_key
    checked = subprocess.run(
        [sys.executable, "-m", "roadstead", "config", "check", str(bad), "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert key is not None
    assert key.reveal() == "value/with+all="
    told = {finding["id"] for finding in json.loads(checked.stdout)}
    assert "secret.key-missing" in told
