"""The dtypes that numpy pickles, by their text; what each is called and why some are refused.

text   name      bytes   order
b1     bool      1       |
f4     float32   4       <  (> is big-endian, refused)
O8     object    -       |  (only the outer array)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bkformat import rules
from bkformat.rules import Rule

__all__ = ["COMPLEX_DTYPES", "ITEMSIZES", "TEXTS", "DTypeText", "parse_dtype", "refusal"]

_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_PLAIN = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
_LONG_DOUBLES = {"f12": "float96", "f16": "float128", "c24": "complex192", "c32": "complex256"}
_SIZED = re.compile(r"[SUV][0-9]{1,10}")

COMPLEX_DTYPES = frozenset({"complex64", "complex128"})


class DTypeText(NamedTuple):
    """What the first argument of a pickled dtype means.

    Attributes:
        name: numpy's name, such as "float32"; the text itself where it has no fixed name.
        itemsize: bytes of one element.
    """

    name: str
    itemsize: int


def _plain(text: str) -> DTypeText:
    size = int(text[1:])
    return DTypeText("bool" if text == "b1" else f"{_KINDS[text[0]]}{size * 8}", size)


_KNOWN = {text: _plain(text) for text in _PLAIN}
_KNOWN.update({text: DTypeText(name, int(text[1:])) for text, name in _LONG_DOUBLES.items()})
_KNOWN["M8"] = DTypeText("datetime64", 8)
_KNOWN["m8"] = DTypeText("timedelta64", 8)
_KNOWN["O8"] = DTypeText("object", 8)
_KNOWN["O4"] = DTypeText("object", 8)  # 32-bit writers; loads as O8

ITEMSIZES: dict[str, int] = {_KNOWN[text].name: _KNOWN[text].itemsize for text in _PLAIN}
"""Bytes of one element for every dtype that may be in an update, by its name."""

TEXTS: dict[str, str] = {_KNOWN[text].name: text for text in _PLAIN}
"""The text that numpy pickles for each of them."""

_REFUSED: dict[str, Rule] = {
    "complex64": rules.COMPLEX,
    "complex128": rules.COMPLEX,
    **dict.fromkeys(_LONG_DOUBLES.values(), rules.LONG_DOUBLE),
    "datetime64": rules.DATETIME,
    "timedelta64": rules.DATETIME,
    "object": rules.OBJECT_DTYPE,
}
_REFUSED_BY_FIRST = {
    ">": rules.BIG_ENDIAN,
    "S": rules.TEXT_DTYPE,
    "U": rules.TEXT_DTYPE,
    "V": rules.VOID,
}


def parse_dtype(text: str) -> DTypeText | None:
    """The dtype that `text` names, or None where numpy writes no such text."""
    known = _KNOWN.get(text)
    if known is None and _SIZED.fullmatch(text):
        size = int(text[1:])
        return DTypeText(text, size * 4 if text[0] == "U" else size)
    return known


def refusal(name: str) -> Rule | None:
    """The rule that keeps an array of this dtype out of an update; None where it may be in."""
    return _REFUSED.get(name) or _REFUSED_BY_FIRST.get(name[0])
