"""Where bytes come from: the only module that reads.

A source answers "give me bytes [offset, offset + length)" and knows its size. Files are read by
pread alone, never mapped: a file that shrinks meanwhile gives an error here, where a mapped one
would kill the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from bkformat.errors import UpdateChangedError

__all__ = ["BytesSource", "FileSource", "Source", "open_fd", "open_file", "too_large"]


class Source(Protocol):
    """Bytes that can be read at any offset.

    Attributes:
        nbytes: size in bytes, fixed when the source was opened.
    """

    nbytes: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; both lie within `nbytes`."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`."""

    def check_unchanged(self) -> None:
        """Raise `UpdateChangedError` if the bytes may have changed since the source was opened."""


class BytesSource:
    """An immutable byte string."""

    __slots__ = ("_data", "nbytes")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.nbytes = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = memoryview(self._data)[offset : offset + len(buffer)]

    def check_unchanged(self) -> None:
        """Bytes can't change."""


class FileSource:
    """An open file descriptor of a regular file; the caller closes it."""

    __slots__ = ("_stamp", "fd", "nbytes")

    def __init__(self, fd: int) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.nbytes = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self.fd, length, offset)
        while len(data) < length:  # a signal or a network file system may cut a read short
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                raise UpdateChangedError(errno.EIO, "the file was cut short while it was read")
            data += more
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self.fd, [buffer[done:] if done else buffer], offset + done)
            if not count:
                raise UpdateChangedError(errno.EIO, "the file was cut short while it was read")
            done += count

    def check_unchanged(self) -> None:
        status = os.fstat(self.fd)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise UpdateChangedError(errno.EIO, "the file was changed while it was read")


# Non-blocking, so that opening a FIFO or a device never waits; O_CLOEXEC is Python's default.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0)


def open_fd(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file (links are followed) for reading.

    Raises:
        OSError: the path can't be opened, or is a folder, FIFO, device or socket.
        TypeError: it is no path, but the content of a file perhaps.
    """
    no_path = f"a path is wanted, not {type(path).__name__}; check_bytes takes content"
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(no_path)
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except ValueError as exc:
        if isinstance(path, bytes):
            raise TypeError(no_path) from exc
        raise OSError(errno.EINVAL, "A path with a null character", path) from exc
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "Not a regular file", path)


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str], max_size: int | None = None) -> Iterator[FileSource]:
    """Open a regular file (links are followed), and close it in the end.

    Raises:
        OSError: the path can't be opened, is a folder, FIFO, device or socket, or is past
            `max_size` bytes.
    """
    fd = open_fd(path)
    try:
        source = FileSource(fd)
        if max_size is not None and source.nbytes > max_size:
            raise too_large(source.nbytes, max_size, path)
        yield source
    finally:
        os.close(fd)


def too_large(nbytes: int, max_size: int, path: str | os.PathLike[str]) -> OSError:
    """The refusal to judge a file that is larger than the caller takes."""
    return OSError(errno.EFBIG, f"{nbytes:,} bytes is past the limit of {max_size:,}", path)
