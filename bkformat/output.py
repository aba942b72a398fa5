"""Where files come from: written beside the target, and renamed once all is well.

An interrupted or failed write leaves the old file and no litter. Names of temporary files are
random and never reuse a file that is there; the mode follows the umask.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator

__all__ = ["Output", "replacing", "write_all"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_COALESCED = 1 << 20


class Output:
    """A file that is being written.

    Attributes:
        fd: for writing, from the start of the file on.
        path: its temporary name; tests and validators may open it.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, fsync: bool = True) -> Iterator[Output]:
    """A new file that takes the place of `path` when the block ends without an exception.

    Args:
        path: the target; a link is followed, so that what it names is replaced.
        fsync: wait until the content and its name are on the disk.

    Raises:
        OSError: the folder can't be written, the disk is full, or `path` is there and is no
            regular file.
    """
    target = os.path.realpath(os.fsdecode(path))
    _refuse_irregular(target, path)
    folder = os.path.dirname(target)
    output = None
    temporary = os.path.join(folder, f".bkformat-{secrets.token_hex(8)}.tmp")
    try:
        output = Output(os.open(temporary, _FLAGS, 0o666), temporary)
        yield output
        if fsync:
            os.fsync(output.fd)
        os.replace(temporary, target)
    except OSError as exc:
        _remove(temporary)
        # Without a number it is no trouble with this file, such as an input that changed.
        if exc.filename in (None, temporary) and exc.errno is not None:
            exc.filename = os.fspath(path)
        raise
    except BaseException:
        _remove(temporary)
        raise
    finally:
        if output is not None:
            os.close(output.fd)
    if fsync:
        _sync_folder(folder)


def _refuse_irregular(target: str, path: str | os.PathLike[str]) -> None:
    """Renaming over a device or a FIFO would destroy it."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    except ValueError as exc:
        raise OSError(errno.EINVAL, "A path with a null character", path) from exc
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    """The new name survives a crash; some file systems can't and need not do that."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(fd: int, pieces: Iterable[bytes | memoryview]) -> Iterator[int]:
    """Write pieces one after another; small ones are gathered, large ones are not copied.

    Yields:
        The bytes written so far, after every write.
    """
    written = 0
    waiting = bytearray()
    for piece in pieces:
        if len(piece) < _COALESCED:
            waiting += piece
            if len(waiting) < _COALESCED:
                continue
            piece, waiting = memoryview(waiting), bytearray()
        elif waiting:
            written += _write(fd, memoryview(waiting))
            waiting = bytearray()
            yield written
        written += _write(fd, memoryview(piece))
        yield written
    written += _write(fd, memoryview(waiting))
    yield written


def _write(fd: int, data: memoryview) -> int:
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    return done
