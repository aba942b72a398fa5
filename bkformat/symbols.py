"""What stands on the symbolic stack: values that say what a pickle would build.

Python's own ints, bools, floats, short texts and None stand for themselves; `Span` for bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bkformat.arrays import ArrayLayout
from bkformat.dtypes import DTypeText

__all__ = [
    "DType",
    "Global",
    "NumpyScalar",
    "ObjectArray",
    "Pair",
    "PendingArray",
    "PyList",
    "PyTuple",
    "describe",
]

Pair = tuple[Any, int]
"""A value and the offset of the opcode that made it."""


class Global(NamedTuple):
    """One of the few names that an update may import; `role` says what for."""

    module: str
    name: str
    role: str


class DType:
    """A dtype, under construction until `name` is set.

    Attributes:
        text: its first argument, such as "f4".
        parsed: what the text means.
        name: numpy's name once its state was read; with ">" before the text if big-endian.
    """

    __slots__ = ("name", "parsed", "text")

    def __init__(self, text: str, parsed: DTypeText) -> None:
        self.text = text
        self.parsed = parsed
        self.name: str | None = None


class PendingArray:
    """An array that `_reconstruct` made; `built` is what BUILD made of it, or None."""

    __slots__ = ("built",)

    def __init__(self) -> None:
        self.built: ArrayLayout | ObjectArray | None = None


class PyTuple:
    """A tuple: its values, how deeply containers nest in it, and where its items were pushed.

    Only a tuple that was opened by MARK, as a state is, knows the offsets of its items.
    """

    __slots__ = ("depth", "offsets", "values")

    def __init__(self, values: tuple[Any, ...], depth: int, offsets: tuple[int, ...] = ()) -> None:
        self.values = values
        self.depth = depth
        self.offsets = offsets


class PyList:
    """A list that is being filled. Nothing else can refer to it, so it never changes once used."""

    __slots__ = ("depth", "pairs")

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.depth = 1


class ObjectArray(NamedTuple):
    """A finished object array: its shape and its items in C order."""

    shape: tuple[int, ...]
    pairs: list[Pair]
    depth: int


class NumpyScalar(NamedTuple):
    """A numpy scalar, such as np.int64(7): its dtype, and where its bytes are."""

    dtype: str
    offset: int
    nbytes: int


_NOUNS: dict[type, str] = {
    ArrayLayout: "an array",
    ObjectArray: "an object array",
    PendingArray: "an unfinished array",
    PyList: "a list",
    PyTuple: "a tuple",
    DType: "a dtype",
    type(None): "None",
}


def describe(value: object) -> str:
    """A few words for messages; never more of a stranger's text than 80 characters."""
    if isinstance(value, NumpyScalar):
        return f"a numpy {value.dtype} scalar"
    if isinstance(value, Global):
        return f"the name {value.module}.{value.name}"
    noun = _NOUNS.get(type(value))
    if noun is None and isinstance(value, (bool, int, float, str)):
        noun = f"the {type(value).__name__} {ascii(value)[:80]}"
    return noun or "bytes"
