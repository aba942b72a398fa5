"""Arrays over the payloads of a file: mapped without a copy, or copied by pread; read-only."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from bkformat.arrays import ArrayLayout
from bkformat.source import FileSource, Source

__all__ = ["copy_arrays", "map_arrays"]

_BLOCK = 1 << 20


def map_arrays(source: FileSource, layouts: Sequence[ArrayLayout]) -> list[np.ndarray[Any, Any]]:
    """Arrays over a mapping of the file, which lives as long as the last of them."""
    mapping = mmap.mmap(source.fd, source.nbytes, access=mmap.ACCESS_READ)
    return [_shaped(np.frombuffer(mapping, np.uint8), layout) for layout in layouts]


def copy_arrays(
    source: Source, layouts: Sequence[ArrayLayout], *, hashed: bool = False
) -> tuple[list[np.ndarray[Any, Any]], str | None]:
    """Arrays with memory of their own, and where `hashed` the SHA-256 of the whole file."""
    digest = hashlib.sha256() if hashed else None
    copies: dict[int, np.ndarray[Any, Any]] = {}
    position = 0
    for layout in sorted(layouts, key=lambda layout: layout.offset):
        start = layout.offset
        if layout.nbytes and start not in copies:
            if digest is not None:
                _hash_between(source, position, start, digest)
            copies[start] = payload = np.empty(layout.nbytes, dtype=np.uint8)
            source.read_into(start, payload.data)
            if digest is not None:
                digest.update(payload.data)
            position = start + layout.nbytes
    if digest is not None:
        _hash_between(source, position, source.nbytes, digest)
    empty = np.empty(0, dtype=np.uint8)
    arrays = [_shaped(copies.get(a.offset, empty), a, a.offset) for a in layouts]
    return arrays, digest.hexdigest() if digest is not None else None


def _hash_between(source: Source, start: int, stop: int, digest: hashlib._Hash) -> None:
    for at in range(start, stop, _BLOCK):
        digest.update(source.read_at(at, min(_BLOCK, stop - at)))


def _shaped(data: np.ndarray[Any, Any], layout: ArrayLayout, base: int = 0) -> np.ndarray[Any, Any]:
    """A read-only array over the bytes of `data`, whose first stands at `base` of the file."""
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    start = layout.offset - base if layout.nbytes else 0
    payload = data[start : start + layout.nbytes].view(dtype)
    array: np.ndarray[Any, Any] = payload.reshape(layout.shape, order=layout.order)
    array.flags.writeable = False
    return array
