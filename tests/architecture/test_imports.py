"""The doors between the rooms open one way, and the source is read to see that they do.

``docs/explanation/rooms.md`` explains the order. A room may import what stands left of it; rooms side by side meet in
``app``. A new room gets its place in `FLOORS`.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "roadstead"

# From left to right; what shares a line stands side by side.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "clock", "secret", "lease", "acts"}),
    frozenset({"oci"}),
    frozenset({"storage", "upstream", "tls"}),
    frozenset(
        {
            "registry",
            "auth",
            "augment",
            "build",
            "watch",
            "events",
            "deploy",
            "doctor",
            "limits",
            "layers",
            "signatures",
        }
    ),
    frozenset({"proxy"}),  # the registry, filled from others
    frozenset({"http"}),
    frozenset({"web"}),
    frozenset({"supervisor", "background"}),  # processes and loops, whatever runs in them
    frozenset({"worker"}),
    frozenset({"app"}),
    frozenset({"cli", "testing"}),
    frozenset({"__main__"}),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms at the side: what each may import.
SERVICES = frozenset().union(*FLOORS[: FLOOR_OF["http"]])
SIDE_ROOMS = {
    "db": SERVICES | {"telemetry"},
    "telemetry": SERVICES | {"db", "http"},  # it wraps ports, and ASGI applications
    "settings": frozenset({"errors", "clock", "secret", "oci"}),
}
# And who may import them: those who put the rooms together. The supervisor opens the sockets, so it knows addresses.
WIRING = frozenset({"app", "cli", "testing"})
KNOWN_TO = {"db": WIRING, "telemetry": WIRING, "settings": WIRING | {"supervisor"}}

# What rooms side by side share on purpose: who asks for what, and the envelope of what happened.
SHARED = ("auth.principal", "auth.scope", "events.event")

PLUG_FOLDERS = frozenset({"drivers", "providers", "sources", "builders", "deployers", "sinks", "generators"})
EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one of our modules: *target* is dotted and starts with the room."""

    module: str  # the importing module, dotted, without ``roadstead.``
    line: int
    target: str

    @property
    def room(self) -> str:
        return self.module.partition(".")[0]

    @property
    def target_room(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path, source: Path = SOURCE) -> str:
    """Return the dotted name of the module at *path*, without ``roadstead.``."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules() -> list[Path]:
    """Return every module of the package, sorted."""
    return sorted(SOURCE.rglob("*.py"))


def imports(module: str, code: str) -> Iterator[Import]:
    """Yield what *code*, the module named *module*, imports of our own."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            # ``from roadstead.oci import digest`` names a module, ``from roadstead.errors import E`` doesn't;
            # with the name kept, the first two parts say the same for both.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, target = name.partition(".")
            if package == "roadstead" and target:
                yield Import(module, node.lineno, target)


def wrong_doors(found: Iterable[Import]) -> list[str]:
    """Return what is wrong with these imports, a sentence for each."""
    return [f"{item}: {reason}" for item in found if (reason := objection(item)) is not None]


def objection(item: Import) -> str | None:
    """Return why an import isn't allowed, or None."""
    room, target = item.room, item.target_room
    if room == target or room == "":
        return None
    if unplaced := {room, target} - FLOOR_OF.keys() - SIDE_ROOMS.keys():
        return f"{', '.join(sorted(unplaced))} has no place among the rooms; give it one in FLOORS"
    if opens_a_plug(item) and room not in WIRING:
        return "only app, the command line and the test kit know plugs"
    if room in SIDE_ROOMS:
        return None if target in SIDE_ROOMS[room] else f"{room} may not know {target}"
    if target in SIDE_ROOMS:
        return (
            None
            if room in KNOWN_TO[target]
            else f"{target} is wired in by app; take a port or a plain argument instead"
        )
    return wrong_direction(item)


def wrong_direction(item: Import) -> str | None:
    """Return why an import between two rooms of the order isn't allowed, or None."""
    here, there = FLOOR_OF[item.room], FLOOR_OF[item.target_room]
    if there < here or here == FLOOR_OF["errors"] == there:
        return None
    if there > here:
        return f"{item.target_room} stands to the right of {item.room}"
    if ".".join(item.target.split(".")[:2]) in SHARED:
        return None
    return f"{item.room} and {item.target_room} stand side by side and meet in app"


def opens_a_plug(item: Import) -> bool:
    """Say whether the import reaches into a folder of plugs, as in ``storage.drivers.s3``."""
    return bool(PLUG_FOLDERS & set(item.target.split(".")[1:2]))


def relative_imports(code: str) -> list[int]:
    """Return the lines that import relatively."""
    return [node.lineno for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom) and node.level > 0]


def late_imports(code: str) -> list[int]:
    """Return the lines that import one of our modules, or the standard library's, further down without saying why.

    An optional extra may be imported where it is asked for, so that its absence can be named, and so may a part that
    costs too much for those who don't use it. A comment one or two lines above says which.
    """
    tree = ast.parse(code)
    lines = code.splitlines()
    late = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in tree.body]
    unexplained = [node.lineno for node in late if any(always_there(name) for name in packages(node))]
    return sorted(line for line in unexplained if not any("# " in text for text in lines[max(0, line - 3) : line - 1]))


