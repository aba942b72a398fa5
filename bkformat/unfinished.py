"""What a stream that had to be given up holds so far, for partial layouts and for paths."""

from __future__ import annotations

from typing import Any

from bkformat.symbolic import SymbolicUnpickler
from bkformat.symbols import Global, PendingArray, PyList

__all__ = ["open_lists"]

_BATCH = 1000
"""Items that a pickler adds to a list at once."""


def open_lists(machine: SymbolicUnpickler) -> tuple[list[Any], list[Any], bool]:
    """What an unfinished stream has so far.

    Items of the outer list, items of the parameters, and whether the parameters were begun.
    """
    values = [value for level in (*machine.levels, machine.stack) for value, _ in level]
    lists = [index for index, value in enumerate(values) if type(value) is PyList]
    if not lists:
        return [], [], False
    outer_at = lists[0]
    if len(lists) == 1:
        return _finished([v for v, _ in values[outer_at].pairs] + values[outer_at + 1 :]), [], False
    inner_at = lists[1]
    first = [v for v, _ in values[outer_at].pairs] + values[outer_at + 1 : inner_at]
    inner = values[inner_at]
    items = [v for v, _ in inner.pairs]
    # Only a full batch of items is followed by more that are added without a MARK.
    marked = any(level and level[-1][0] is inner for level in machine.levels)
    if items and len(items) % _BATCH and not marked:
        return _finished(first + values[inner_at:]), items, False
    return _finished(first), _finished(items + values[inner_at + 1 :]), True


def _finished(values: list[Any]) -> list[Any]:
    """The values before the first that is still under construction."""
    for index, value in enumerate(values):
        if type(value) in (PendingArray, Global):
            return values[:index]
    return values
