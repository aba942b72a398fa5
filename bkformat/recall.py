"""Small files of a structure that was read before are recognised instead of read again.

A site sends the same model every round, and an aggregator gets it from every site. So the opcodes
of a file that was found valid are kept as a template, in which only numbers are left open:

    num_samples; each dimension; the length of each payload; the length of the one frame

A file that agrees with a template in every other byte runs the same opcodes, so it has the same
layout with its own numbers: each payload must be as long as its dimensions say, the frame must end
with the file, and nothing may be left over. Whatever does not fit is read from its first byte.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import Any, Literal, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.opcodes import op
from bkformat.source import BytesSource
from bkformat.stream import OpcodeStream, Span

__all__ = ["MAX_NBYTES", "Recalled", "forget", "recall", "remember"]

MAX_NBYTES = 1 << 16
"""Files past this size are read, which then costs less than looking at their values."""

_MOST_SEGMENTS = 20_000
"""Kept in all, a few megabytes; past them everything is forgotten and learned again."""

Hole = Literal["count", "dimension", "payload", "frame", "end"]

_INT_WIDTHS = {op.BININT1: 1, op.BININT2: 2, op.BININT: 4}
_LENGTH_WIDTHS = {op.SHORT_BINBYTES: 1, op.BINBYTES: 4, op.BINBYTES8: 8}
_TUPLE_OF = {0: op.EMPTY_TUPLE, 1: op.TUPLE1, 2: op.TUPLE2, 3: op.TUPLE3}
_LONGEST_SHAPE = 40


_Array = tuple[str, int, Literal["C", "F"]]


_Token = tuple[int, Any, int]
_Holes = list[tuple[int, int, Hole]]


class _Segment(NamedTuple):
    """Bytes that must be there, the number that follows them, and the array if that is a payload.

    `array` is dtype, item size and order.
    """

    text: bytes
    hole: Hole
    width: int
    array: _Array | None


class _Node:
    """What may follow the segments on the way here; templates with the same beginning share it."""

    __slots__ = ("branches", "layout")

    def __init__(self) -> None:
        self.branches: tuple[tuple[_Segment, _Node], ...] = ()
        self.layout: Any = None  # of the file that the template was made from, at its end


class Recalled(NamedTuple):
    """A file that fits a template.

    Attributes:
        layout: the layout that was remembered, of the file that the template was made from.
        num_samples: the count, or None where the file has none.
        parameters: the arrays.
    """

    layout: Any
    num_samples: int | None
    parameters: tuple[ArrayLayout, ...]


_roots: dict[object, _Node] = {}
_lock = threading.Lock()
_count = 0


def forget() -> None:
    """Drop every template."""
    global _count
    _roots.clear()
    _count = 0


def recall(data: bytes, options: object) -> Recalled | None:  # noqa: C901  (calls would double its time)
    """What a file says whose structure is known; None where it must be read.

    Args:
        data: the whole file.
        options: all that the reading depends on beside the bytes.
    """
    node = _roots.get(options)
    position = 0
    count = None
    dims: list[int] = []
    arrays: list[ArrayLayout] = []
    while node is not None:
        # The longest text comes first.
        for segment, following in node.branches:  # noqa: B007  (used behind the loop)
            if data.startswith(segment.text, position):
                break
        else:
            return None
        text, hole, width, array = segment
        position += len(text)
        number = int.from_bytes(data[position : position + width], "little")
        position += width
        if hole == "dimension":
            if not number or number >> 31:
                return None
            dims.append(number)
        elif array is not None:
            dtype, itemsize, order = array
            if prod(dims) * itemsize != number:
                return None
            arrays.append(ArrayLayout(dtype, tuple(dims), order, position, number))
            dims = []
            position += number
        elif hole == "frame":
            if number != len(data) - position:
                return None
        elif hole == "count":
            if not number or number >> 31:
                return None
            count = number
        elif position == len(data):
            layout = following.layout
            if layout is None:  # another thread is about to set it
                return None
            return Recalled(layout, layout.num_samples if count is None else count, tuple(arrays))
        else:
            return None
        node = following
    return None


def remember(
    data: bytes,
    start: int,
    options: object,
    count_at: int | None,
    layout: Any,
) -> None:
    """Keep the structure of a file that was read and found to be without a flaw.

    Args:
        data: the whole file.
        start: offset of the pickle.
        options: all that the reading depended on beside the bytes.
        count_at: offset of the opcode of num_samples, or None where there is none.
        layout: the `UpdateLayout` that was read; `recall` gives it back.
    """
    parameters: tuple[ArrayLayout, ...] = layout.parameters
    holes = _find_holes(data, start, count_at, parameters)
    if holes is None:
        return
    with _lock:
        if _count > _MOST_SEGMENTS:
            forget()
        node = _roots.setdefault(options, _Node())
        for segment in _segments(data, holes, parameters):
            node = _grow(node, segment)
        node.layout = layout


def _grow(node: _Node, segment: _Segment) -> _Node:
    """The node behind this segment, a new one if there is none yet."""
    global _count
    for known, following in node.branches:
        if known == segment:
            return following
    following = _Node()
    _count += 1
    branches = (*node.branches, (segment, following))
    node.branches = tuple(sorted(branches, key=lambda branch: -len(branch[0].text)))
    return following


def _segments(
    data: bytes, holes: _Holes, parameters: tuple[ArrayLayout, ...]
) -> Iterator[_Segment]:
    position = 0
    at_offset = {array.offset: array for array in parameters}
    for offset, width, hole in holes:
        text = data[position:offset]
        position = offset + width
        array = at_offset[position] if hole == "payload" else None
        known = array and (array.dtype, ITEMSIZES[array.dtype], array.order)
        yield _Segment(text, hole, width, known)
        position += array.nbytes if array else 0
    yield _Segment(data[position:], "end", 0, None)


def _find_holes(
    data: bytes, start: int, count_at: int | None, parameters: tuple[ArrayLayout, ...]
) -> _Holes | None:
    """Offset, width and kind of each number; None for a structure that has some out of place."""
    stream = OpcodeStream(BytesSource(data), start, keep_structure=False)
    tokens = list(_to_stop(stream))
    payloads = {array.offset: array for array in parameters if array.nbytes}
    if len(payloads) < len(parameters):  # some are empty, or share their one byte
        return None
    holes: _Holes = []
    shape: _Holes | None = None
    for index, (code, argument, offset) in enumerate(tokens):
        if offset == count_at and code in _INT_WIDTHS:
            holes.append((offset + 1, _INT_WIDTHS[code], "count"))
        elif code == op.EMPTY_LIST:
            shape = None  # what came before is the outer array's own
        elif code == op.MARK:
            shape = _literal_shape(tokens[index + 1 : index + _LONGEST_SHAPE]) or shape
        elif type(argument) is Span and argument.offset in payloads:
            array = payloads.pop(argument.offset)
            if shape is None or len(shape) != len(array.shape) + 1:
                return None
            holes += shape[1:]
            holes.append((offset + 1, _LENGTH_WIDTHS[code], "payload"))
            shape = None
    # Every array has a payload and a shape of its own, and there is one frame around all or none.
    if payloads or stream.frames > 1:
        return None
    if stream.frames:
        if data[start + 2] != op.FRAME or stream.frame_end != len(data):
            return None
        holes.append((start + 3, 8, "frame"))
    return sorted(holes)


def _to_stop(stream: OpcodeStream) -> Iterator[_Token]:
    """The opcodes up to STOP."""
    for token in stream:
        yield token
        if token[0] == op.STOP:
            return


def _literal_shape(tokens: list[_Token]) -> _Holes | None:
    """The dimensions behind the MARK of an array's state, after one hole for the version.

    None where no array's state begins here, or its shape is not written out in plain integers.
    """
    if not tokens or type(tokens[0][1]) is not int or tokens[0][1] != 1:
        return None
    holes: _Holes = [(tokens[0][2] + 1, 0, "dimension")]
    counted = tokens[1:]
    marked = bool(counted) and counted[0][0] == op.MARK
    for code, _, offset in counted[1:] if marked else counted:
        if code in _INT_WIDTHS:
            holes.append((offset + 1, _INT_WIDTHS[code], "dimension"))
        elif code == (op.TUPLE if marked else _TUPLE_OF.get(len(holes) - 1)):
            return holes
        else:
            return None
    return None
