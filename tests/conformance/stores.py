"""On which databases and stores a conformance test runs: on all of them, unless it says that none is asked."""

import pytest

STORES = ("sqlite+filesystem", "postgresql+s3")

WITHOUT_STORES = pytest.mark.parametrize("server", STORES[:1], indirect=True, scope="session")
"""For tests of what is decided before any store is asked: grammars, methods, the shape of manifests. One is enough."""
