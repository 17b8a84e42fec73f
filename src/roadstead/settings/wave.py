"""Wave's configuration file (``application.yml``, ``config.yml``) and its ``layer.json``, read into settings of ours.

What asks for something that isn't done here is warned about by its name, and so is what nobody knows; what would be
dangerous to pass over is a finding, and nothing is served. Values may be ``${NAME}`` or ``${NAME:default}``, as in its
own files. Relative paths begin at the working directory, as with Wave; those in ``layer.json`` beside it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roadstead.settings.convert import Source
from roadstead.settings.distribution import Reading
from roadstead.settings.distribution_keys import OUR_SECTION
from roadstead.settings.findings import NO_EFFECT, Finding, SettingsFileError
from roadstead.settings.origin import Given, Origin, OriginKind
from roadstead.settings.yaml_tree import Node, Row, Scalar, Table, YamlInvalidError, as_text, parse_yaml, plain_value

PORT = "9090"
LAYER_PATH = "WAVE_LAYER_PATH"
SERVER_PORT = "WAVE_SERVER_PORT"
DEFAULT_LAYER = Path("pack/layers/layer.json")
"""Where ``make pack`` puts it; it counts if it is there."""

_BEGINS = re.compile(r"^(?:wave|micronaut|tower)\s*:", re.MULTILINE)
_VERSION = re.compile(r"^version\s*:", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_.-]*)(?::([^}]*))?\}")
_UNCLOSED = re.compile(r"\$\{[^}]*\Z")
_ECR = re.compile(r"(?:\d+\.dkr\.ecr\..+\.amazonaws\.com|public\.ecr\.aws)")
_ARCHITECTURES = {"x86_64": "linux/amd64", "x86-64": "linux/amd64", "amd64": "linux/amd64", "arm64": "linux/arm64"}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_HUB = "docker.io"
_PIECE = 1 << 20

_BUILDS = "nothing is built, copied or scanned here"
_KEPT = "what is to be kept is in the database of [database]"
_PLATFORM = "no other platform is asked who somebody is: policies and API keys say who may do what"
_NO_EFFECT: Mapping[str, str] = {
    "wave.build": _BUILDS,
    "wave.mirror": _BUILDS,
    "wave.scan": _BUILDS,
    "wave.job-manager": _BUILDS,
    "wave.message-stream": _BUILDS,
    "wave.cleanup": _BUILDS,
    "wave.blobCache": "blobs are kept in [storage]",
    "wave.storage": "what was derived is kept as long as something needs it",
    "wave.cache": "what was derived is kept as long as something needs it",
    "wave.proxy-cache": "images of upstreams are kept: see revalidate and keep of [[upstreams]]",
    "wave.registry-lookup": "how a registry wants to be signed in to is found out anew",
    "wave.tokens": "tokens are good for augment.token_lifetime, whatever uses them",
    "wave.httpclient": "how often other registries are asked again is not set here",
    "wave.pairing": _PLATFORM,
    "wave.pairing-key": _PLATFORM,
    "wave.jwt": _PLATFORM,
    "wave.accounts": "users are added with roadstead user",
    "wave.metrics": "numbers are at /metrics",
    "wave.landing": "/ is a page of ours",
    "wave.trace": "requests that take long are in the log like all others",
    "wave.thread-monitor": "there are no threads to watch",
    "wave.aws": "there are no accounts of other clouds here",
    "wave.security": "headers and the check of addresses can't be turned off",
    "wave.db": _KEPT,
    "wave.capabilities.web-views": "there are no such pages",
    "wave.capabilities.credentials-federation": _PLATFORM,
    "tower": _PLATFORM,
    "redis": _KEPT,
    "surrealdb": _KEPT,
    "datasources": _KEPT,
    "jpa": _KEPT,
    "flyway": _KEPT,
    "mail": "no mail is sent",
    "license": "there is no licence to ask for",
    "rate-limit": "limits are set in [limits]",
    "logger": "the log is set in [log]",
    "endpoints": "health and numbers are at /healthz and /metrics",
    "micronaut": "only the host and port of its server are taken",
    "aws": "there are no accounts of other clouds here",
}
_REFUSED: Mapping[str, tuple[str, str]] = {
    "wave.deny-hosts": ("hosts are not denied by name here", "Name the registries that may be asked in [[upstreams]]."),
    "wave.deny-paths": ("paths are not denied here", "Do it in the proxy in front."),
}


def is_wave(path: Path, text: str) -> bool:
    """Say whether a file is Wave's: YAML with one of its sections, and without distribution's version."""
    if path.suffix.lower() not in (".yml", ".yaml"):
        return False
    return _BEGINS.search(text) is not None and _VERSION.search(text) is None


def read_wave(path: Path, text: str, environment: Mapping[str, str], directory: Path) -> Reading:
    """Return what the file and its variables say; raises SettingsFileError where that isn't a table in YAML."""
    return _Reader(path, environment, directory).read(text)


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str], directory: Path) -> None:
        self._path = path
        self._environment = environment
        self._directory = directory
        self._out = Reading()
        self._upstreams: dict[str, dict[str, str]] = {}
        self._default = _HUB
        self._platform: str | None = None
        self._layer: tuple[Path, Origin] | None = None
        self._host: str | None = None
        self._port = (PORT, self._locate("micronaut.server.port"))

    def read(self, text: str) -> Reading:
        root = self._parsed(text)
        ours = root.children.pop(OUR_SECTION, None)
        if isinstance(ours, Table):
            self._out.ours = _typed(ours)
        for path, scalar in _leaves(root, ""):
            self._take(path, scalar)
        self._listen()
        self._registries()
        self._global_layer()
        return self._out

    def _parsed(self, text: str) -> Table:
        def twice(path: str) -> None:
            self._out.warnings.append(Finding(path, "is written twice; the last one counts", str(self._path)))

        try:
            root = parse_yaml(text, self._locate, twice)
        except YamlInvalidError as error:
            raise SettingsFileError(self._path, str(error)) from error
        if not isinstance(root, Table):
            raise SettingsFileError(self._path, "expected a table, as in YAML: `wave:` and so on")
        return root

    def _locate(self, path: str) -> Origin:
        return Origin(OriginKind.FILE, f"{self._path}:{path}" if path else str(self._path))

    # Keys -----------------------------------------------------------------------------------------------------------

    def _take(self, path: str, node: Scalar | Row) -> None:
        for refused, (why, advice) in _REFUSED.items():
            if _is_below(path, refused):
                self._out.findings.append(Finding(path, f"cannot be honoured: {why}", str(self._path), advice))
                return
        if isinstance(node, Scalar):
            resolved = self._resolved(path, node)
            if resolved is None:
                return
            if resolved.is_null or self._honoured(path, resolved):
                return
        nearest = max((known for known in _NO_EFFECT if _is_below(path, known)), key=len, default=None)
        if nearest is None:
            self._warn(path, "unknown key, left out")
        elif not (isinstance(node, Scalar) and node.truth is False):  # turned off is what it is
            self._warn(path, f"has no effect here: {_NO_EFFECT[nearest]}", NO_EFFECT)

    def _honoured(self, path: str, node: Scalar) -> bool:
        """Take a key that is for us; say whether it is one."""
        if path.startswith("wave.registries."):
            self._registry(path.removeprefix("wave.registries."), node)
            return True
        match path:
            case "wave.server.url":
                self._give("server.public_url", node.text.rstrip("/"), node.origin)
            case "micronaut.server.host":
                self._host = node.text
                self._port = (self._port[0], node.origin)
            case "micronaut.server.port":
                self._port = (node.text, node.origin)
            case "wave.allowAnonymous" | "wave.capabilities.anonymous-access":
                self._anonymous(path, node)
            case "wave.capabilities.ephemeral-token":
                self._ephemeral(path, node)
            case "wave.tokens.cache.duration":
                self._give("augment.token_lifetime", node.text, node.origin)
            case "wave.debug":
                if node.truth:
                    self._give("log.level", "debug", node.origin)
            case "wave.arch":
                self._architecture(path, node)
            case "wave.layerPath":
                self._layer = (self._directory / node.text, node.origin)
            case _:
                return False
        return True

    def _anonymous(self, path: str, node: Scalar) -> None:
        truth = node.truth
        given = self._out.given.get("augment.anonymous_tokens")
        if truth is None:
            self._expected(path, node, "true or false")
        elif given is None or given.raw != "false":  # both have to allow it
            self._give("augment.anonymous_tokens", "true" if truth else "false", node.origin)

    def _ephemeral(self, path: str, node: Scalar) -> None:
        if node.truth is False:
            self._out.findings.append(
                Finding(
                    path,
                    "cannot be honoured: container tokens are all that is given here",
                    str(self._path),
                    "Leave it out, and deny the action augment in [[auth.policies]].",
                )
            )

    def _architecture(self, path: str, node: Scalar) -> None:
        self._platform = _ARCHITECTURES.get(node.text)
        if self._platform is None:
            self._expected(path, node, "x86_64, amd64 or arm64")

    def _registry(self, rest: str, node: Scalar) -> None:
        """Take ``default``, or the ``username`` or ``password`` of a host, whose dots may have become levels."""
        if rest == "default":
            self._default = node.text
            return
        host, dot, name = rest.rpartition(".")
        if not dot or name not in ("username", "password"):
            self._warn(f"wave.registries.{rest}", "unknown key, left out")
        else:
            self._upstreams.setdefault(host, {})[name] = node.text

    # What is made of several keys ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        port, origin = self._port
        if SERVER_PORT in self._environment:
            port, origin = self._environment[SERVER_PORT], Origin(OriginKind.ENVIRONMENT, SERVER_PORT)
        host = self._host or "127.0.0.1"
        bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._give("server.listen", f"{bracketed}:{port}", origin)
        if self._host is None:
            self._warn("micronaut.server.host", "is not said, so this machine alone can reach it: 127.0.0.1 is taken")
        elif self._host not in _LOOPBACK:
            self._give("server.open_to_network", "true", origin)
            self._warn(
                "micronaut.server.host",
                f"{self._host} can be reached from other machines, where nobody has to sign in unless [auth] says so",
            )

    def _registries(self) -> None:
        hosts = dict.fromkeys((*self._upstreams, self._default))
        tables: list[dict[str, object]] = []
        for host in hosts:
            key = f"wave.registries.{host}"
            given = {name: text for name, text in self._upstreams.get(host, {}).items() if text.strip()}
            if _ECR.fullmatch(host) and given:
                self._out.findings.append(
                    Finding(
                        key,
                        "cannot be honoured: keys of Amazon's accounts are not exchanged for its passwords",
                        str(self._path),
                        "Name it in the section roadstead: upstreams, with the user AWS and a password of its own.",
                    )
                )
                continue
            if ":" in host:
                self._warn(key, "has no effect here: images of a host with a port have no name", NO_EFFECT)
                continue
            if len(given) == 1:
                self._warn(key, "has one of username and password; it is asked as nobody")
                given = {}
            table: dict[str, object] = {"host": host, **given}
            if host == self._default:
                table["default_for"] = ["**"]
            tables.append(table)
        self._give("upstreams.registries", tables, self._locate("wave.registries"))

    def _global_layer(self) -> None:
        named = self._environment.get(LAYER_PATH)
        layer = self._layer
        if named:
            layer = (self._directory / named, Origin(OriginKind.ENVIRONMENT, LAYER_PATH))
        elif layer is None and (self._directory / DEFAULT_LAYER).is_file():
            layer = (self._directory / DEFAULT_LAYER, self._locate("wave.layerPath"))
        if layer is None:
            return
        path, origin = layer
        try:
            rule = read_layer(path, self._platform)
        except ValueError as error:
            advice = "make pack writes it; roadstead layer pack makes a layer from a directory."
            self._out.findings.append(Finding("wave.layerPath", f"{path}: {error}", str(self._path), advice))
        else:
            self._give("augment.rules", [rule], origin)

    # Values -----------------------------------------------------------------------------------------------------------

    def _resolved(self, path: str, node: Scalar) -> Scalar | None:
        """Return the value with its variables; None where one can't be followed, which is a finding.

        What is empty is no value either, unless it was written so: ``${NAME:}`` may stand for nothing.
        """
        if _UNCLOSED.search(node.text):
            self._lead_nowhere(path, "${… is a variable without the } at its end")
            return None
        for found in _VARIABLE.finditer(node.text):
            written, name = found[0], found[1]
            default: str | None = found[2]
            value = self._environment.get(name, default)
            if value is None:
                self._lead_nowhere(path, f"{written} is not set", "secret.missing")
                return None
            if not value.strip() and default != "":
                told, kind = ("has nothing but blanks", "secret.whitespace") if value else ("is empty", "secret.empty")
                advice = f"Give it a value; ${{{name}:}} says that it may be empty."
                self._lead_nowhere(path, f"what {written} refers to {told}", kind, advice)
                return None
        text = _VARIABLE.sub(lambda found: self._environment.get(found[1], found[2] or ""), node.text)
        return node if text == node.text else Scalar(text, plain=True, origin=node.origin)

    def _lead_nowhere(self, path: str, message: str, kind: str | None = None, advice: str | None = None) -> None:
        self._out.findings.append(Finding(path, message, str(self._path), advice, kind))

    def _give(self, setting: str, raw: object, origin: Origin) -> None:
        source = Source(origin.name, self._directory, None, textual=True)
        self._out.given[setting] = Given(raw, origin, source)

    def _expected(self, path: str, node: Scalar, expected: str) -> None:
        self._out.findings.append(Finding(path, f"expected {expected}, got {node.text!r}", str(self._path)))

    def _warn(self, path: str, message: str, kind: str | None = None) -> None:
        self._out.warnings.append(Finding(path, message, str(self._path), id=kind))


