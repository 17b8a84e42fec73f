"""distribution's ``config.yml`` (version 0.1) and its ``REGISTRY_…`` variables, read into settings of ours.

What becomes of each key is in ``distribution_keys.py``. Unknown keys are warned about, since distribution lets them
pass; keys that would be wrong to pass over are findings, and nothing is served.
"""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from roadstead.errors import InvalidError
from roadstead.settings.address import AddressInvalidError, ListenAddress
from roadstead.settings.convert import Source
from roadstead.settings.distribution_environment import CONFIGURATION_PATH, SECTIONS, apply_variables, named_table
from roadstead.settings.distribution_keys import (
    BY_PATH,
    FREE_NAMES,
    KEYS,
    NOT_DRIVERS,
    OUR_SECTION,
    VERSION,
    Fate,
    Key,
    Kind,
)
from roadstead.settings.findings import NO_EFFECT, Finding, SettingsFileError, nearest
from roadstead.settings.origin import Given, Origin, OriginKind
from roadstead.settings.quantity import format_duration, parse_duration
from roadstead.settings.references import ReferenceInvalidError, find_references, resolve_references
from roadstead.settings.yaml_tree import (
    Node,
    Row,
    Scalar,
    Table,
    YamlInvalidError,
    as_text,
    find,
    parse_yaml,
    plain_value,
)

DEFAULT_PATHS = (Path("/etc/distribution/config.yml"), Path("/etc/docker/registry/config.yml"))
"""Where its images of version 3 and 2 have it."""

DEFAULT_ROOT = "/var/lib/registry"

_VERSION_LINE = re.compile(r"^version\s*:", re.MULTILINE)
_REFERENCE = re.compile(r"\$\{(?:env|file|secret|ssm):")  # any other `${…}` is distribution's own text
_DURATION = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 36_500 * 86_400.0
_LEVELS = {"error": "error", "warn": "warning", "info": "info", "debug": "debug"}
_TOKEN_NAMES = {"signingalgorithms": "signing_algorithms", "autoredirectpath": "autoredirect_path"}
_ACTIONS = ("push", "pull", "mount", "delete")
_ENDPOINT_KEYS = (
    "name",
    "url",
    "disabled",
    "headers",
    "timeout",
    "threshold",
    "backoff",
    "ignoredmediatypes",
    "ignore",
)
_CLIENT_AUTH = {"require-and-verify-client-cert": "required", "verify-client-cert-if-given": "optional"}
_PROXY_TTL = "168h"
_HUB = {"registry-1.docker.io": "docker.io", "index.docker.io": "docker.io", "registry.hub.docker.com": "docker.io"}
_CATALOG_PAGE = 100  # repositories, where the client doesn't say how many


@dataclass(slots=True)
class Reading:
    """What was read: raw values by our keys, what speaks against serving, and what to know all the same."""

    given: dict[str, Given] = field(default_factory=dict)
    ours: Mapping[str, object] = field(default_factory=dict)  # the section of ours, as TOML would give it
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


def is_distribution(path: Path, text: str) -> bool:
    """Say whether a file is distribution's: YAML by its name, or with a ``version:`` where the name says nothing."""
    if path.suffix.lower() in (".yml", ".yaml"):
        return True
    return path.suffix.lower() != ".toml" and _VERSION_LINE.search(text) is not None


