"""SHA-256 beside other work: a second thread hashes, since hashlib lets go of the GIL."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["HASH_BLOCK", "Hasher", "aligned_block"]

HASH_BLOCK = 1 << 21
"""Bytes hashed at a time."""

_ALONE = 8 << 20
"""Bytes up to which a thread is not worth its start."""

_BLOCKS = 3
_GATHERED = 1 << 20


def aligned_block(nbytes: int) -> np.ndarray[Any, Any]:
    """A buffer of so many bytes that begins at a multiple of 64."""
    raw = np.empty(nbytes + 64, dtype=np.uint8)
    start = -raw.__array_interface__["data"][0] % 64
    return raw[start : start + nbytes]


class Hasher:
    """Hashes what it is given, in that order. To be used in a `with` statement."""

    def __init__(self, nbytes: int, *, wanted: bool = True) -> None:
        """Nothing is hashed yet.

        Args:
            nbytes: about how much there will be.
            wanted: False hashes nothing at all, and only lends its blocks.
        """
        self._digest = hashlib.sha256()
        self._wanted = wanted
        self._pool = ThreadPoolExecutor(1) if wanted and nbytes > _ALONE else None
        self._size = min(nbytes, HASH_BLOCK)
        self._free: list[np.ndarray[Any, Any]] = []
        self._made = 0
        self._running: deque[tuple[Future[None], np.ndarray[Any, Any] | None]] = deque()
        self._gathered = bytearray()

    def __enter__(self) -> Hasher:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, data: bytes) -> None:
        """Hash a few bytes; many such are gathered."""
        if not self._wanted:
            return
        self._gathered += data
        if len(self._gathered) >= _GATHERED:
            self._flush()

    def add_block(self, block: np.ndarray[Any, Any], nbytes: int) -> None:
        """Hash the start of a `free_block`, which must not be written to any more."""
        self._flush()
        data = block[:nbytes].data
        if self._pool is None:
            if self._wanted:
                self._digest.update(data)
            self._free.append(block)
        else:
            self._running.append((self._pool.submit(self._digest.update, data), block))

    def free_block(self) -> np.ndarray[Any, Any]:
        """A buffer of HASH_BLOCK bytes, or as many as there are, at a multiple of 64."""
        if not self._free and self._made < _BLOCKS:
            self._made += 1
            return aligned_block(self._size)
        while not self._free:
            self._wait()
        return self._free.pop()

    def hexdigest(self) -> str:
        """The digest of everything; "" where none was wanted."""
        if not self._wanted:
            return ""
        self._flush()
        while self._running:
            self._wait()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        if not self._gathered:
            return
        data, self._gathered = bytes(self._gathered), bytearray()
        if self._pool is None:
            self._digest.update(data)
        else:
            self._running.append((self._pool.submit(self._digest.update, data), None))

    def _wait(self) -> None:
        future, block = self._running.popleft()
        future.result()
        if block is not None:
            self._free.append(block)
