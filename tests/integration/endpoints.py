"""Every endpoint with a request for it, and what that asks for: what access control is compared over."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from roadstead.http.context import Services
from roadstead.http.names import parse_name, parse_tag_or_digest
from roadstead.oci.digest import Digest

CONFIG = b"{}"
DIGEST = Digest.of(CONFIG)
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(DIGEST), "size": 2},
        "layers": [],
    }
).encode()

ENDPOINTS: tuple[tuple[str, str, str, str], ...] = (
    ("end-2", "GET", "/v2/{name}/blobs/{digest}", "pull"),
    ("end-2", "HEAD", "/v2/{name}/blobs/{digest}", "pull"),
    ("end-3", "GET", "/v2/{name}/manifests/1", "pull"),
    ("end-3", "HEAD", "/v2/{name}/manifests/{digest}", "pull"),
    ("end-3", "GET", "/v2/as-pushed/{name}/manifests/1", "pull"),
    ("end-3", "GET", "/v2/as-of/2026-01-01/{name}/manifests/1", "pull"),
    ("end-8", "GET", "/v2/{name}/tags/list", "pull"),
    ("end-8", "HEAD", "/v2/{name}/tags/list/", "pull"),
    ("end-12", "GET", "/v2/{name}/referrers/{digest}", "pull"),
    ("end-4", "POST", "/v2/{name}/blobs/uploads/", "push"),
    ("end-4", "POST", "/v2/{name}/blobs/uploads", "push"),
    ("end-13", "GET", "/v2/{name}/blobs/uploads/{upload}", "push"),
    ("end-5", "PATCH", "/v2/{name}/blobs/uploads/{upload}", "push"),
    ("end-6", "PUT", "/v2/{name}/blobs/uploads/{upload}", "push"),
    ("end-14", "DELETE", "/v2/{name}/blobs/uploads/{upload}", "push"),
    ("end-7", "PUT", "/v2/{name}/manifests/1", "push"),
    ("end-9", "DELETE", "/v2/{name}/manifests/nothing", "delete"),
    ("end-10", "DELETE", "/v2/{name}/blobs/sha256:{zeros}", "delete"),
    ("catalog", "GET", "/v2/_catalog", "catalog"),
    ("metrics", "GET", "/metrics", "admin"),
)
"""A request for each route, none of which changes what the others find, and what it asks for."""

API: tuple[tuple[str, str, Any, str], ...] = (
    ("GET", "/api/v1/repositories", None, "catalog"),
    ("GET", "/api/v1/repository?repository={name}", None, "pull"),
    ("GET", "/api/v1/tags?repository={name}", None, "pull"),
    ("GET", "/api/v1/tags/history?repository={name}&tag=1", None, "pull"),
    ("GET", "/api/v1/image?repository={name}&reference=1", None, "pull"),
    ("POST", "/api/v1/tags/restore", {"repository": "{name}", "tag": "nothing"}, "push"),
    ("GET", "/api/v1/users", None, "admin"),
    ("POST", "/api/v1/users", {"name": "drawn", "robot": True, "replace": True}, "admin"),
    ("PATCH", "/api/v1/users/nobody", {"disabled": True}, "admin"),
    ("DELETE", "/api/v1/users/nobody", None, "admin"),
    ("GET", "/api/v1/keys", None, "admin"),
    ("POST", "/api/v1/keys", {"owner": "nobody"}, "admin"),
    ("DELETE", "/api/v1/keys/aaaaaaaaaaaaaaaa", None, "admin"),
    ("GET", "/api/v1/events", None, "admin"),
    ("POST", "/api/v1/events/replay", {"state": "dead"}, "admin"),
    ("GET", "/api/v1/audit", None, "admin"),
    ("GET", "/api/v1/auth/explain?action=pull&repository=team/app", None, "admin"),
)
"""The same for each operation of the API: method, path, document and what it needs."""


def path_of(template: str, name: str) -> str:
    """Return the path, with or without a repository in it."""
    return template.format(name=name, digest=DIGEST, zeros="0" * 64, upload="unknown")


async def push_images(services: Services, names: Iterable[str]) -> None:
    """Push an image as `1` to each repository, past everybody who could refuse it."""
    for text in names:
        repository = parse_name(text).repository
        await services.uploads.push(repository, _Body(CONFIG), DIGEST)
        await services.manifests.put(repository, parse_tag_or_digest("1"), MANIFEST, media_type=None)


class _Body:
    """A body that is there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.announced = len(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data