def packages(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the top-level packages that an import names."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name.partition(".")[0] for name in names]


def always_there(package: str) -> bool:
    """Say whether a package is there whatever extras are installed, as far as its name tells."""
    return package == "roadstead" or package in sys.stdlib_module_names


def test_doors_open_one_way() -> None:
    """No module imports from a room to its right, beside it, or at its side."""
    found = [item for path in modules() for item in imports(module_name(path), path.read_text())]

    assert found, f"no imports were found below {SOURCE}: is the path still right?"
    assert wrong_doors(found) == []


def test_imports_are_absolute() -> None:
    """No module imports relatively: a reader sees from which room a name comes."""
    wrong = [f"{module_name(path)}:{line}" for path in modules() for line in relative_imports(path.read_text())]

    assert wrong == []


def test_imports_are_at_the_top() -> None:
    """What is imported further down says why: hidden imports are how cycles are hidden."""
    wrong = [f"{module_name(path)}:{line}" for path in modules() for line in late_imports(path.read_text())]

    assert wrong == []


def test_package_files_are_empty() -> None:
    """Every ``__init__.py`` is empty: a root that imports its children is how cycles start."""
    assert [str(path) for path in SOURCE.rglob("__init__.py") if path.stat().st_size > 0] == []


def test_every_folder_is_a_package() -> None:
    """Every folder with modules has its ``__init__.py``, so that it is found when installed."""
    folders = {path.parent for path in modules()}

    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_modules_have_names_that_say_something() -> None:
    """No module is called utils, helpers, common or manager: the right name exists, look in the spec."""
    wrong = [module_name(path) for path in modules() if EMPTY_NAMES & set(module_name(path).split("."))]

    assert wrong == []


WRONG = [
    ("oci.digest", "from roadstead.storage.ports import Driver", "stands to the right of oci"),
    ("errors", "from roadstead.oci.digest import Digest", "stands to the right of errors"),
    ("registry.blobs", "import roadstead.http.errors", "stands to the right of registry"),
    ("registry.blobs", "from roadstead import http", "stands to the right of registry"),
    ("storage.ports", "from roadstead.upstream.client import Client", "side by side"),
    ("augment.service", "from roadstead.registry.blobs import Blobs", "side by side"),
    ("watch.watcher", "from roadstead.auth.token import issue", "side by side"),
    ("registry.blobs", "from roadstead.db.engine import Engine", "wired in by app"),
    ("http.v2.blobs", "from roadstead.settings.model import Settings", "wired in by app"),
    ("registry.blobs", "def later():\n    from roadstead.telemetry.metrics import PULLS", "wired in by app"),
    ("settings.load", "from roadstead.storage.ports import Key", "settings may not know storage"),
    ("db.stores.tags", "from roadstead.http.errors import Answer", "db may not know http"),
    ("registry.blobs", "from roadstead.storage.drivers.memory import MemoryDriver", "know plugs"),
    ("registry.blobs", "from roadstead.harbour.quay import Quay", "harbour has no place"),
    ("web.home", "from roadstead.app.services import build_services", "stands to the right of web"),
    ("worker", "from roadstead.settings.model import Settings", "wired in by app"),
    ("cli.main", "from roadstead.testing.ports import free_port", "side by side"),
]


@pytest.mark.parametrize(("module", "code", "reason"), WRONG)
def test_a_wrong_door_is_found(module: str, code: str, reason: str) -> None:
    """A made-up module that imports the wrong way is reported, with its line and the reason."""
    (found,) = wrong_doors(imports(module, code))

    assert found.startswith(f"{module}:")
    assert reason in found


RIGHT = [
    ("oci.manifest", "from roadstead.oci.digest import Digest\nfrom roadstead.errors import InvalidError"),
    ("errors", "import dataclasses\nimport roadstead"),
    ("secret", "from roadstead.errors import InvalidError"),
    ("registry.blobs", "from roadstead.storage.ports import Driver"),
    ("registry.tags", "from roadstead.events.event import Event\nfrom roadstead.auth.principal import Principal"),
    ("storage.drivers.s3", "from roadstead.storage.drivers.memory import MemoryDriver"),
    ("db.stores.tags", "from roadstead.registry.ports import TagStore"),
    ("telemetry.metrics", "from roadstead.http.asgi import Request"),
    ("settings.model", "from roadstead.oci.reference import RepositoryName"),
    ("supervisor", "from roadstead.settings.address import ListenAddress"),
    ("app", "from roadstead.storage.drivers.s3 import S3Driver\nfrom roadstead.db.engine import Engine"),
    ("cli.serve", "from roadstead.app.services import build_services\nfrom roadstead.settings.load import load"),
    ("testing.contracts.driver", "from roadstead.storage.drivers.memory import MemoryDriver"),
]


@pytest.mark.parametrize(("module", "code"), RIGHT)
def test_a_right_door_is_left_alone(module: str, code: str) -> None:
    """Imports to the left, within a room and of what is shared on purpose pass."""
    assert wrong_doors(imports(module, code)) == []


def test_late_and_relative_imports_are_found() -> None:
    """The readers of the other rules see what they are for."""
    code = "import abc\nfrom . import b\ndef f():\n    import json\n    import asyncpg\n    from roadstead import oci\n"

    assert relative_imports(code) == [2]
    assert late_imports(code) == [4, 6]
    assert late_imports("def f():\n    # It costs more than a worker.\n    from roadstead.db import migrating\n") == []
