"""Strategies for files: good ones of every form, and edits of them, of bytes and of opcodes."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from bkformat import assembler as asm

FIXTURES = Path(__file__).parents[2] / "fixtures"

Array = np.ndarray[Any, Any]


class Content(NamedTuple):
    """What goes into a file; `num_samples` is None for a bare aggregate."""

    num_samples: int | None
    arrays: list[Array]

    @property
    def kind(self) -> str:
        return "aggregate" if self.num_samples is None else "update"

    def root(self) -> Array:
        """The object array that np.save is given."""
        items: Sequence[Any] = self.arrays
        if self.num_samples is not None:
            items = [self.num_samples, self.arrays]
        outer = np.empty(len(items), dtype=object)
        for index, item in enumerate(items):
            outer[index] = item
        return outer


# --- content ---------------------------------------------------------------------------------

FLOATS = ("float16", "float32", "float64")
DTYPES = (
    *FLOATS, "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip

_EDGES = (1, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**53)
counts = st.one_of(st.sampled_from(_EDGES), st.integers(1, 2**53))

_shapes = st.one_of(
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from([[], [1], [1, 1], [300], [255], [256], [64], [2, 0], [70_000, 0]]),
    st.lists(st.integers(1, 2), min_size=5, max_size=9),
    st.just([1] * 32),
)


def filled(dtype: str, shape: Sequence[int], order: str, seed: int) -> Array:
    """Small numbers, so that all values are finite and every dtype holds them."""
    size = prod(shape)
    numbers = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, size)
    flat = numbers.astype(dtype)
    return np.asarray(flat.reshape(tuple(shape), order=order))  # type: ignore[call-overload]


def arrays(dtypes: Sequence[str] = DTYPES) -> st.SearchStrategy[Array]:
    return st.builds(
        filled, st.sampled_from(dtypes), _shapes, st.sampled_from("CF"), st.integers(0, 9)
    )


def _many(dtype: str, count: int, shapes: list[list[int]]) -> list[Array]:
    """So many arrays that memo indexes, batches of APPENDS and frames are crossed."""
    return [filled(dtype, shapes[at % len(shapes)], "CF"[at % 2], at) for at in range(count)]


_lists = st.one_of(
    st.lists(arrays(), min_size=1, max_size=6),
    st.lists(arrays(FLOATS), min_size=1, max_size=6),
    st.builds(
        _many,
        st.sampled_from(FLOATS),
        st.sampled_from([2, 30, 39, 40, 41, 45, 120]),
        st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=3),
    ),
)

updates = st.builds(Content, counts, _lists)
aggregates = st.builds(Content, st.none(), _lists)
contents = st.one_of(updates, updates, updates, aggregates)

huge = st.builds(
    Content,
    counts,
    st.builds(
        _many,
        st.sampled_from(FLOATS),
        st.sampled_from([1, 2, 5, 300, 1001, 1100]),
        st.sampled_from(
            [
                [[3]],
                [[2], [1, 3]],
                [[20, 20]],
                [[130, 130], [3]],
                [[3], [200, 90], []],
                [[254], [2]],
            ]
        ),
    ),
)


# --- forms -----------------------------------------------------------------------------------


def header_for(root: Array) -> bytes:
    shape = f"({len(root)},)"
    return bytes(asm.npy_header(shape))


def by_numpy(content: Content) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, content.root(), allow_pickle=True)
    return buffer.getvalue()


def by_pickle(content: Content, protocol: int) -> bytes:
    root = content.root()
    return header_for(root) + pickle.dumps(root, protocol=protocol)


def by_slow_pickler(content: Content, protocol: int) -> bytes:
    """The pure Python pickler, whose frames and batches end elsewhere than the C pickler's."""
    root = content.root()
    buffer = io.BytesIO()
    pickle._Pickler(buffer, protocol).dump(root)  # type: ignore[attr-defined]
    return header_for(root) + buffer.getvalue()


