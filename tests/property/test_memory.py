"""Memory stays constant for any size that a file claims, and does not grow with what it holds."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkformat import check_bytes, check_file, validate_file

from .files import asm

_BOUND = 1 << 20
"""Bytes: far more than a small file needs, far less than any claimed size below."""

_BLOCKS = 12 << 20
"""Bytes: values are read in blocks of 4 MiB."""


@pytest.fixture(scope="module", autouse=True)
def _tracing() -> Iterator[None]:
    # What is imported on first use would be counted otherwise.
    check_bytes(asm.E.file().data)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak(judge: Callable[[], object]) -> int:
    """Bytes that judging takes at most, once what is kept for good is there."""
    judge()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    judge()
    return tracemalloc.get_traced_memory()[1] - before


_sizes = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1])
)


def _stream(*parts: bytes, protocol: int = 4) -> bytes:
    return bytes(asm.npy_header()) + b"\x80" + bytes([protocol]) + b"".join(parts)


def _claims(size: int) -> list[bytes]:
    """Everything that carries a length, an index or a dimension, claiming `size`."""
    four, eight = struct.pack("<I", size), struct.pack("<Q", size << 20)
    dim = asm.long1(size)
    whole = [
        asm.E.file(asm.E.update(asm.E.array((2,), dims=asm.tuple_of(dim)))).data,
        asm.E.file(
            asm.E.update(asm.E.array((2,), dims=asm.tuple_of(dim, dim, asm.integer(0))))
        ).data,
        asm.D.file(asm.D.update(num_samples=asm.long1(size << 20))).data,
        asm.D.file(
            asm.D.outer(asm.list_of(asm.integer(7), asm.list_of(asm.D.array())), (size,))
        ).data,
        asm.npy_header(f"({size},)") + asm.D.stream(asm.D.update()).data,
        asm.raw_header(b"{", (2, 0), length=size),
        asm.E.file(asm.E.update(asm.E.array((2,), dtype=asm.E.dtype(f"V{size}")))).data,
    ]
    return [bytes(data) for data in whole] + [
        _stream(b"X" + four),
        _stream(b"B" + four),
        _stream(b"\x8e" + eight),
        _stream(b"\x8d" + eight),
        _stream(b"\x96" + eight),
        _stream(b"\x95" + eight),
        _stream(b"\x8b" + four),
        _stream(b"C\x01b", b"r" + four),
        _stream(b"j" + four),
        _stream(b"T" + four, protocol=3),
    ]


@settings(max_examples=60)
@given(_sizes)
def test_claimed_sizes_cost_nothing(size: int) -> None:
    for data in _claims(size):
        assert peak(lambda data=data: check_bytes(data, sha256=True)) < _BOUND  # type: ignore[misc]


@pytest.mark.parametrize("memo", ["all", "used"])
def test_a_sparse_gigabyte(memo: str, tmp_path: Path) -> None:
    """The payload is read in blocks, never whole."""
    nbytes = 1 << 30
    array = asm.E.array((nbytes // 4,), body=[b"B", struct.pack("<I", nbytes), asm.At("payload")])
    built = asm.E.file(asm.E.update(array), memo=memo, frames=False)
    start = built.at["payload"]
    path = tmp_path / "sparse.npy"
    with path.open("wb") as file:
        file.write(built.data[:start])
        file.seek(start + nbytes)
        file.write(built.data[start:])
    assert os.stat(path).st_size > nbytes
    assert peak(lambda: check_file(path, values=False)) < _BOUND
    assert check_file(path, values=False).valid
    assert peak(lambda: check_file(path)) < _BLOCKS
    path.unlink()


def test_blocks_of_a_proof(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    array = asm.D.array((1 << 22,), "f4", bytes(1 << 24))
    path.write_bytes(asm.D.file(asm.D.update(array)).data)

    def stream() -> None:
        with validate_file(path) as proof:
            assert sum(map(len, proof.blocks())) == proof.nbytes

    assert peak(stream) < _BLOCKS


@pytest.mark.parametrize("flood", [asm.EMPTY_LIST, asm.payload(b"")], ids=["list", "bytes"])
def test_floods_of_opcodes_are_cut_off(flood: bytes) -> None:
    """Reading stops at a number of opcodes, so ten times the file takes no more memory."""
    data = _stream(flood * 2_000_000)
    assert peak(lambda: check_bytes(data)) < 80 << 20
    assert [found.code for found in check_bytes(data).findings] == ["BK221"]
