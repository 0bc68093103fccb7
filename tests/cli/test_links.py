"""Files are written beside their target first, in folders that others share, where a stranger may have put a link."""

from __future__ import annotations

import pytest

from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.transfer import Archive
from hookline_cli.commands import pull
from hookline_cli.detached import _write as write_signed


def _packed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    Archive(folder, limits=FetchLimits()).pack(tmp_path / "file")


@pytest.mark.parametrize(
    "write",
    [
        lambda tmp_path: pull._copy(tmp_path / "source", tmp_path / "file"),
        lambda tmp_path: write_signed(tmp_path / "file", b"new"),
        _packed,
    ],
)
def test_no_link_that_was_there_is_written_through(tmp_path, write) -> None:
    """Their name before they are complete cannot be known."""
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / ".file.part").symlink_to(tmp_path / "precious")
    write(tmp_path)
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / "file").is_file()
    assert not (tmp_path / "file").is_symlink()
