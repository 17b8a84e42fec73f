"""Files that change under us."""

from pathlib import Path

from roadstead.tls.watched import WatchedFiles


def test_a_change_is_told_once_and_when_it_is_over(tmp_path: Path) -> None:
    """While files still change nothing is told; then it is, once."""
    certificate, key = tmp_path / "c", tmp_path / "k"
    certificate.write_text("1")
    key.write_text("1")
    files = WatchedFiles([certificate, key])

    seen = [files.changed()]
    certificate.write_text("22")
    seen.append(files.changed())
    key.write_text("22")
    seen.append(files.changed())
    seen += [files.changed(), files.changed()]

    assert seen == [False, False, False, True, False]


def test_a_directory_that_is_a_link_may_be_swapped(tmp_path: Path) -> None:
    """Kubernetes replaces a Secret's files by pointing a link elsewhere."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c").write_text("same length")
    link = tmp_path / "current"
    link.symlink_to("one")
    files = WatchedFiles([link / "c"])

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)

    assert [files.changed(), files.changed()] == [False, True]


def test_a_file_may_be_missing_for_a_while(tmp_path: Path) -> None:
    """A file that goes and comes back as it was is no change."""
    files = WatchedFiles([tmp_path / "c"])

    assert files.changed() is False