def without_memo(content: Content, protocol: int) -> bytes:
    root = content.root()
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol)
    pickler.fast = True
    pickler.dump(root)
    return header_for(root) + buffer.getvalue()


def optimized(content: Content, protocol: int) -> bytes:
    root = content.root()
    return header_for(root) + pickletools.optimize(pickle.dumps(root, protocol=protocol))


def renamed(content: Content, protocol: int) -> bytes:
    """The multiarray module under the name that the other numpys give it."""
    data = by_pickle(content, protocol)
    start = len(header_for(content.root()))
    ops = [_rename(part) for part in split_ops(data[start:])]
    return data[:start] + join_ops(ops, protocol, "as picklers do" if protocol > 3 else "none")


_NAMES = {b"numpy._core.multiarray": b"numpy.core.multiarray"}
_NAMES |= {new: old for old, new in _NAMES.items()}


def _rename(part: bytes) -> bytes:
    for old, new in _NAMES.items():
        if part[:1] == b"c" and part[1:].startswith(old + b"\n"):
            return b"c" + new + part[1 + len(old) :]
        if part == bytes((0x8C, len(old))) + old:
            return bytes((0x8C, len(new))) + new
    return part


def reframed(content: Content, frames: str) -> bytes:
    data = by_pickle(content, 4)
    start = len(header_for(content.root()))
    return data[:start] + join_ops(split_ops(data[start:]), 4, frames)


_TEXTS = {
    "bool": "b1", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4",
    "float64": "f8",
}  # fmt: skip


def assembled(content: Content, form: Any, memo: str, *, frames: bool = False) -> bytes:
    """A file of one of the assembler's forms: C, D, E or canonical."""
    parts = []
    for array in content.arrays:
        fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
        parts.append(
            form.array(
                array.shape,
                _TEXTS[array.dtype.name],
                array.tobytes("F" if fortran else "C"),
                fortran=asm.TRUE if fortran else asm.FALSE,
            )
        )
    if content.num_samples is None:
        root = form.outer(asm.list_of(*parts), (len(parts),))
        return bytes(form.file(root, shape=f"({len(parts)},)", memo=memo, frames=frames).data)
    root = form.update(*parts, num_samples=content.num_samples)
    return bytes(form.file(root, memo=memo, frames=frames).data)


Form = Callable[[Content], bytes]

FORMS: dict[str, Form] = {
    "np.save": by_numpy,
    "protocol 3": lambda content: by_pickle(content, 3),
    "protocol 4": lambda content: by_pickle(content, 4),
    "slow pickler 3": lambda content: by_slow_pickler(content, 3),
    "slow pickler 4": lambda content: by_slow_pickler(content, 4),
    "no memo 3": lambda content: without_memo(content, 3),
    "no memo 4": lambda content: without_memo(content, 4),
    "optimized 3": lambda content: optimized(content, 3),
    "optimized 4": lambda content: optimized(content, 4),
    "renamed 3": lambda content: renamed(content, 3),
    "renamed 4": lambda content: renamed(content, 4),
    "no frames": lambda content: reframed(content, "none"),
    "small frames": lambda content: reframed(content, "small"),
    "frames here and there": lambda content: reframed(content, "here and there"),
    "form C": lambda content: assembled(content, asm.C, "all"),
    "form C used": lambda content: assembled(content, asm.C, "used"),
    "form D": lambda content: assembled(content, asm.D, "all"),
    "form E": lambda content: assembled(content, asm.E, "all", frames=True),
    "form E used": lambda content: assembled(content, asm.E, "used"),
    "canonical": lambda content: assembled(content, asm.CANONICAL, "used"),
    "canonical all": lambda content: assembled(content, asm.CANONICAL, "all"),
}

forms = st.sampled_from(sorted(FORMS))


def written(content: Content, form: str) -> bytes:
    return FORMS[form](content)


