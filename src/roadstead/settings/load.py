"""Settings out of a TOML file, the environment and the command line, with where each value came from.

Precedence: command line > environment > file > default. The environment has a variable for every setting,
``ROADSTEAD_<SECTION>_<KEY>``, or ``…_FILE`` with a file that holds the value; lists are JSON there. Mistakes are
collected: one run tells all of them.
A file may be distribution's instead (``distribution.py``; its ``REGISTRY_…`` variables then count as part of it), or
Wave's (``wave.py``).
"""

import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roadstead.secret import Secret
from roadstead.settings.check import check_settings
from roadstead.settings.convert import ConversionError, Source, convert, field_types
from roadstead.settings.distribution import Reading, is_distribution, read_distribution
from roadstead.settings.findings import Finding, SettingsFileError, SettingsInvalidError, nearest
from roadstead.settings.model import Settings
from roadstead.settings.origin import Given, Origin, OriginKind
from roadstead.settings.references import ReferenceInvalidError, find_references, read_value_file
from roadstead.settings.wave import is_wave, read_wave

PREFIX = "ROADSTEAD_"
LISTS = {"upstreams": "registries"}
"""Sections that may be written as a list of tables, ``[[upstreams]]``, and the key that this list is."""

_GUARDED = ("auth.", "tls.")
_NEVER_EMPTY = ("database.url", "storage.path", "storage.encrypt")
_EMPTY_ADVICE = (
    "It may have been filled from another one that isn't set. Give it a value; to do without the setting, leave {} out."
)

_FILE = "_FILE"  # behind a variable's name: its value is in the file that this one names
_SQLITE_FILE = re.compile(r"(sqlite(?:\+[a-z]+)?:///)([^/?][^?]*)(.*)", re.DOTALL)

