"""The JSON of Wave's API, as its clients send and read it. What a request has beside this is passed over."""

from typing import Any

import msgspec

JsonObject = dict[str, Any]


class LayerBody(msgspec.Struct, rename="camel"):
    """A layer: where it is, and what is there."""

    location: str | None = None
    gzip_digest: str | None = None
    gzip_size: int | None = None
    tar_digest: str | None = None


class ConfigBody(msgspec.Struct, rename="camel"):
    """``containerConfig``: what to add."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    layers: list[LayerBody] | None = None


class ContainerBody(msgspec.Struct, rename="camel"):
    """The body of ``POST /container-token`` and ``POST /v1alpha2/container``.

    What asks for a build, a copy or a scan is read only to say that it isn't done here.
    """

    container_image: str | None = None
    container_config: ConfigBody | None = None
    container_platform: str | None = None
    tower_access_token: str | None = None
    tower_endpoint: str | None = None
    tower_workspace_id: int | None = None
    workflow_id: str | None = None
    fingerprint: str | None = None
    timestamp: str | None = None
    container_file: str | None = None
    conda_file: str | None = None
    packages: JsonObject | None = None
    build_context: JsonObject | None = None
    container_includes: list[str] | None = None
    name_strategy: str | None = None
    freeze: bool | None = None
    mirror: bool | None = None
    dry_run: bool | None = None
    format: str | None = None
    scan_mode: str | None = None


class ContainerAnswer(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The answer to both. ``targetDigest`` is ours: what a pull of ``targetImage`` is answered with now."""

    container_token: str
    target_image: str
    request_id: str
    expiration: str
    container_image: str
    target_digest: str
    freeze: bool | None = None
    mirror: bool | None = None
    succeeded: bool | None = None


class Described(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What is kept of a request, for those who ask what their token is: no layer's bytes, nobody's credentials."""

    container_image: str
    container_config: ConfigBody | None = None
    platform: str | None = None
    workspace_id: int | None = None
    tower_endpoint: str | None = None
    fingerprint: str | None = None
    timestamp: str | None = None
    ip_address: str | None = None
    source_image: str
    source_digest: str
    wave_digest: str


class CredentialsBody(msgspec.Struct, rename="camel"):
    """The body of ``POST /validate-creds``; Wave's later tests wrap it in ``request``."""

    user_name: str | None = None
    password: str | None = None
    registry: str | None = None
    request: "CredentialsBody | None" = None


class InspectBody(msgspec.Struct, rename="camel"):
    """The body of ``POST /v1alpha1/inspect``."""

    container_image: str | None = None
    tower_access_token: str | None = None
