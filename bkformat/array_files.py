"""Plain arrays in .npy files, alone or in a folder: parsed by numpy, and never unpickled.

The bytes that a header promises are compared with those that are there.
"""

from __future__ import annotations

import errno
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from typing import IO, Any, NamedTuple

import numpy as np

from bkformat.containers import dtype_finding
from bkformat.errors import InvalidSourceError, UpdateChangedError
from bkformat.findings import quoted
from bkformat.members import Member, stored_member
from bkformat.source import open_fd, open_file
from bkformat.values import BLOCK

__all__ = ["ArrayHeader", "array_file", "array_folder", "by_number", "judged_dtype", "read_header"]

_MAX_HEADER = 10_000
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArrayHeader(NamedTuple):
    """What the header of a plain .npy says.

    Attributes:
        shape: elements along each axis.
        fortran: whether the first index runs fastest.
        dtype: with its byte order.
        nbytes: bytes of all elements.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], where: str) -> ArrayHeader:
    """Read up to the first element.

    Raises:
        InvalidSourceError: it is no .npy, or one of objects.
    """
    try:
        version = np.lib.format.read_magic(file)
        reader = _READERS.get(version)
        if reader is None:
            raise InvalidSourceError(f"{where}: .npy version {version}")
        shape, fortran, dtype = reader(file, max_header_size=_MAX_HEADER)
    except (InvalidSourceError, OSError, zipfile.BadZipFile, zlib.error):
        raise
    except Exception as exc:  # numpy's parsers raise what Python's do
        raise InvalidSourceError(f"{where}: no .npy header") from exc
    if dtype.hasobject:
        raise InvalidSourceError(f"{where}: an array of objects, which would have to be unpickled")
    if not all(type(dim) is int and dim >= 0 for dim in shape):
        raise InvalidSourceError(f"{where}: the shape {quoted(shape)}")
    return ArrayHeader(shape, fortran, dtype)


def judged_dtype(
    stored: np.dtype[Any], shape: tuple[int, ...], dtype: str | None, where: str
) -> None:
    """Refuse what an update can't hold.

    Raises:
        InvalidSourceError: it names the rule.
    """
    found = dtype_finding(stored, shape, dtype, where)
    if found is not None:
        rule, message, _ = found
        raise InvalidSourceError(f"{where}: {rule.code} {rule.name}: {message}; fix: {rule.fix}")


def array_file(path: str, name: str | None = None, dtype: str | None = None) -> Member:
    """The array of a plain .npy file; it is opened again when its elements are asked for.

    Args:
        path: a regular file.
        name: of the parameter, or None.
        dtype: what it is converted to, if that is given.

    Raises:
        InvalidSourceError: see `read_header`; or the file is not as long as it should be.
        OSError: the file can't be read.
    """
    where = quoted(os.path.basename(path))[1:-1]
    with open(open_fd(path), "rb") as file:
        header = read_header(file, where)
        start, left = file.tell(), os.fstat(file.fileno()).st_size - file.tell()
    if left != header.nbytes:
        raise InvalidSourceError(
            f"{where}: {left:,} bytes where shape {quoted(header.shape)} "
            f"of {header.dtype.name} needs {header.nbytes:,}"
        )
    judged_dtype(header.dtype, header.shape, dtype, where)

    def read() -> Iterator[bytes | memoryview]:
        with open_file(path) as source:
            for at in range(start, start + header.nbytes, BLOCK):
                length = min(BLOCK, start + header.nbytes - at)
                if at + length > source.nbytes:
                    raise UpdateChangedError(errno.EIO, "the file was changed while it was read")
                yield source.read_at(at, length)

    return stored_member(
        name, header.dtype, header.shape, read, fortran=header.fortran, dtype=dtype
    )


def array_folder(folder: str, dtype: str | None = None) -> list[Member]:
    """The arrays of the .npy files directly in a folder; numbers in names count as numbers.

    Raises:
        InvalidSourceError: a file is broken, or there is none.
        OSError: something can't be read.
    """
    names = sorted((n for n in os.listdir(folder) if n.lower().endswith(".npy")), key=by_number)
    if not names:
        raise InvalidSourceError("no .npy file in this folder")
    return [array_file(os.path.join(folder, name), name[:-4], dtype) for name in names]


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer_2 before layer_10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]
