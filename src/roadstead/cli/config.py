"""``roadstead config``: the settings that ``serve`` would run with, and what is wrong with them."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from roadstead.cli.report import finding_lines, report_warnings
from roadstead.settings.check import check_settings
from roadstead.settings.findings import Finding
from roadstead.settings.load import LoadedSettings, load_unchecked, load_with_findings
from roadstead.settings.model import Settings
from roadstead.settings.plain import as_shown

_BARE = re.compile(r"[A-Za-z0-9_-]+")

app = typer.Typer(
    help="Show and check the settings.", no_args_is_help=True, epilog="Example: roadstead config check roadstead.toml"
)

ConfigArgument = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="A TOML file, or distribution's config.yml; none is needed.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("show", epilog="Example: roadstead config show roadstead.toml")
def show(config: ConfigArgument = None, as_json: JsonOption = False) -> None:
    """Print every setting with where its value came from, as TOML; secrets are masked."""
    loaded = load_unchecked(config, environment=os.environ)
    report_warnings(loaded.warnings)
    if as_json:
        typer.echo(json.dumps(_described(loaded), indent=2))
        return
    for section, table in as_shown(loaded.settings).items():
        typer.echo(f"[{section}]")
        lines = [_line(name, value) for name, value in table.items()]
        width = min(max(map(len, lines)), 60)
        for line, name in zip(lines, table, strict=True):
            typer.echo(f"{line:<{width}}  # {loaded.origins[f'{section}.{name}']}")
        typer.echo()


@app.command("check", epilog="Example: roadstead config check roadstead.toml && roadstead serve roadstead.toml")
def check(config: ConfigArgument = None, as_json: JsonOption = False) -> None:
    """Say what is wrong with the settings: all of it in one run; status 1 if anything is. Reads the rules' layers."""
    findings, warnings = _findings(config)
    report_warnings(warnings)
    if as_json:
        described = [
            {"key": f.key, "message": f.message, "where": f.where, "advice": f.advice, "id": f.id} for f in findings
        ]
        typer.echo(json.dumps(described, indent=2))
    elif findings:
        for finding in findings:
            typer.echo(finding_lines(finding))
    else:
        typer.echo("the settings are fine")
    if findings:
        raise typer.Exit(1)


def _findings(config: Path | None) -> tuple[Sequence[Finding], Sequence[Finding]]:
    # As below.
    from roadstead.cli.preflight import remarks

    loaded, findings = load_with_findings(config, environment=os.environ, check=_everything)
    return findings, [*loaded.warnings, *remarks(loaded.settings, findings)]


def _everything(settings: Settings) -> Iterator[Finding]:
    # It knows rules, storage and databases, which --help need not wait for.
    from roadstead.cli.preflight import preflight

    yield from check_settings(settings)
    yield from preflight(settings)


def _described(loaded: LoadedSettings) -> dict[str, dict[str, Any]]:
    return {
        f"{section}.{name}": {"value": value, "origin": str(loaded.origins[f"{section}.{name}"])}
        for section, table in as_shown(loaded.settings).items()
        for name, value in table.items()
    }


def _line(name: str, value: object) -> str:
    # TOML has no null: a setting that isn't set is a comment.
    return f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{_name(key)} = {_toml(each)}" for key, each in value.items() if each is not None) + " }"
        )
    # Texts, numbers and truth values are written alike in both; TOML takes JSON's escapes.
    return json.dumps(value, ensure_ascii=False)


def _name(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)
