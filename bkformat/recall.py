"""Small files of a structure that was read before are recognised instead of read again.

A site sends the same model every round, and an aggregator gets it from every site. So the opcodes
of a file that was found valid are kept as a template, in which only numbers are left open:

    num_samples; each dimension; the length of each payload; the length of the one frame

A file that agrees with a template in every other byte runs the same opcodes, so it has the same
layout with its own numbers: each payload must be as long as its dimensions say, the frame must end
with the file, and nothing may be left over. Whatever does not fit is read from its first byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Literal, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.source import BytesSource
from bkformat.stream import OpcodeStream, Span, op

__all__ = ["MAX_NBYTES", "Recalled", "forget", "recall", "remember"]

MAX_NBYTES = 1 << 16
"""Files past this size are read, which then costs less than looking at their values."""

_MOST_TEMPLATES = 8

Hole = Literal["count", "dimension", "payload", "frame", "end"]

_INT_WIDTHS = {op.BININT1: 1, op.BININT2: 2, op.BININT: 4}
_LENGTH_WIDTHS = {op.SHORT_BINBYTES: 1, op.BINBYTES: 4, op.BINBYTES8: 8}
_TUPLE_OF = {0: op.EMPTY_TUPLE, 1: op.TUPLE1, 2: op.TUPLE2, 3: op.TUPLE3}
_LONGEST_SHAPE = 40


class _Segment(NamedTuple):
    """Bytes that must be there, and the number that follows them."""

    text: bytes
    hole: Hole
    width: int


class _Template(NamedTuple):
    """A structure: its segments, and dtype, item size and order of each array."""

    segments: tuple[_Segment, ...]
    arrays: tuple[tuple[str, int, Literal["C", "F"]], ...]
    layout: Any


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


_templates: dict[object, tuple[_Template, ...]] = {}


def forget() -> None:
    """Drop every template."""
    _templates.clear()


def recall(data: bytes, options: object) -> Recalled | None:
    """What a file says whose structure is known; None where it must be read.

    Args:
        data: the whole file.
        options: all that the reading depends on beside the bytes.
    """
    for template in reversed(_templates.get(options, ())):
        found = _fit(data, template)
        if found is not None:
            return found
    return None


def _fit(data: bytes, template: _Template) -> Recalled | None:
    position = 0
    count = template.layout.num_samples
    dims: list[int] = []
    arrays: list[ArrayLayout] = []
    for text, hole, width in template.segments:
        if not data.startswith(text, position):
            return None
        position += len(text)
        number = int.from_bytes(data[position : position + width], "little")
        position += width
        if hole == "dimension":
            if not number or number >> 31:
                return None
            dims.append(number)
        elif hole == "payload":
            dtype, itemsize, order = template.arrays[len(arrays)]
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
    return Recalled(template.layout, count, tuple(arrays)) if position == len(data) else None


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
    segments = []
    position = 0
    nbytes = {array.offset: array.nbytes for array in parameters}
    for offset, width, hole in holes:
        segments.append(_Segment(data[position:offset], hole, width))
        position = offset + width
        if hole == "payload":
            position += nbytes[position]
    segments.append(_Segment(data[position:], "end", 0))
    arrays = tuple((a.dtype, ITEMSIZES[a.dtype], a.order) for a in parameters)
    template = _Template(tuple(segments), arrays, layout)
    _templates[options] = (*_templates.get(options, ())[1 - _MOST_TEMPLATES :], template)


_Token = tuple[int, Any, int]
_Holes = list[tuple[int, int, Hole]]


def _find_holes(
    data: bytes, start: int, count_at: int | None, parameters: tuple[ArrayLayout, ...]
) -> _Holes | None:
    """Offset, width and kind of each number; None for a structure that has some out of place."""
    stream = OpcodeStream(BytesSource(data), start, keep_structure=False)
    tokens = list(_to_stop(stream))
    payloads = {array.offset: array for array in parameters if array.nbytes}
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
    if payloads or not all(array.nbytes for array in parameters) or stream.frames > 1:
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
