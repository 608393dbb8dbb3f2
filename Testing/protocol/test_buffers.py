"""Volumes as files: parts written at their place."""

from __future__ import annotations

from pathlib import Path

from DiffusionSegmentBackend.protocol.buffers import write_part


def test_parts_are_written_at_their_place_into_a_file_of_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "parts.raw"
    write_part(path, 3, memoryview(b"def"))
    write_part(path, 0, memoryview(b"abc"))
    assert path.read_bytes() == b"abcdef"
    assert path.stat().st_mode & 0o077 == 0
