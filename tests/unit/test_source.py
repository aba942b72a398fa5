"""The only module that reads."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bkformat import UpdateChangedError
from bkformat.source import BytesSource, FileSource, Source, open_fd, open_file

_DATA = bytes(range(256)) * 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(_DATA)
    return path


def check_source(source: Source) -> None:
    assert source.nbytes == len(_DATA)
    for offset, length in ((0, 0), (0, 10), (7, 300), (len(_DATA) - 1, 1), (len(_DATA), 0)):
        assert source.read_at(offset, length) == _DATA[offset : offset + length]
        buffer = bytearray(length)
        source.read_into(offset, memoryview(buffer))
        assert buffer == _DATA[offset : offset + length]
    source.check_unchanged()


def test_both_sources_read_the_same(path: Path) -> None:
    check_source(BytesSource(_DATA))
    with open_file(path) as source:
        check_source(source)


def test_reads_that_are_cut_short_are_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 3), at))
    monkeypatch.setattr(os, "preadv", lambda fd, to, at: preadv(fd, [to[0][:3]], at))
    with open_file(path) as source:
        check_source(source)


def test_a_file_that_shrinks_is_an_error(path: Path) -> None:
    with open_file(path) as source:
        os.truncate(path, 100)
        assert source.read_at(0, 100) == _DATA[:100]
        with pytest.raises(UpdateChangedError):
            source.read_at(90, 20)
        with pytest.raises(UpdateChangedError):
            source.read_into(90, memoryview(bytearray(20)))
        with pytest.raises(UpdateChangedError):
            source.check_unchanged()


def test_another_size_or_time_is_a_change(path: Path) -> None:
    for change in (lambda: os.utime(path, ns=(1, 1)), lambda: path.write_bytes(_DATA + b"x")):
        with open_file(path) as source:
            source.check_unchanged()
            change()
            with pytest.raises(UpdateChangedError):
                source.check_unchanged()


def test_content_in_place_of_a_path_is_told_what_to_do(path: Path) -> None:
    for content in (b"\x93NUMPY\x01\0", bytearray(b"x"), 3, None):
        with pytest.raises(TypeError, match="check_bytes takes content"):
            open_fd(content)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="null character"):
        open_fd("a\0b")


def test_links_are_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with open_file(link) as source:
        check_source(source)


def test_what_is_no_regular_file_is_an_os_error(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    listening = socket.socket(socket.AF_UNIX)
    place = os.open(tmp_path, os.O_RDONLY)
    listening.bind(
        f"/proc/self/fd/{place}/s" if os.path.isdir("/proc/self/fd") else str(tmp_path / "s")
    )
    before = set(os.listdir("/dev/fd"))
    for path in (tmp_path, fifo, tmp_path / "s", "/dev/null", tmp_path / "none"):
        with pytest.raises(OSError) as caught:  # noqa: PT011  (which one depends on the path)
            open_fd(path)
        assert not isinstance(caught.value, UpdateChangedError)
    with pytest.raises(IsADirectoryError):
        open_fd(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_fd(tmp_path / "none")
    assert len(os.listdir("/dev/fd")) == len(before)
    listening.close()
    os.close(place)


def test_the_descriptor_is_closed(path: Path) -> None:
    with open_file(path) as source:
        fd = source.fd
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(ZeroDivisionError), open_file(path):
        raise ZeroDivisionError
    assert len(os.listdir("/dev/fd")) == before


def test_a_source_does_not_inherit_its_descriptor(path: Path) -> None:
    fd = open_fd(path)
    assert not os.get_inheritable(fd)
    assert FileSource(fd).nbytes == len(_DATA)
    os.close(fd)
