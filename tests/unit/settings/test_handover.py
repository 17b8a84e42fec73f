"""Settings that travel to other processes, and to people."""

import json
from pathlib import Path

import pytest

from roadstead.settings.database_url import without_password
from roadstead.settings.handover import Handover
from roadstead.settings.load import load_unchecked
from roadstead.settings.plain import as_plain, as_shown


def test_a_handover_comes_back(tmp_path: Path) -> None:
    """Everything arrives as it was, secrets and what looks like a reference included."""
    environment = {
        "ROADSTEAD_STORAGE_SECRET_KEY": "$${env:HOME} s3cret",
        "ROADSTEAD_SERVER_LISTEN": "[::1]:0",
        "ROADSTEAD_AUGMENT_RULES": json.dumps(
            [{"match": "a", "layers": [{"path": "x", "platform": "linux/arm64"}, "y"], "env": ["A=$${x"], "cmd": []}]
        ),
    }
    settings = load_unchecked(None, environment=environment, directory=tmp_path).settings
    handover = Handover(settings=settings, rules_json='{"rules": []}', run_directory=tmp_path)

    back = Handover.parse(handover.as_json())

    assert as_plain(back.settings) == as_plain(settings)
    assert back.settings.augment == settings.augment
    assert back.settings.storage.secret_key is not None
    assert back.settings.storage.secret_key.reveal() == "${env:HOME} s3cret"
    assert (back.rules_json, back.run_directory) == (handover.rules_json, tmp_path)


def test_secrets_are_masked_for_people() -> None:
    """What is shown has no secret in it."""
    environment = {
        "ROADSTEAD_STORAGE_SECRET_KEY": "hunter2",
        "ROADSTEAD_DATABASE_URL": "postgresql://user:hunter2@db/x",
    }

    shown = as_shown(load_unchecked(None, environment=environment).settings)

    assert "hunter2" not in json.dumps(shown)
    assert shown["database"]["url"] == "postgresql://user:***@db/x"


def test_a_password_among_the_parameters_is_masked() -> None:
    """PostgreSQL's clients take it there, too."""
    url = "postgresql://user@db/x?sslmode=require&password=hunter2&sslpassword=hunter3#x"

    assert without_password(url) == "postgresql://user@db/x?sslmode=require&password=***&sslpassword=***#x"


@pytest.mark.parametrize("password", ["hunter2", "hunter/2", "hunter#2", "hunter?2", "hunter@2", "hunter:2", "x\n@2"])
def test_a_password_is_masked_whatever_is_in_it(password: str) -> None:
    """Characters that should be written otherwise in an address, and that the database's library takes all the same."""
    assert without_password(f"postgresql://user:{password}@db:5432/x") == "postgresql://user:***@db:5432/x"


def test_parameters_of_an_address_stay() -> None:
    """Whatever is in them, but for passwords."""
    url = "postgresql://user:hunter2@db/x?application_name=a@b&sslmode=require"

    assert without_password(url) == url.replace("hunter2", "***")


def test_urls_without_a_password_stay() -> None:
    """There is nothing to mask."""
    assert without_password("postgresql://user@db/x") == "postgresql://user@db/x"
    assert without_password("sqlite:////a/b:c@d.db") == "sqlite:////a/b:c@d.db"
