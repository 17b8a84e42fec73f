"""The configuration that runs on Fargate today, with its secrets elsewhere: it starts, and does what it did there.

Tokens of another server, verified with a certificate; events with credentials; a secret for uploads; S3; TLS with a
certificate from files. The deployment spec (§1) has the file; here are its words with our addresses.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey
from tests.certificates import Authority, pem

from roadstead.auth.key_ids import libtrust_id
from roadstead.oci.digest import Digest
from roadstead.testing.aws import AwsServer
from roadstead.testing.images import make_image
from roadstead.testing.receivers import Receiver
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import ServerNotReadyError

CREDENTIALS = base64.b64encode(b"registry:a/b+c&d\\1").decode()
"""What broke the substitution in texts: a slash, an ampersand, a backslash."""

DISTRIBUTION = """
version: 0.1
log: {level: info, formatter: text, fields: {service: registry}}
storage:
  cache: {layerinfo: inmemory}
  filesystem: {rootdirectory: DATA}
http:
  addr: :443
  secret: HTTP_SECRET
auth:
  token:
    realm: https://repo-dev.test/docker/v1/bearerToken
    service: docker-registry.test
    issuer: www.test.org
    rootcertbundle: token_signing_key_public_cert.pem
notifications:
  endpoints:
    - name: Synapse
      url: RECEIVER
      headers: {Authorization: ["Basic NOTIFICATION_AUTH"]}
      timeout: 1m
      threshold: 1
      backoff: 30s
"""
NATIVE = """
[storage]
path = "DATA"

[auth.token]
realm = "https://repo-dev.test/docker/v1/bearerToken"
service = "docker-registry.test"
issuer = "www.test.org"
rootcertbundle = "token_signing_key_public_cert.pem"