# A Kubernetes Service called `roadstead` (or `roadstead-web`) puts these into every pod of its namespace.
_SERVICE_LINK = re.compile(
    r"ROADSTEAD_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, for each key (`server.listen`) where its value came from, and what to know although it serves."""

    settings: Settings
    origins: Mapping[str, Origin]
    warnings: Sequence[Finding] = ()


def load(
    config: Path | None,
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> LoadedSettings:
    """Return the settings, checked; raises SettingsFileError, or SettingsInvalidError with every finding.

    `overrides` maps keys (``server.listen``) to what the command line said, as text or as a value. `directory`
    (by default the working directory) is where relative paths begin that don't come from the file; those of the
    file begin at the file.
    """
    loaded, findings = load_with_findings(config, environment=environment, overrides=overrides, directory=directory)
    if findings:
        raise SettingsInvalidError(findings, loaded.warnings)
    return loaded


def load_with_findings(
    config: Path | None,
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    directory: Path | None = None,
    check: Callable[[Settings], Iterable[Finding]] = check_settings,
) -> tuple[LoadedSettings, Sequence[Finding]]:
    """Return settings and everything that speaks against them, with where it was said; SettingsFileError.

    What can't be read has its default, so that the rest can be judged with `check` in the same run.
    """
    loaded, findings = _loaded(config, environment, overrides or {}, directory or Path.cwd())
    # What is said of a default that only stands in for a slip would mislead.
    told = {_setting(finding.key) for finding in findings}
    told_there = {f"{finding.where}:{_setting(finding.key)}" for finding in findings}  # by another's keys
    told |= {setting for setting, origin in loaded.origins.items() if origin.name in told_there}
    judged = (_placed(finding, loaded.origins) for finding in check(loaded.settings))
    found = [*findings, *(finding for finding in judged if _setting(finding.key) not in told)]
    return loaded, [_as_written(finding, loaded.origins) for finding in found]


def load_unchecked(
    config: Path | None,
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> LoadedSettings:
    """Return settings whose values are of the right types, not yet judged together; otherwise like `load`."""
    loaded, findings = _loaded(config, environment, overrides or {}, directory or Path.cwd())
    if findings:
        raise SettingsInvalidError([_as_written(each, loaded.origins) for each in findings], loaded.warnings)
    return loaded


def _loaded(
    config: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object], directory: Path
) -> tuple[LoadedSettings, Sequence[Finding]]:
    findings: list[Finding] = []
    given: dict[str, Given] = {}
    warnings: Sequence[Finding] = ()
    if config is not None:
        path = directory / config
        text = _text(path)
        if is_wave(path, text):
            warnings = _from_foreign(read_wave(path, text, environment, directory), path, environment, given, findings)
        elif is_distribution(path, text):
            reading = read_distribution(path, text, environment, directory)
            warnings = _from_foreign(reading, path, environment, given, findings)
        else:
            given.update(_from_file(path, text, environment, findings))
    given.update(_from_environment(environment, directory, findings))
    given.update(_from_command_line(overrides, environment, directory))
    values = _converted(given, findings)
    values.setdefault("storage.path", directory / Settings().storage.path)
    origins = {key: given[key].origin if key in given else Origin(OriginKind.DEFAULT) for key in keys()}
    return LoadedSettings(build(values), origins, warnings), findings


def keys() -> Mapping[str, Any]:
    """Return every key that can be set (`server.listen`) with its type, in the model's order."""
    return {
        f"{section}.{name}": kind
        for section, table in field_types(Settings).items()
        for name, kind in field_types(table).items()
    }


def variable(key: str) -> str:
    """Return the environment variable of a key: `ROADSTEAD_SERVER_LISTEN`."""
    return PREFIX + key.replace(".", "_").upper()


def build(values: Mapping[str, object]) -> Settings:
    """Return settings from converted values by key; what isn't there takes its default."""
    sections = {}
    for section, table in field_types(Settings).items():
        fields = {name: values[key] for name in field_types(table) if (key := f"{section}.{name}") in values}
        sections[section] = table(**fields)
    return Settings(**sections)


def _converted(given: Mapping[str, Given], findings: list[Finding]) -> dict[str, object]:
    values: dict[str, object] = {}
    kinds = keys()
    for key, value in given.items():
        try:
            values[key] = convert(kinds[key], value.raw, key, value.source)
        except ConversionError as error:
            findings.extend(error.findings)
    url = values.get("database.url")
    if isinstance(url, str):
        values["database.url"] = _anchored(url, given["database.url"].source.directory)
    return values


def _anchored(url: str, directory: Path) -> str:
    """Make a SQLite file's relative path absolute: the other processes may stand elsewhere."""
    match = _SQLITE_FILE.fullmatch(url)
    if match is None or match[2].startswith(":"):
        return url
    return f"{match[1]}{directory / match[2]}{match[3]}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsFileError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise SettingsFileError(path, str(error)) from error


def _from_file(path: Path, text: str, environment: Mapping[str, str], findings: list[Finding]) -> dict[str, Given]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(path, str(error)) from error
    return _from_document(document, path, environment, findings)


def _from_document(
    document: Mapping[str, object], path: Path, environment: Mapping[str, str], findings: list[Finding]
) -> dict[str, Given]:
    source = Source(str(path), path.parent, environment)
    return {
        key: Given(raw, Origin(OriginKind.FILE, str(path), _references(raw), _written(key, document)), source)
        for key, raw in _walk(document, str(path), findings)
    }


def _written(key: str, document: Mapping[str, object]) -> str:
    """Return what a key is called in a document, if that is another name: `upstreams` for `[[upstreams]]`."""
    section = key.partition(".")[0]
    return section if section in LISTS and isinstance(document[section], list) else ""


def _from_foreign(
    reading: Reading,
    path: Path,
    environment: Mapping[str, str],
    given: dict[str, Given],
    findings: list[Finding],
) -> Sequence[Finding]:
    """Put what another's file says into `given`, above it what its section of ours says; return the warnings."""
    findings.extend(reading.findings)
    given.update(reading.given)
    given.update(_from_document(reading.ours, path, environment, findings))
    return reading.warnings


def _placed(finding: Finding, origins: Mapping[str, Origin]) -> Finding:
    """Name the file and key, or the variable, of a finding that names only our key."""
    origin = origins.get(_setting(finding.key))
    said = (OriginKind.FILE, OriginKind.ENVIRONMENT)
    return (
        finding if finding.where or origin is None or origin.kind not in said else replace(finding, where=origin.name)
    )


def _as_written(finding: Finding, origins: Mapping[str, Origin]) -> Finding:
    """Name the key of a finding as it was written, `upstreams[0].host` for `upstreams.registries[0].host`."""
    setting = _setting(finding.key)
    written = origins[setting].key if setting in origins else ""
    return replace(finding, key=written + finding.key.removeprefix(setting)) if written else finding


def _setting(key: str) -> str:
    """Return the setting that a key is in: `augment.rules` for `augment.rules[0].match`."""
    return key.partition("[")[0]


def _walk(document: Mapping[str, object], where: str, findings: list[Finding]) -> Iterator[tuple[str, object]]:
    sections = field_types(Settings)
    for section, table in document.items():
        if section in LISTS and isinstance(table, list):
            yield f"{section}.{LISTS[section]}", table
        elif section not in sections:
            findings.append(Finding(section, f"unknown key{_nearest_key(section, tuple(sections))}", where))
        elif not isinstance(table, Mapping):
            findings.append(Finding(section, f"expected a table, [{section}]", where))
        else:
            yield from _section(section, table, where, findings)


def _section(
    section: str, table: Mapping[str, object], where: str, findings: list[Finding]
) -> Iterator[tuple[str, object]]:
    known = field_types(field_types(Settings)[section])
    for name, raw in table.items():
        if name in known:
            yield f"{section}.{name}", raw
        else:
            findings.append(Finding(f"{section}.{name}", f"unknown key{_nearest_key(name, tuple(known))}", where))


def _nearest_key(name: str, siblings: Sequence[str]) -> str:
    """Suggest a key beside this one, else one of the same name elsewhere."""
    elsewhere = {key.partition(".")[2]: key for key in keys()}
    if name in elsewhere:
        return f"; did you mean {elsewhere[name]}?"
    beside = nearest(name, siblings)
    if beside:
        return beside
    other = nearest(name, elsewhere)
    return f"; did you mean {elsewhere[other[len('; did you mean ') : -1]]}?" if other else ""


def _from_environment(environment: Mapping[str, str], directory: Path, findings: list[Finding]) -> dict[str, Given]:
    names = {variable(key): key for key in keys()}
    given = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX):
            continue
        if name in names and not text:
            if _is_no_choice(names[name]):
                advice = _EMPTY_ADVICE.format(name)
                findings.append(Finding(names[name], "the variable is empty", name, advice, "secret.empty"))
        elif name in names:
            origin = Origin(OriginKind.ENVIRONMENT, name, find_references(text))
            given[names[name]] = Given(text, origin, Source(name, directory, environment, textual=True))
        elif name.removesuffix(_FILE) in names:
            given.update(
                _from_value_file(name, text, names[name.removesuffix(_FILE)], environment, directory, findings)
            )
        elif not _SERVICE_LINK.fullmatch(name):
            findings.append(Finding(name, f"unknown setting{nearest(name, names)}", "environment"))
    return given


def _is_no_choice(key: str) -> bool:
    """Say whether an empty variable can't be meant: who may sign in, what encrypts, where things lie, any secret.

    To take it for no word would be to serve more openly than was asked for, or from elsewhere. Of other settings it
    is as good as none: what the file says counts, or the default.
    """
    return key.startswith(_GUARDED) or key in _NEVER_EMPTY or Secret in typing.get_args(keys()[key])


def _from_value_file(
    name: str, path: str, key: str, environment: Mapping[str, str], directory: Path, findings: list[Finding]
) -> dict[str, Given]:
    """Return what the file holds that a `…_FILE` variable names: a value as it is, in which nothing is referred to."""
    other = name.removesuffix(_FILE)
    if environment.get(other):
        findings.append(Finding(key, f"{other} is set too: set one of them", name))
        return {}
    try:
        text = read_value_file(path, directory)
    except ReferenceInvalidError as error:
        findings.append(Finding(key, str(error), name, error.advice(), error.id))
        return {}
    return {key: Given(text, Origin(OriginKind.ENVIRONMENT, name), Source(name, directory, None, textual=True))}


def _from_command_line(
    overrides: Mapping[str, object], environment: Mapping[str, str], directory: Path
) -> dict[str, Given]:
    source = Source(OriginKind.COMMAND_LINE, directory, environment, textual=True)
    return {key: Given(raw, Origin(OriginKind.COMMAND_LINE, ""), source) for key, raw in overrides.items()}


def _references(raw: object) -> tuple[str, ...]:
    return find_references(raw) if isinstance(raw, str) else ()
