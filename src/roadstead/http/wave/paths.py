"""Paths as they may be written down: a container token in one is a secret."""

import re

from roadstead.oci.reference import CONTAINER_TOKENS

_MASK = "***"
_TOKEN = re.compile(rf"(/{CONTAINER_TOKENS}/|/container-token/|/v1alpha2/container/)(/*)[^/]+")


def shown(path: str) -> str:
    """Return a path without the token in it. Pure; most paths have none, and cost two looks at their text."""
    if f"/{CONTAINER_TOKENS}/" in path or "/container" in path:
        return _TOKEN.sub(rf"\1\2{_MASK}", path)
    return path