def read_layer(path: Path, platform: str | None = None) -> dict[str, object]:
    """Return the rule that a ``layer.json`` means: its layer is on every image. Raises ValueError, saying why not.

    Its digests and its size are compared with the file, which may be named relative to the directory of the JSON.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if document.get("layers"):  # as a request for a token has them: passed over, images would come without
        raise ValueError("layers are of a request; here there is one layer, and its object is append")
    rule: dict[str, object] = {"match": "**"}
    if document.get("append") is not None:
        layer: dict[str, object] = {"path": str(_layer_file(document["append"], path.parent))}
        if platform is not None:
            layer["platform"] = platform
        rule["layers"] = [layer]
    for theirs, name in (("entrypoint", "entrypoint"), ("cmd", "cmd"), ("env", "env"), ("workingDir", "workdir")):
        value = document.get(theirs)
        if value:
            rule[name] = value
    if len(rule) == 1:
        raise ValueError("it adds nothing: it has neither append nor env, entrypoint, cmd or workingDir")
    return rule


def _layer_file(layer: Any, directory: Path) -> Path:
    """Return the layer's file, whose bytes are what the JSON says of them."""
    if not isinstance(layer, dict):
        raise ValueError("append is not an object")
    location, size = layer.get("location"), layer.get("gzipSize")
    for member in ("gzipDigest", "tarDigest"):
        if not isinstance(layer.get(member), str) or not layer[member].startswith("sha256:"):
            raise ValueError(f"append.{member} is missing, or doesn't begin with sha256:")
    if not isinstance(location, str) or not location:
        raise ValueError("append.location is missing")
    if "://" in location or location.startswith("data:"):
        raise ValueError(f"append.location {location[:80]!r} is not a file beside it")
    file = directory / location
    try:
        with file.open("rb") as opened:
            hasher = hashlib.sha256()
            while piece := opened.read(_PIECE):
                hasher.update(piece)
        found = file.stat().st_size
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    if f"sha256:{hasher.hexdigest()}" != layer["gzipDigest"] or size not in (None, found):
        raise ValueError(f"{file} is not what append.gzipDigest and append.gzipSize say: pack it again")
    return file


def _leaves(node: Node, path: str) -> Iterator[tuple[str, Scalar | Row]]:
    if isinstance(node, Table):
        for name, child in node.children.items():
            yield from _leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path, node


def _is_below(path: str, section: str) -> bool:
    return path == section or path.startswith((f"{section}.", f"{section}["))


def _typed(table: Table) -> Mapping[str, object]:
    return {name: _value(node) for name, node in table.children.items()}


def _value(node: Node) -> object:
    match node:
        case Table():
            return _typed(node)
        case Row():
            return [_value(each) for each in node.items]
        case Scalar():
            return plain_value(node) if node.plain else as_text(node)