good_files = st.builds(written, contents, forms)
small_files = st.builds(
    written, st.builds(Content, counts, st.lists(arrays(), min_size=1, max_size=4)), forms
)
huge_files = st.builds(written, huge, forms)


# --- opcodes ---------------------------------------------------------------------------------


def split_ops(stream: bytes) -> list[bytes]:
    """Each opcode with its argument, without PROTO and FRAME."""
    found = list(pickletools.genops(stream))
    ends = [pos for _, _, pos in found[1:]] + [len(stream)]
    return [
        stream[pos:end]
        for (opcode, _, pos), end in zip(found, ends, strict=True)
        if pos is not None and opcode.name not in ("PROTO", "FRAME")
    ]


def join_ops(ops: Sequence[bytes], protocol: int, frames: str) -> bytes:
    """A stream of these opcodes, with frames as picklers lay them, in other ways, or without."""
    start = b"\x80" + bytes([protocol])
    if frames == "none":
        return start + b"".join(ops)
    largest = 64 if frames == "small" else 1 << 16
    return start + b"".join(_framed(ops, largest, frames == "here and there"))


def _framed(ops: Sequence[bytes], largest: int, gaps: bool) -> Iterator[bytes]:
    frame = b""
    bare = False
    for part in ops:
        if len(part) >= 1 << 16:  # picklers put those outside
            yield _frame(frame)
            yield part
            frame = b""
            continue
        if bare and not frame:
            yield part
            bare = part != b"b"
            continue
        frame += part
        if len(frame) >= largest or (gaps and part == b"b"):
            yield _frame(frame)
            frame = b""
            bare = gaps and not bare
    yield _frame(frame)


def _frame(content: bytes) -> bytes:
    return b"\x95" + struct.pack("<Q", len(content)) + content if content else b""


# --- edits -----------------------------------------------------------------------------------

_BYTES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"\x00", b"\xff", b"\x80", b".", b"b", b"\x94", b"h\x00", b"K\x01", b"\x85", b"N", b"e"]
    ),
)


