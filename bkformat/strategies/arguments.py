"""What users pass: a value, several, or a strategy; each is checked, and so is each draw."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.strategies import SearchStrategy

__all__ = ["check_interval", "choice", "value_or_strategy"]

_T = TypeVar("_T")
_Check = Callable[[Any, str], _T]
"""Gives a value as it will be used, or raises InvalidArgument; told the name of the argument."""


def value_or_strategy(argument: Any, name: str, check: _Check[_T]) -> SearchStrategy[_T]:
    """A strategy for an argument; a value is checked now, what a strategy gives when it is drawn.

    Raises:
        InvalidArgument: the value is not what `check` asks for.
    """
    if isinstance(argument, SearchStrategy):
        return argument.map(lambda drawn: check(drawn, name))
    return st.just(check(argument, name))


def choice(argument: Any, name: str, check: _Check[_T]) -> SearchStrategy[_T]:
    """The same for an argument that may be several values, of which one is drawn.

    Raises:
        InvalidArgument: a value is not what `check` asks for, or there is none.
    """
    if isinstance(argument, str) or not isinstance(argument, Collection):
        return value_or_strategy(argument, name, check)
    if not argument:
        raise InvalidArgument(f"{name}={argument!r}: nothing to choose from")
    return st.sampled_from([check(value, name) for value in argument])


def check_interval(least: object, most: object, name: str, *, floor: int) -> None:
    """Refuse min_<name> and max_<name> that are no integers or leave nothing between them.

    Raises:
        InvalidArgument: they are as described; `most` may be None.
    """
    for side, value in (("min", least), ("max", most)):
        if value is None and side == "max":
            continue
        if type(value) is not int:
            raise InvalidArgument(
                f"Expected int but got {side}_{name}={value!r} (type={type(value).__name__})"
            )
        if value < floor:
            raise InvalidArgument(f"Invalid size {side}_{name}={value!r} < {floor}")
    if isinstance(least, int) and isinstance(most, int) and most < least:
        raise InvalidArgument(f"Cannot have max_{name}={most} < min_{name}={least}")