[[events.endpoints]]
name = "Synapse"
url = "RECEIVER"
headers = { Authorization = ["Basic NOTIFICATION_AUTH"] }
timeout = "1m"
threshold = 1
backoff = "30s"
"""
FILES = {"config.yml": DISTRIBUTION, "roadstead.toml": NATIVE}
SECRET = "registry-dev-DockerFargateStack/dev/ecs"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """A secret with both keys, and another that lacks the first."""
    with AwsServer(tmp_path_factory.mktemp("aws")) as server:
        whole = {"notification_auth": CREDENTIALS, "http_secret": "of every task"}
        server.call("secretsmanager", "create_secret", Name=SECRET, SecretString=json.dumps(whole))
        part = json.dumps({"http_secret": "of every task"})
        server.call("secretsmanager", "create_secret", Name="without", SecretString=part)
        yield server


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    """What signs tokens."""
    return ec.generate_private_key(ec.SECP256R1())


def token(key: ec.EllipticCurvePrivateKey, repository: str) -> Mapping[str, str]:
    """Return a token as Synapse writes them."""
    now = int(time.time())
    header = {"typ": "JWT", "alg": "ES256", "kid": libtrust_id(key.public_key())}
    claims = {
        "iss": "www.test.org",
        "aud": "docker-registry.test",
        "sub": "273950",
        "iat": now,
        "nbf": now - 120,
        "exp": now + 120,
        "jti": "5b2a",
        "access": [{"type": "repository", "name": repository, "actions": ["pull", "push"]}],
    }
    text = jws.serialize_compact(header, json.dumps(claims).encode(), ECKey.import_key(key), algorithms=["ES256"])
    return {"Authorization": f"Bearer {text}"}


class Sources:
    """Where both secrets lie, as the references to them and the variables that they need."""

    def __init__(self, aws: AwsServer, directory: Path) -> None:
        self._aws = aws
        self._directory = directory

    def environment(self) -> tuple[Mapping[str, str], str, str]:
        variables = {"notification_auth": CREDENTIALS, "http_secret": "of every task"}
        return variables, "${env:notification_auth}", "${env:http_secret}"

    def file(self) -> tuple[Mapping[str, str], str, str]:
        for name, text in (("notification_auth", CREDENTIALS), ("http_secret", "of every task")):
            (self._directory / name).write_text(f"{text}\n")
        return {}, "${file:notification_auth}", "${file:http_secret}"

    def secrets_manager(self) -> tuple[Mapping[str, str], str, str]:
        references = (f"${{secret:{SECRET}#notification_auth}}", f"${{secret:{SECRET}#http_secret}}")
        return self._aws.environment, *references


SOURCES: Mapping[str, Callable[[Sources], tuple[Mapping[str, str], str, str]]] = {
    "environment": Sources.environment,
    "file": Sources.file,
    "secrets manager": Sources.secrets_manager,
}


def written(file: str, directory: Path, auth: str, secret: str, receiver: str = "http://127.0.0.1:1/events") -> str:
    """Return the configuration with its places filled."""
    replaced = {"DATA": str(directory / "data"), "HTTP_SECRET": secret, "NOTIFICATION_AUTH": auth, "RECEIVER": receiver}
    text = FILES[file]
    for place, value in replaced.items():
        text = text.replace(place, value)
    return text


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("file", FILES)
def test_it_serves_as_it_did(
    aws: AwsServer, key: ec.EllipticCurvePrivateKey, tmp_path: Path, file: str, source: str
) -> None:
    """Clients are sent to the token server, its tokens push, and the receiver is told with the credentials."""
    certificate = Authority.make("nobody").issue(key, "token server")
    (tmp_path / "token_signing_key_public_cert.pem").write_text(pem(certificate))
    environment, auth, secret = SOURCES[source](Sources(aws, tmp_path))
    image, headers = make_image(), token(key, "syn1/app")
    with Receiver() as receiver:
        config = written(file, tmp_path, auth, secret, receiver.url)
        with (
            RoadsteadServer(tmp_path, config=config, file=file, environment=environment) as server,
            server.client() as client,
        ):
            asked = client.get("/v2/syn1/app/manifests/1")
            for data in image.blobs.values():
                pushed = client.post(f"/v2/syn1/app/blobs/uploads/?digest={Digest.of(data)}", data, headers)
                assert pushed.status == 201, pushed.body
            done = client.put("/v2/syn1/app/manifests/1", image.raw, {"Content-Type": image.media_type, **headers})
            assert receiver.wait_for(lambda events: len(events) == len(image.blobs) + 1)
            log = server.log

    assert done.status == 201, done.body
    assert 'realm="https://repo-dev.test/docker/v1/bearerToken"' in asked.headers["www-authenticate"]
    assert {arrival.header("Authorization") for arrival in receiver.arrivals} == {f"Basic {CREDENTIALS}"}
    assert {event["actor"]["name"] for event in receiver.taken} == {"273950"}
    [told] = [event for event in receiver.taken if event["target"].get("tag") == "1"]
    assert (told["target"]["mediaType"], told["request"]["host"]) == (image.media_type, server.host)
    assert CREDENTIALS not in log


WRONG = {
    "environment": ("${env:notification_auth}", "secret.missing", "${env:notification_auth}"),
    "file": ("${file:notification_auth}", "secret.missing", "${file:notification_auth}"),
    "key": ("${secret:without#notification_auth}", "secret.key-missing", "${secret:without#notification_auth}"),
    "secret": ("${secret:nowhere#notification_auth}", "secret.missing", "${secret:nowhere#notification_auth}"),
}


@pytest.mark.parametrize("where", WRONG)
@pytest.mark.parametrize("file", FILES)
def test_the_missing_one_is_named(
    aws: AwsServer, key: ec.EllipticCurvePrivateKey, tmp_path: Path, file: str, where: str
) -> None:
    """By `config check` and at the start alike: the reference and where it stands; nothing is served."""
    (tmp_path / "token_signing_key_public_cert.pem").write_text(pem(Authority.make("nobody").issue(key, "server")))
    reference, finding, named = WRONG[where]
    config = written(file, tmp_path, reference, "of every task")
    environment = {**aws.environment, "PYTHONPATH": os.pathsep.join(sys.path)}

    with (
        pytest.raises(ServerNotReadyError) as caught,
        RoadsteadServer(tmp_path, config=config, file=file, environment=environment),
    ):
        pass
    checked = subprocess.run(
        [sys.executable, "-m", "roadstead", "config", "check", str(tmp_path / file), "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    told = [each for each in json.loads(checked.stdout) if each.get("id") == finding]
    assert checked.returncode == 1
    assert any(named in each["message"] and "endpoints" in each["key"] for each in told), checked.stdout
    assert named in caught.value.log_tail
    assert "endpoints" in caught.value.log_tail
