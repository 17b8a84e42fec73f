"""``python -m roadstead.cli.reference DIRECTORY`` writes the pages of docs/reference that are made from the code."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

from roadstead.secret import Secret
from roadstead.settings.address import ListenAddress
from roadstead.settings.convert import field_types
from roadstead.settings.distribution_keys import KEYS
from roadstead.settings.load import variable
from roadstead.settings.model import (
    ABOUT,
    EndpointSettings,
    HtpasswdSettings,
    IssuerSettings,
    IssueSettings,
    KeySettings,
    LayerSettings,
    OidcSettings,
    PolicySettings,
    QuotaSettings,
    RetentionSettings,
    RuleSettings,
    Settings,
    SignaturePolicySettings,
    TokenSettings,
    UpstreamSettings,
)
from roadstead.settings.quantity import ByteSize, format_duration, format_size
from roadstead.settings.tables import Headers, LogFields, SentHeaders
from roadstead.telemetry.metrics import BUCKETS, FAMILIES, PROCESS_FAMILIES

_TABLE_START = "<!-- The table is made from the code by `python -m roadstead.cli.reference docs/reference`. -->"
_TABLE_END = "<!-- The end of the table. -->"
_HOW_TO = Path("how-to") / "use-a-distribution-config.md"

_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    bool: "true or false",
    timedelta: "duration",
    ByteSize: "size",
    Path: "path",
    Secret: "secret",
    ListenAddress: "host:port",
    LayerSettings: "path, location or table",
    RuleSettings: "table",
    RetentionSettings: "table",
    PolicySettings: "table",
    HtpasswdSettings: "path or table",
    QuotaSettings: "table",
    TokenSettings: "table",
    IssueSettings: "table",
    OidcSettings: "table",
    IssuerSettings: "table",
    EndpointSettings: "table",
    UpstreamSettings: "table",
    SignaturePolicySettings: "table",
    KeySettings: "path, PEM or table",
    Headers: "table of lists",
    LogFields: "table",
    SentHeaders: "table of lists",
}

_SETTINGS_HEAD = """\
# Settings

*Made from the code by `python -m roadstead.cli.reference docs/reference`.*

A setting's value is taken from the command line, else from the environment, else from the TOML file that `serve` was
given, else it is the default. `roadstead config show` prints each with where it came from, `roadstead config check`
says what is wrong.

- A **duration** is written `30s`, `500ms`, `1h30m` or `168h`; a **size** `4MiB` (1024²), `10MB` (1000²) or as a number
  of bytes.
- A relative **path** in the file begins at the file; elsewhere it begins at the working directory.
- In the environment, lists and tables are JSON: `ROADSTEAD_AUGMENT_RULES='[{"match": "library/*:latest", "env": ["A=1"]}]'`.
- A variable's name with `_FILE` behind it (`ROADSTEAD_DATABASE_URL_FILE`) names a file that holds the value.
- Inside any value `${env:NAME}` stands for an environment variable, `${file:PATH}` for a file's content,
  `${secret:NAME#KEY}` for a key of a secret in AWS Secrets Manager and `${ssm:NAME}` for a parameter of AWS Systems
  Manager ([Keep secrets elsewhere](../how-to/secrets.md)); `$${` is a plain `${`. One that leads to nothing is an error.
- An empty variable is as good as none, except where that would be dangerous: in `[auth]` and `[tls]`, for a secret, for
  `database.url`, `storage.path` and `storage.encrypt` it is an error.
- An unknown key or `ROADSTEAD_` variable is an error. The variables that Kubernetes makes for a Service called
  `roadstead` are ignored.
"""

_METRICS_HEAD = """\
# Metrics

*Made from the code by `python -m roadstead.cli.reference docs/reference`.*

`/metrics` answers with the numbers of all processes of the server added up, in Prometheus' text format.

The label `route` is the distribution specification's name of an endpoint:

| route | request |
|---|---|
| `end-1` | `/v2/` |
| `end-2`, `end-10` | a blob is read; is removed from its repository |
| `end-3`, `end-7`, `end-9` | a manifest is read; is pushed; it or a tag is deleted |
| `end-4` | an upload is started, or a blob pushed whole or mounted |
| `end-5`, `end-6`, `end-13`, `end-14` | an upload gets a chunk; is finished; is asked about; is cancelled |
| `end-8`, `catalog`, `end-12` | tags, repositories, referrers are listed |
| `home`, `alive`, `ready`, `metrics` | `/`; `/healthz` and `/health`; `/readyz`; `/metrics` |
| `token`, `jwks` | a bearer token is given; the keys that sign them are |
| `sign-in`, `session`, `account` | people sign in and out; are told who they are; their page |
| `none` | nothing is served there |
"""


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    parts = [_SETTINGS_HEAD]
    for section, table in field_types(Settings).items():
        parts.extend(_section(f"[{section}]", table, section))
    parts.extend(_section("[[augment.rules]]", RuleSettings, None))
    parts.extend(_section("layers", LayerSettings, None))
    parts.extend(_section("[[signatures.policies]]", SignaturePolicySettings, None))
    parts.extend(_section("keys", KeySettings, None))
    parts.extend(_section("[[registry.quotas]]", QuotaSettings, None))
    parts.extend(_section("[[auth.policies]]", PolicySettings, None))
    parts.extend(_section("[auth.token]", TokenSettings, None))
    parts.extend(_section("[auth.issue]", IssueSettings, None))
    parts.extend(_section("[auth.oidc]", OidcSettings, None))
    parts.extend(_section("[[auth.oidc.issuers]]", IssuerSettings, None))
    parts.extend(_section("[[gc.retention]]", RetentionSettings, None))
    parts.extend(_section("[[upstreams]]", UpstreamSettings, None))
    parts.extend(_section("[[events.endpoints]]", EndpointSettings, None))
    return "\n".join(parts)


def metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    rows = [
        f"| `{name}` | {family.kind.__name__.removesuffix('MetricFamily').lower()} | "
        f"{', '.join(f'`{label}`' for label in family.labels)} | {family.about} |"
        for name, family in FAMILIES.items()
    ]
    rows += [f"| `{name}` | | `process` | {about} |" for name, about in PROCESS_FAMILIES.items()]
    buckets = ", ".join(f"{bound:g}" for bound in BUCKETS)
    return "\n".join(
        [
            _METRICS_HEAD,
            "| metric | kind | labels | what |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Buckets in seconds: {buckets}.",
            "",
        ]
    )


def distribution_table() -> str:
    """Return the table of distribution's keys, as it stands in docs/how-to/use-a-distribution-config.md."""
    rows = []
    for key in KEYS:
        members = f"; so are {', '.join(f'`{name}`' for name in key.members)}" if key.members else ""
        settings = ", ".join(f"`{setting}`" for setting in key.settings)
        said = "; ".join(part for part in (settings, key.about) if part)
        quiet = f" (fine: {', '.join(f'`{value}`' for value in sorted(key.quiet))})" if key.quiet else ""
        rows.append(f"| `{key.path}`{members} | {key.fate} | {said}{quiet} |")
    return "\n".join(["| key | | what becomes of it |", "|---|---|---|", *rows])


def with_table(page: str) -> str:
    """Return the how-to page with the table between its marks."""
    before, start, rest = page.partition(_TABLE_START)
    _, end, after = rest.partition(_TABLE_END)
    return f"{before}{start}\n{distribution_table()}\n{end}{after}"


def _section(title: str, table: Any, section: str | None) -> Iterator[str]:
    yield f"## `{title}`\n"
    yield f"{_sentence(table.__doc__)}\n"
    kinds = field_types(table)
    for field in dataclasses.fields(table):
        facts = [_kind(kinds[field.name]), f"default {_default(field.default, kinds[field.name])}"]
        if section:
            facts.append(f"`{variable(f'{section}.{field.name}')}`")
        yield f"**`{field.name}`** ({', '.join(facts)})  \n{field.metadata[ABOUT]}\n"


def _sentence(doc: str) -> str:
    """Return what a table's docstring says behind its name."""
    text = doc.partition(": ")[2]
    return text[0].upper() + text[1:]


def _kind(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0])}"
    if get_args(kind):
        return _kind(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " or ".join(f"`{member.value}`" for member in kind)
    return _WORDS[kind]


def _default(value: object, kind: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, SentHeaders):
        return "`{}`"
    if isinstance(value, Secret):
        return "none"
    if isinstance(value, Headers | LogFields):
        return "`{}`" if not value.pairs else f"`{json.dumps(value.as_table())}`"
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    if kind is ByteSize and isinstance(value, int):
        return f"`{format_size(value)}`"
    if isinstance(value, Path | ListenAddress):
        return f"`{value}`" if str(value) != "." else "none"
    return f"`{json.dumps(value)}`"


def main() -> None:
    """Write both pages into the directory that the command line names, and the table into the page beside it."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.md").write_text(settings_page(), encoding="utf-8")
    (directory / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    how_to = directory.parent / _HOW_TO
    if how_to.exists():
        how_to.write_text(with_table(how_to.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
