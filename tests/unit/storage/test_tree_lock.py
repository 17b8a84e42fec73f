"""The lock of a tree: shared by one installation, refused to another."""

from pathlib import Path

import pytest

from roadstead.storage.tree_lock import TreeInUseError, hold_tree


def test_processes_of_one_installation_share_it(tmp_path: Path) -> None:
    """Each descriptor is a lock of its own, in one process as in several."""
    path = tmp_path / "roadstead" / "lock"

    with hold_tree(path, "ours"), hold_tree(path, "ours"):
        assert path.read_text() == "ours"


def test_another_installation_is_refused_while_it_is_held(tmp_path: Path) -> None:
    """And may have it afterwards; what stood in the file before doesn't matter then."""
    path = tmp_path / "lock"
    with hold_tree(path, "a longer name than the other"):
        with pytest.raises(TreeInUseError, match="another Roadstead with another database"), hold_tree(path, "other"):
            pass
        with hold_tree(path, "a longer name than the other"):
            pass

    with hold_tree(path, "other"):
        assert path.read_text() == "other"