def find_config(argument: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the file that ``registry serve`` reads: the argument, else the variable's, else a default place's."""
    if argument is not None:
        return argument
    named = environment.get(CONFIGURATION_PATH)
    if named:
        return Path(named)
    for path in DEFAULT_PATHS:
        if path.exists():
            return path
    raise ConfigMissingError


class ConfigMissingError(InvalidError):
    """No configuration file was named, and none is where distribution's images have theirs."""

    def __init__(self) -> None:
        places = " nor ".join(str(path) for path in DEFAULT_PATHS)
        super().__init__(f"no configuration: none was named, and there is neither {places}")

    def advice(self) -> str:
        """Say how to name one."""
        return f"Name the file, registry serve CONFIG, or set {CONFIGURATION_PATH}; roadstead serve needs none."


def read_distribution(path: Path, text: str, environment: Mapping[str, str], directory: Path) -> Reading:
    """Return what the file and the variables say; raises SettingsFileError where that isn't a table in YAML.

    Relative paths begin at `directory`, the working directory, as with distribution.
    """
    return _Reader(path, environment, directory).read(text)


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str], directory: Path) -> None:
        self._path = path
        self._environment = environment
        self._directory = directory
        self._out = Reading()
        self._token_settings: dict[str, object] = {}
        self._root = Table(self._locate(""))

    def read(self, text: str) -> Reading:
        self._root = self._parsed(text)
        if not self._is_version_known():
            return self._out
        ours = self._root.children.pop(OUR_SECTION, None)
        if ours is not None:
            self._out.ours = self._native(ours)
        for name, node in self._root.children.items():
            self._root.children[name] = named_table(name, self._resolved(node, name))
        apply_variables(self._root, self._environment, self._out.findings, self._out.warnings)
        self._walk(self._root, "")
        self._check_driver()
        self._check_auth()
        self._endpoint()
        self._proxy()
        self._defaults()
        return self._out

    # The document -------------------------------------------------------------------------------------------------

    def _locate(self, path: str) -> Origin:
        return Origin(OriginKind.FILE, f"{self._path}:{path}" if path else str(self._path))

    def _parsed(self, text: str) -> Table:
        try:
            root = parse_yaml(text, self._locate, self._written_twice)
        except YamlInvalidError as error:
            raise SettingsFileError(self._path, str(error)) from error
        if not isinstance(root, Table):
            raise SettingsFileError(self._path, "expected a table, as in YAML: `version: 0.1` and so on")
        return root

    def _written_twice(self, path: str) -> None:
        self._out.warnings.append(Finding(path, "is written twice; the last one counts", str(self._path)))

    def _is_version_known(self) -> bool:
        version = self._root.children.pop("version", None)
        if isinstance(version, Scalar) and version.text == VERSION:
            return True
        told = "is missing" if version is None else f"{as_text(version)!r} is not supported"
        self._out.findings.append(
            Finding("version", told, str(self._path), f"A configuration of distribution says `version: {VERSION}`.")
        )
        return False

    def _native(self, node: Node) -> Mapping[str, object]:
        """Return the section of ours with truth values and numbers, as TOML would have them."""
        values = _typed(node)
        if isinstance(values, Mapping):
            return values
        self._out.findings.append(Finding(OUR_SECTION, "expected a table", str(self._path)))
        return {}

    def _resolved(self, node: Node, path: str) -> Node:
        """Follow the references in texts, in place."""
        if isinstance(node, Table):
            for name, each in node.children.items():
                node.children[name] = self._resolved(each, f"{path}.{name}")
        elif isinstance(node, Row):
            node.items[:] = [self._resolved(each, f"{path}[{at}]") for at, each in enumerate(node.items)]
        elif _REFERENCE.search(node.text):
            try:
                text = resolve_references(
                    node.text, environment=self._environment, directory=self._path.parent, foreign=True
                )
            except ReferenceInvalidError as error:
                found = Finding(path, str(error), str(self._path), error.advice(), error.id)
                self._out.findings.append(found)
            else:
                origin = replace(node.origin, references=find_references(node.text))
                return Scalar(text, plain=node.plain, origin=origin)
        return node

    # Keys ---------------------------------------------------------------------------------------------------------

    def _walk(self, table: Table, section: str) -> None:
        for name, node in table.children.items():
            path = f"{section}.{name}" if section else name
            key = BY_PATH.get(path)
            if key is not None:
                self._take(key, node)
            elif path in SECTIONS:
                if isinstance(node, Table):
                    self._walk(node, path)
                elif _says(node):
                    self._find(path, node, "expected a table")
            elif section != "storage" and section != "auth":  # another driver or provider is told as such
                suggestion = nearest(name, SECTIONS.get(section, ()))
                self._warn(path, node, f"unknown key, left out{suggestion}")

    def _take(self, key: Key, node: Node) -> None:
        if not _asks(key, node):
            return
        if key.fate is Fate.HONOURED:
            if key.settings:
                _READERS.get(key.path, _Reader.by_kind)(self, key, node)
        elif self._is_quiet(key, node):
            return
        elif key.fate is Fate.WARNED:
            self._warn(key.path, node, f"has no effect here: {key.about}", NO_EFFECT)
        else:
            self._find(key.path, node, f"cannot be honoured: {key.about}", key.advice)

    def _is_quiet(self, key: Key, node: Node) -> bool:
        """Say whether no word is needed: the value asks for nothing, or was told as no value at all."""
        if key.kind is Kind.TRUTH and self._truth(key, node) is None:
            return True
        return isinstance(node, Scalar) and _word(node) in key.quiet

    def by_kind(self, key: Key, node: Node) -> None:
        value: object
        match key.kind:
            case Kind.TRUTH:
                value = self._truth(key, node)
            case Kind.NUMBER:
                value = self._number(key, node)
            case Kind.DURATION:
                value = self._duration(key, node)
            case Kind.HEADERS:
                value = self._headers(key, node)
            case Kind.FIELDS:
                value = self._fields(key, node)
            case Kind.TEXTS:
                value = self._texts(key, node)
            case _:
                value = self._text(key, node)
        if value is not None:
            self._give(key.settings[0], value, node)

    def _give(self, setting: str, raw: object, node: Node) -> None:
        name = node.origin.name
        source = Source(name, self._directory, None, textual=True)
        self._out.given[setting] = Given(raw, node.origin, source)

    def _find(self, path: str, node: Node, message: str, advice: str | None = None) -> None:
        self._out.findings.append(Finding(path, message, self._where(node), advice))

    def _warn(self, path: str, node: Node, message: str, kind: str | None = None) -> None:
        self._out.warnings.append(Finding(path, message, self._where(node), id=kind))

    def _where(self, node: Node) -> str:
        return node.origin.name if node.origin.kind is OriginKind.ENVIRONMENT else str(self._path)

    # Values: None means that a finding was made ---------------------------------------------------------------------

    def _expected(self, key: Key, node: Node, expected: str) -> None:
        told = {Table: "a table", Row: "a list"}.get(type(node), f"{as_text(node)!r}")
        quotes = " (without quotes)" if isinstance(node, Scalar) and not node.plain else ""
        self._find(key.path, node, f"expected {expected}{quotes}, got {told}")

    def _text(self, key: Key, node: Node) -> str | None:
        if isinstance(node, Scalar):
            return node.text
        self._expected(key, node, "a text")
        return None

    def _truth(self, key: Key, node: Node) -> bool | None:
        truth = node.truth if isinstance(node, Scalar) else None
        if truth is None:
            self._expected(key, node, "true or false")
        return truth

    def _number(self, key: Key, node: Node) -> int | None:
        number = node.number if isinstance(node, Scalar) else None
        if number is None:
            self._expected(key, node, "a whole number")
        return number

    def _duration(self, key: Key, node: Node) -> str | None:
        if isinstance(node, Scalar) and node.number is not None:
            told = format_duration(timedelta(microseconds=node.number // 1000))
            if node.number:
                self._warn(
                    key.path, node, f"a number without a unit counts nanoseconds: {told}; write the unit, such as 30s"
                )
            duration: timedelta | None = timedelta(microseconds=max(0, node.number // 1000))
        else:
            duration = parse_go_duration(node.text) if isinstance(node, Scalar) else None
        if duration is None:
            self._expected(key, node, "a duration such as 30s or 168h")
            return None
        return format_duration(duration)

    def _headers(self, key: Key, node: Node) -> object:
        if isinstance(node, Table):
            return as_text(node)
        self._expected(key, node, "a table of lists")
        return None

    def _fields(self, key: Key, node: Node) -> dict[str, object] | None:
        if not isinstance(node, Table):
            self._expected(key, node, "a table")
            return None
        return {
            name: _typed(each) if isinstance(each, Scalar) else str(as_text(each))
            for name, each in node.children.items()
        }

    def _texts(self, key: Key, node: Node) -> list[str] | None:
        if not isinstance(node, Row) or not all(isinstance(each, Scalar) for each in node.items):
            self._expected(key, node, "a list of texts")
            return None
        return [each.text for each in node.items if isinstance(each, Scalar)]

    # Keys that need a word more ----------------------------------------------------------------------------------

    def log_level(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text is None or (key.path == "loglevel" and find(self._root, "log.level") is not None):
            return
        if text.lower() in _LEVELS:
            self._give("log.level", _LEVELS[text.lower()], node)
        else:
            self._expected(key, node, f"one of {', '.join(_LEVELS)}")

    def log_formatter(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text == "logstash":
            self._warn(key.path, node, "lines are JSON with our own names, not logstash's")
            self._give("log.format", "json", node)
        elif text in ("text", "json"):
            self._give("log.format", text, node)
        elif text is not None:
            self._expected(key, node, "one of text, json, logstash")

    def negated(self, key: Key, node: Node) -> None:
        truth = self._truth(key, node)
        if truth is not None:
            self._give(key.settings[0], not truth, node)

    def purging(self, key: Key, node: Node) -> None:
        dry_run = find(self._root, "storage.maintenance.uploadpurging.dryrun")
        if not (isinstance(dry_run, Scalar) and dry_run.truth):
            self.by_kind(key, node)

    def dry_run(self, key: Key, node: Node) -> None:
        if self._truth(key, node):
            self._warn(key.path, node, "nothing is removed, and nothing is listed either")
            self._give("registry.purge_uploads", raw=False, node=node)

    def address(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text is None:
            return
        if text.startswith(":"):
            text = f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}{text}"  # noqa: S104 - as Go does
        self._give(key.settings[0], text, node)
        if key.path == "http.addr" and not _is_loopback(text):
            self._give("server.open_to_network", raw=True, node=node)
            if find(self._root, "auth.htpasswd") is None and find(self._root, "auth.token") is None:
                self._warn(
                    key.path,
                    node,
                    f"{text} can be reached from other machines, and there is no authentication: whoever reaches it "
                    "can read, write and delete every image",
                )

    def token(self, key: Key, node: Node) -> None:
        """Add a key of ``auth.token`` to the table that it is here."""
        name = key.path.rpartition(".")[2]
        value: object
        match key.kind:
            case Kind.TRUTH:
                value = self._truth(key, node)
            case Kind.TEXTS:
                value = self._texts(key, node)
            case _:
                value = self._text(key, node)
        if value is not None:
            self._token_settings[_TOKEN_NAMES.get(name, name)] = value
            self._give("auth.token", self._token_settings, node)

    def client_auth(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text in _CLIENT_AUTH:
            self._give(key.settings[0], _CLIENT_AUTH[text], node)
        elif text in ("request-client-cert", "require-any-client-cert"):
            self._find(
                key.path,
                node,
                f"{text} cannot be honoured: certificates that nobody checks aren't asked for",
                "Take verify-client-cert-if-given or require-and-verify-client-cert.",
            )
        elif text is not None:
            self._expected(key, node, f"one of {', '.join(_CLIENT_AUTH)}")

    def minimum_tls(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text in ("tls1.0", "tls1.1"):
            self._warn(key.path, node, "clients have to speak 1.2 or newer")
            text = "tls1.2"
        if text in ("tls1.2", "tls1.3"):
            self._give(key.settings[0], text.removeprefix("tls"), node)
        elif text is not None:
            self._expected(key, node, "tls1.2 or tls1.3")

    def host(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text is not None:
            self._give("server.public_url", text, node)
            self._give("server.relative_urls", raw=False, node=node)

    def relative_urls(self, key: Key, node: Node) -> None:
        truth = self._truth(key, node)
        if truth and find(self._root, "http.host") is None:
            self._give("server.relative_urls", raw=True, node=node)

    def redirect(self, key: Key, node: Node) -> None:
        if find(self._root, "storage.s3") is not None:
            self.negated(key, node)
        else:
            self._truth(key, node)  # another driver has nowhere to send clients to; what isn't a truth value is told

    def key_id(self, key: Key, node: Node) -> None:
        encrypt = find(self._root, "storage.s3.encrypt")
        if isinstance(encrypt, Scalar) and encrypt.truth:
            self.by_kind(key, node)
        else:
            self._warn(key.path, node, "has no effect without storage.s3.encrypt")

    def storage_class(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        if text is not None and text.upper() != "NONE":
            self._give("storage.storage_class", text.upper(), node)

    def down_files(self, key: Key, node: Node) -> None:
        entries = node.items if isinstance(node, Row) else []
        files = [find(entry, "file") for entry in entries if isinstance(entry, Table)]
        paths = [file.text for file in files if isinstance(file, Scalar)]
        if len(paths) == len(entries) and isinstance(node, Row):
            self._give(key.settings[0], paths, node)
        else:
            self._expected(key, node, "a list of tables with the key file")

    def endpoints(self, key: Key, node: Node) -> None:
        entries = node.items if isinstance(node, Row) else []
        if not isinstance(node, Row) or not all(isinstance(entry, Table) for entry in entries):
            self._expected(key, node, "a list of tables with the keys name and url")
            return
        given = [
            self._event_endpoint(f"{key.path}[{at}]", entry)
            for at, entry in enumerate(entries)
            if isinstance(entry, Table) and not _is_off(entry, "disabled", off=True)
        ]
        self._give(key.settings[0], given, node)

    def _event_endpoint(self, path: str, entry: Table) -> dict[str, object]:
        """Return one of distribution's endpoints as one of ours, with distribution's manners."""
        given: dict[str, object] = {"parallel": "1", "heads": "true", "pulls_at_once": "1"}
        ignored: list[object] = []
        actions = list(_ACTIONS)
        for name, node in entry.children.items():
            inner = Key(path=f"{path}.{name}", fate=Fate.HONOURED)
            is_empty = isinstance(node, Scalar) and not _says(node)
            if is_empty or name == "disabled":
                continue
            if name in ("name", "url"):
                given[name] = self._text(inner, node)
            elif name == "headers":
                given[name] = self._headers(inner, node)
            elif name in ("timeout", "backoff"):
                given[name] = self._above_nothing(self._duration(inner, node))
            elif name == "threshold":
                number = self._number(inner, node)
                given[name] = str(number) if number is not None and number > 0 else None
            elif name == "ignoredmediatypes":
                ignored += self._texts(inner, node) or []
            elif name == "ignore" and isinstance(node, Table):
                for each, inside in node.children.items():
                    found = self._texts(replace(inner, path=f"{inner.path}.{each}"), inside) or []
                    if each == "mediatypes":
                        ignored += found
                    elif each == "actions":
                        actions = [action for action in actions if action not in found]
                    else:
                        self._warn(f"{inner.path}.{each}", inside, "unknown key, left out")
            else:
                self._warn(inner.path, node, f"unknown key, left out{nearest(name, _ENDPOINT_KEYS)}")
        given |= {"actions": actions, "ignored_media_types": ignored}
        return {name: value for name, value in given.items() if value is not None}

    def _above_nothing(self, duration: str | None) -> str | None:
        """Return a duration, None for 0: there distribution takes its default, which is ours too."""
        return None if duration is None or not parse_duration(duration) else duration

    def sparse(self, key: Key, node: Node) -> None:
        text = self._text(key, node)
        disabled = find(self._root, "validation.disabled")
        if isinstance(disabled, Scalar) and disabled.truth:
            return
        if text in ("all", "none", "list"):
            self._give("registry.sparse_indexes", text != "all", node)
        elif text is not None:
            self._expected(key, node, "one of all, none, list")

    def unchecked(self, key: Key, node: Node) -> None:
        if self._truth(key, node):
            for setting in key.settings:
                self._give(setting, raw=True, node=node)

    def catalog(self, key: Key, node: Node) -> None:
        number = self._number(key, node)
        if number is not None:
            self._give("registry.catalog_page_max", str(number), node)
            self._give("registry.catalog_page", str(min(number, _CATALOG_PAGE)), node)

    # What is judged together ----------------------------------------------------------------------------------------

    def _check_driver(self) -> None:
        """Exactly one driver, one that there is."""
        storage = self._root.children.get("storage")
        drivers = [name for name in storage.children if name not in NOT_DRIVERS] if isinstance(storage, Table) else []
        if not isinstance(storage, Table) or not drivers:
            self._find("storage", storage or self._root, "no storage is named: filesystem or s3")
        elif len(drivers) > 1:
            self._find(
                "storage",
                storage,
                f"takes one driver, got {', '.join(drivers)}",
                f"Take the others out of the file, or set REGISTRY_STORAGE={drivers[-1]}, which replaces the section.",
            )
        elif drivers[0] in ("filesystem", "s3"):
            self._give("storage.driver", drivers[0], storage.children[drivers[0]])
        elif f"storage.{drivers[0]}" not in BY_PATH:
            self._find(f"storage.{drivers[0]}", storage, f"unknown driver{nearest(drivers[0], ('filesystem', 's3'))}")

    def _check_auth(self) -> None:
        auth = self._root.children.get("auth")
        providers = tuple(auth.children) if isinstance(auth, Table) else ()
        if isinstance(auth, Table) and len(providers) > 1:
            self._find("auth", auth, f"takes one provider, got {', '.join(providers)}")
        for name in providers:
            if name == "htpasswd":
                self._check_htpasswd()
            elif name == "token":
                self._check_token()
            elif f"auth.{name}" not in BY_PATH:
                self._find(f"auth.{name}", auth or self._root, "unknown provider of authentication")

    def _check_htpasswd(self) -> None:
        """Both keys are required, as distribution has it: without them nobody would be kept out.

        Clients are asked for a password then, as they are there, whoever else may sign in.
        """
        section = find(self._root, "auth.htpasswd") or self._root
        self._give("auth.issue", {"enabled": "false"}, section)
        for name in ("realm", "path"):
            node = find(self._root, f"auth.htpasswd.{name}")
            if not isinstance(node, Scalar) or not node.text:
                self._find(f"auth.htpasswd.{name}", section, "is required")

    def _check_token(self) -> None:
        """Without any of its keys it would keep nobody out; which are missing is told with the settings."""
        if not self._token_settings:
            self._find("auth.token", find(self._root, "auth.token") or self._root, "has none of its keys")

    def _endpoint(self) -> None:
        """Put a scheme before S3 endpoints that have none."""
        secure = find(self._root, "storage.s3.secure")
        scheme = "http" if isinstance(secure, Scalar) and secure.truth is False else "https"
        for name, setting in (
            ("storage.s3.regionendpoint", "storage.endpoint"),
            ("storage.s3.redirectendpoint", "storage.redirect_endpoint"),
        ):
            endpoint = find(self._root, name)
            if isinstance(endpoint, Scalar) and "://" not in endpoint.text and setting in self._out.given:
                self._give(setting, f"{scheme}://{endpoint.text}", endpoint)

    def _proxy(self) -> None:
        """Make one upstream of distribution's section: its only one, for every name."""
        remote = find(self._root, "proxy.remoteurl")
        if not isinstance(remote, Scalar) or not _says(remote):
            return
        given: dict[str, object] = {
            "default_for": ["**"],
            "whole": True,  # what distribution's cache has kept isn't ours
            "revalidate": "0s",
            "keep": _PROXY_TTL,
        }
        text = remote.text if "://" in remote.text else f"https://{remote.text}"
        name = (urlsplit(text).hostname or "").lower()
        given |= {"host": _HUB.get(name, name if "." in name else f"{name}.upstream"), "url": text.rstrip("/")}
        for member in ("username", "password"):
            node = find(self._root, f"proxy.{member}")
            if isinstance(node, Scalar) and _says(node):
                given[member] = node.text
        ttl = find(self._root, "proxy.ttl")
        if isinstance(ttl, Scalar) and _says(ttl):
            duration = self._duration(Key(path="proxy.ttl", fate=Fate.HONOURED, kind=Kind.DURATION), ttl)
            given["keep"] = duration or _PROXY_TTL
        self._give("upstreams.registries", [given], remote)

    def secure(self, key: Key, node: Node) -> None:
        if self._truth(key, node) is False and find(self._root, "storage.s3.regionendpoint") is None:
            self._warn(key.path, node, "has no effect without storage.s3.regionendpoint: Amazon is spoken to over TLS")

    def _defaults(self) -> None:
        """Give what distribution does where nothing is said, and we would do something else."""
        for setting, raw, name in (
            ("storage.path", DEFAULT_ROOT, "storage.filesystem.rootdirectory"),
            ("storage.delete", False, "storage.delete.enabled"),
            ("storage.redirect", find(self._root, "storage.s3") is not None, "storage.redirect.disable"),
        ):
            origin = Origin(OriginKind.DISTRIBUTION, name)
            self._out.given.setdefault(setting, Given(raw, origin, Source(name, self._directory, None, textual=True)))


_READERS: Mapping[str, Callable[[_Reader, Key, Node], None]] = {
    "log.level": _Reader.log_level,
    "loglevel": _Reader.log_level,
    "log.formatter": _Reader.log_formatter,
    "log.accesslog.disabled": _Reader.negated,
    "storage.redirect.disable": _Reader.redirect,
    "storage.s3.keyid": _Reader.key_id,
    "storage.s3.secure": _Reader.secure,
    "storage.s3.storageclass": _Reader.storage_class,
    "storage.maintenance.uploadpurging.enabled": _Reader.purging,
    "storage.maintenance.uploadpurging.dryrun": _Reader.dry_run,
    "health.file": _Reader.down_files,
    "notifications.endpoints": _Reader.endpoints,
    "http.addr": _Reader.address,
    "http.debug.addr": _Reader.address,
    "http.host": _Reader.host,
    **{key.path: _Reader.token for key in KEYS if key.path.startswith("auth.token.")},
    "http.tls.clientauth": _Reader.client_auth,
    "http.tls.minimumtls": _Reader.minimum_tls,
    "http.relativeurls": _Reader.relative_urls,
    "validation.manifests.indexes.platforms": _Reader.sparse,
    "validation.disabled": _Reader.unchecked,
    "catalog.maxentries": _Reader.catalog,
}


def parse_go_duration(text: str) -> timedelta | None:
    """Return a duration as Go writes it (``1m30s``, ``1.5h``, ``0``), None for anything else or a negative one."""
    if text == "0":
        return timedelta()
    position = 0
    while position < len(text) and (match := _DURATION.match(text, position)):
        position = match.end()
    if not text or position != len(text):
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return timedelta(seconds=seconds) if seconds <= _LONGEST_S else None


def _asks(key: Key, node: Node) -> bool:
    """Say whether a key asks for anything: nothing, an empty text, and what is switched off don't."""
    section = key.path.partition(".")[0]
    if section in FREE_NAMES and key.path.count(".") == 1 and section != "middleware":
        return True  # a driver or a provider is asked for by its name alone
    if key.path in _SWITCHED and isinstance(node, Row):
        return any(_says(each) and not _is_off(each, "disabled", off=True) for each in node.items)
    if key.path == "health.storagedriver":
        return _is_off(node, "enabled", off=True)
    return _says(node)


_SWITCHED = frozenset(
    {"log.hooks", "notifications.endpoints", "middleware.registry", "middleware.repository", "middleware.storage"}
)


def _is_off(node: Node, name: str, *, off: bool) -> bool:
    found = find(node, name) if isinstance(node, Table) else None
    return isinstance(found, Scalar) and found.truth is off


def _says(node: Node) -> bool:
    match node:
        case Scalar():
            return not node.is_null and node.text != ""
        case Row():
            return any(_says(each) for each in node.items)
        case Table():
            return any(_says(each) for each in node.children.values())


def _word(node: Scalar) -> str:
    return node.text.lower() if node.truth is None else str(node.truth).lower()


def _is_loopback(address: str) -> bool:
    try:
        return ListenAddress.parse(address).is_loopback
    except AddressInvalidError:
        return True  # it is told as what it is when it is converted


def _typed(node: Node) -> object:
    match node:
        case Scalar():
            return plain_value(node)
        case Row():
            return [_typed(each) for each in node.items]
        case Table():
            return dict(_typed_children(node))


def _typed_children(table: Table) -> Iterator[tuple[str, object]]:
    for name, node in table.children.items():
        if not (isinstance(node, Scalar) and node.is_null):
            yield name, _typed(node)