@st.composite
def edited_bytes(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file with one to three edits anywhere, more of them near the structure than in payloads."""
    data = draw(files)
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            return data
        data = _edit(draw, data)
    return data


def _edit(draw: st.DrawFn, data: bytes) -> bytes:
    last = len(data) - 1
    at = draw(
        st.one_of(
            st.integers(0, last),
            st.integers(0, min(last, 420)),
            st.integers(max(0, last - 80), last),
        )
    )
    what = draw(st.sampled_from(["flip", "set", "cut", "insert", "remove", "repeat", "splice"]))
    if what == "flip":
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    if what == "set":
        return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    if what == "cut":
        return data[:at]
    if what == "insert":
        return data[:at] + draw(_BYTES) + data[at:]
    stop = min(len(data), at + draw(st.integers(1, 80)))
    if what == "remove":
        return data[:at] + data[stop:]
    if what == "repeat":
        return data[:stop] + data[at:]
    other = draw(st.integers(0, last))
    return data[:at] + data[other : other + stop - at] + data[stop:]


_POOL = [
    b"N", b"\x88", b"\x89", b"(", b")", b"]", b"}", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e",
    b"R", b"b", b"\x93", b"\x94", b"K\x00", b"K\x01", b"K\x02", b"M\x01\x00", b"J\x01\x00\x00\x00",
    b"J\xff\xff\xff\xff", b"\x8a\x01\x01", b"\x8a\x03\x01\x00\x00", b"\x8a\x00",
    b"C\x00", b"C\x01b", b"C\x04\0\0\0\0", b"C\x08\0\0\0\0\0\0\0\0", b"B\x04\0\0\0\0\0\0\0",
    b"\x8e\x04\0\0\0\0\0\0\0\0\0\0\0", b"X\x02\0\0\0f4", b"\x8c\x02f4", b"\x8c\x02f8",
    b"\x8c\x02c8",
    b"\x8c\x01<", b"\x8c\x01|", b"\x8c\x05numpy", b"\x8c\x07ndarray", b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"G?\xf0\0\0\0\0\0\0", b"0",
    b"cnumpy.core.multiarray\nscalar\n",
]  # fmt: skip

_opcodes = st.one_of(
    st.sampled_from(_POOL),
    st.builds(lambda slot: b"h" + bytes([slot]), st.integers(0, 60)),
    st.builds(lambda slot: b"h" + bytes([slot]), st.integers(0, 255)),
    st.builds(lambda slot: b"j" + struct.pack("<I", slot), st.integers(0, 400)),
    st.builds(lambda slot: b"q" + bytes([slot]), st.integers(0, 255)),
    st.builds(lambda slot: b"r" + struct.pack("<I", slot), st.integers(0, 400)),
)
_frame_kinds = st.sampled_from(["none", "as picklers do", "small", "here and there"])


@st.composite
def edited_ops(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file with one to four edits of whole opcodes, framed anew so that frames stay lawful."""
    data = draw(files)
    start = int.from_bytes(data[8:10], "little") + 10
    protocol = data[start + 1]
    ops = split_ops(data[start:])
    for _ in range(draw(st.integers(1, 4))):
        if len(ops) > 1:
            _edit_ops(draw, ops)
    frames = draw(_frame_kinds) if protocol > 3 else "none"
    return data[:start] + join_ops(ops, protocol, frames)


def _edit_ops(draw: st.DrawFn, ops: list[bytes]) -> None:
    at = draw(st.integers(0, len(ops) - 1))
    what = draw(st.sampled_from(["replace", "replace", "remove", "insert", "swap", "copy", "move"]))
    if what == "replace":
        ops[at] = draw(_opcodes)
    elif what == "remove":
        del ops[at]
    elif what == "insert":
        ops.insert(at, draw(_opcodes))
    elif what == "swap":
        other = draw(st.integers(0, len(ops) - 1))
        ops[at], ops[other] = ops[other], ops[at]
    else:
        stop = min(len(ops), at + draw(st.sampled_from([1, 2, 5, 20, 23, 60])))
        moved = ops[at:stop]
        if what == "move":
            del ops[at:stop]
        to = draw(st.integers(0, len(ops)))
        ops[to:to] = moved


@st.composite
def edited_gets(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file in which values of array records are fetched from the memo instead of being built.

    Most such files are still understood, so this reaches what a run of records left in the memo.
    """
    data = draw(files)
    start = int.from_bytes(data[8:10], "little") + 10
    protocol = data[start + 1]
    ops = split_ops(data[start:])
    entries = sum(part[:1] in (b"q", b"r", b"\x94") for part in ops)
    records = [at for at, part in enumerate(ops) if part == b"b"]
    for _ in range(draw(st.integers(1, 3))):
        after = draw(st.sampled_from(records))
        at = min(len(ops) - 1, after + draw(st.integers(1, 24)))
        slot = draw(st.integers(0, max(0, entries)))
        get = b"h" + bytes([slot]) if slot < 256 else b"j" + struct.pack("<I", slot)
        if draw(st.booleans()):
            # What was put there is gone then, so that of the next records comes one slot earlier.
            stop = at + draw(st.integers(1, 3))
            ops[at:stop] = [get]
        else:
            ops[at] = get
    frames = draw(_frame_kinds) if protocol > 3 else "none"
    return data[:start] + join_ops(ops, protocol, frames)


edited = st.one_of(
    edited_bytes(good_files),
    edited_ops(good_files),
    edited_ops(small_files),
    edited_gets(good_files),
)


def fixture_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((FIXTURES / folder).glob("*.npy"))]
    assert found, "the fixtures are missing"
    return found


def small_fixtures(*folders: str) -> list[bytes]:
    """Their bytes, small ones alone."""
    return [path.read_bytes() for path in fixture_files(*folders) if path.stat().st_size < 20_000]
