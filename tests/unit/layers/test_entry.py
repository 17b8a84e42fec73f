"""The script that images start with, run by busybox: what becomes of the image's entrypoint, and what it refuses."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.testing.components import require
from roadstead.testing.dockerd import BUSYBOX_INSTALL

SCRIPT = files("roadstead.layers").joinpath("entry").read_text()


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the script, at a home with nothing but busybox."""
    home = tmp_path_factory.mktemp("entry")
    (home / "bin").mkdir()
    busybox = require("busybox", install=BUSYBOX_INSTALL)
    (home / "bin/busybox").symlink_to(busybox)
    assert SCRIPT.count("\nhome=/opt/roadstead\n") == 1
    (home / "entry").write_text(SCRIPT.replace("\nhome=/opt/roadstead\n", f"\nhome={home}\n"))
    return [str(busybox), "sh", str(home / "entry")]


def _run(entry: list[str], *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*entry, *command], env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    # As bytes until here: Python's text mode takes a carriage return for a newline.
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _printing() -> list[str]:
    return [str(shutil.which("printf")), "%s\\0"]


words = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1)


@given(chain=words, command=words)
def test_the_entrypoint_and_the_command_keep_every_word(entry: list[str], chain: list[str], command: list[str]) -> None:
    """Blanks, quotes, newlines and any letters, in both ways of writing JSON; the image's words come first."""
    for as_ascii in (False, True):
        text = json.dumps([*_printing(), *chain], ensure_ascii=as_ascii)
        done = _run(entry, *command, ROADSTEAD_ENTRY_CHAIN=text)
        assert (done.returncode, done.stdout) == (0, "".join(f"{word}\0" for word in [*chain, *command])), done.stderr


def test_waves_chain_may_be_a_bare_path(entry: list[str]) -> None:
    """Wave writes an entrypoint of one word without brackets, and one of several as JSON."""
    printf, form = _printing()

    assert _run(entry, form, "a b", WAVE_ENTRY_CHAIN=printf).stdout == "a b\0"
    assert _run(entry, "a b", WAVE_ENTRY_CHAIN=json.dumps([printf, form])).stdout == "a b\0"


@pytest.mark.parametrize(
    "text", ["[", '["a"', '["a",]', "[1]", '["a"] x', '["\\q"]', '["\\u12"]', '["\\u0000"]', "[a]"]
)
def test_a_chain_that_is_no_list_of_words_is_refused(entry: list[str], text: str) -> None:
    """Nothing runs, and nothing in it is taken for a command."""
    done = _run(entry, "/bin/echo", "ran", ROADSTEAD_ENTRY_CHAIN=text)

    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr


def test_nothing_to_run_is_said(entry: list[str]) -> None:
    """An image without entrypoint and command."""
    done = _run(entry)

    assert (done.returncode, done.stdout) == (127, "")
    assert "nothing to run" in done.stderr


@pytest.mark.parametrize(
    "item", ["../up", "a/../b", "a//b", "a b", "a;b", "s3://", "gs://a", ".", "..", "a/./b", "a/b c", "a\\b", "$(id)"]
)
@pytest.mark.parametrize("form", ["{}", "good,{}", "{} , s3://good/prefix/"])
def test_what_is_no_bucket_is_refused(entry: list[str], item: str, form: str) -> None:
    """It is named, before anything is mounted; the program doesn't run."""
    done = _run(entry, "/bin/echo", "ran", ROADSTEAD_S3_BUCKETS=form.format(item))

    assert (done.returncode, done.stdout) == (1, "")
    assert f"this is no bucket: {item}\n" in done.stderr


@pytest.mark.parametrize("variables", [{}, {"ROADSTEAD_S3_BUCKETS": ""}, {"NXF_FUSION_BUCKETS": ""}])
def test_without_buckets_the_program_runs(entry: list[str], variables: Mapping[str, str]) -> None:
    """Its status is the status."""
    assert _run(entry, "/bin/sh", "-c", "exit 9", **variables).returncode == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROADSTEAD_S3_READ_ONLY", "ture"),
        ("ROADSTEAD_S3_READ_ONLY", "2"),
        ("ROADSTEAD_S3_TIMEOUT_S", "soon"),
        ("ROADSTEAD_S3_TIMEOUT_S", "0"),
        ("ROADSTEAD_S3_TIMEOUT_S", "1m"),
        ("ROADSTEAD_S3_TIMEOUT_S", "-5"),
        ("ROADSTEAD_S3_TIMEOUT_S", "99999999999999999999"),
    ],
)
def test_a_variable_that_means_nothing_is_refused(entry: list[str], name: str, value: str) -> None:
    """A slip in what makes a bucket read-only would leave it open to writes, and nobody would know."""
    done = _run(entry, "/bin/echo", "ran", ROADSTEAD_S3_BUCKETS="b", **{name: value})

    assert (done.returncode, done.stdout) == (1, "")
    assert name in done.stderr
    assert value in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("ROADSTEAD_S3_READ_ONLY", "True"), ("ROADSTEAD_S3_READ_ONLY", "0"), ("ROADSTEAD_S3_TIMEOUT_S", "60")],
)
def test_a_variable_that_means_something_isnt(entry: list[str], name: str, value: str) -> None:
    """What can't go on here is the mounting, for which there is nothing beside the script."""
    assert name not in _run(entry, "/bin/echo", "ran", ROADSTEAD_S3_BUCKETS="b", **{name: value}).stderr


def test_a_trace_shows_no_secret(entry: list[str]) -> None:
    """With Wave's variable for it each step is shown, up to the end; a key or a token in none of them."""
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_ACCESS_KEY_ID": "k3y", "AWS_SESSION_TOKEN": "t0k3n"}

    done = _run(entry, "/bin/true", WAVE_DEBUG="1", ROADSTEAD_S3_BUCKETS="one", AWS_REGION="a b", **secrets)

    assert "+ main /bin/true" in done.stderr
    assert not [secret for secret in secrets.values() if secret in done.stderr]


def test_the_script_is_clean() -> None:
    """shellcheck finds nothing."""
    path = Path(str(files("roadstead.layers").joinpath("entry")))
    program = require("shellcheck", install="apt-get install shellcheck")

    done = subprocess.run([program, "--shell=dash", path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
