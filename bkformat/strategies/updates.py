"""Updates and aggregates as the objects that a file gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.strategies import SearchStrategy

from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.load import Update
from bkformat.strategies.arguments import check_interval, choice, value_or_strategy
from bkformat.strategies.arrays import (
    FLOATS,
    ORDERS,
    arrays,
    check_dtype,
    check_order,
    check_shape,
    default_shapes,
    elements_of,
    mostly_floats,
)

__all__ = ["COUNTS", "MORE_ARRAYS", "aggregates", "updates"]

COUNTS: SearchStrategy[int] = st.integers(1, MAX_NUM_SAMPLES)
COUNTS_OR_NONE: SearchStrategy[int | None] = st.none() | COUNTS

MORE_ARRAYS = 4
"""Arrays beyond the least number, where no greatest one is given."""

_DTypes = npt.DTypeLike | Collection[npt.DTypeLike] | SearchStrategy[Any]
_Shapes = int | tuple[int, ...] | SearchStrategy[tuple[int, ...]]
_Elements = Mapping[str, Any] | SearchStrategy[Any]
_Orders = str | Collection[str] | SearchStrategy[str]


def updates(
    *,
    num_samples: int | SearchStrategy[int] = COUNTS,
    min_arrays: int = 1,
    max_arrays: int | None = None,
    dtypes: _DTypes | None = None,
    shapes: _Shapes | None = None,
    elements: _Elements | None = None,
    orders: _Orders = ORDERS,
    strict: bool = False,
) -> SearchStrategy[Update]:
    """Updates that are valid, as a file of them is.

    Arrays are read-only, as those of `load_file` are. What is drawn gets warnings now and then:
    most arrays are of floats, some of integers or bools, and some are empty. `strict=True` leaves
    those out. Examples shrink towards one sample and one float32 0.0 without dimensions.

    Args:
        num_samples: samples behind the update, 1 to 2**53, or a strategy for them.
        min_arrays: the least number of arrays, at least 1.
        max_arrays: the greatest; None for 4 more than the least.
        dtypes: of every array, or several or a strategy to draw each from: floats, integers and
            bools in the byte order of this machine; None for mostly floats.
        shapes: of every array, or a strategy to draw each from, such as
            `hypothesis.extra.numpy.array_shapes(max_dims=32)`; None for up to 4 dimensions of up to
            5 elements, 0-d and empty ones among them.
        elements: a strategy for the values, which the dtypes must be able to hold, or keywords of
            `hypothesis.extra.numpy.from_dtype`, such as `{"min_value": -1, "max_value": 1}`; None
            for any finite ones: subnormal numbers, -0.0 and the largest among them. An update that
            is given NaN by this argument is not valid.
        orders: how elements lie in memory, or several or a strategy to draw each from: "C", "F",
            "strided" (every second element of a larger array), "reversed" (negative strides) or
            "unaligned", as arrays that are mapped from a file of numpy's mostly are.
        strict: only what gets no warnings: arrays of floats, none of them empty.

    Raises:
        InvalidArgument: an argument is none of these; where it is a strategy, when it is drawn.

    >>> updates(min_arrays=3, max_arrays=2)
    Traceback (most recent call last):
    hypothesis.errors.InvalidArgument: Cannot have max_arrays=2 < min_arrays=3
    """
    counts = value_or_strategy(num_samples, "num_samples", _check_count)
    lists = _lists(min_arrays, max_arrays, dtypes, shapes, elements, orders, strict)
    return st.builds(Update, counts, lists)


def aggregates(
    *,
    num_samples: int | SearchStrategy[int | None] | None = COUNTS_OR_NONE,
    min_arrays: int = 1,
    max_arrays: int | None = None,
    dtypes: _DTypes | None = None,
    shapes: _Shapes | None = None,
    elements: _Elements | None = None,
    orders: _Orders = ORDERS,
    strict: bool = False,
) -> SearchStrategy[Update]:
    """What a branch computes from updates: with a count, or arrays alone.

    `update_files(update=aggregates())` draws their files, which are valid with `kind="aggregate"`.

    Args:
        num_samples: as for `updates`; None for an aggregate of arrays alone. Both are drawn unless
            it is given.
        min_arrays: as for `updates`, and so are all others.
        max_arrays: see there.
        dtypes: see there.
        shapes: see there.
        elements: see there.
        orders: see there.
        strict: see there.

    Raises:
        InvalidArgument: as for `updates`.
    """
    counts = value_or_strategy(num_samples, "num_samples", _check_count_or_none)
    lists = _lists(min_arrays, max_arrays, dtypes, shapes, elements, orders, strict)
    return st.builds(Update, counts, lists)


def _lists(
    min_arrays: int,
    max_arrays: int | None,
    dtypes: Any,
    shapes: Any,
    elements: Any,
    orders: Any,
    strict: bool,
) -> SearchStrategy[list[np.ndarray[Any, Any]]]:
    check_interval(min_arrays, max_arrays, "arrays", floor=1)
    if max_arrays is None:
        max_arrays = min_arrays + MORE_ARRAYS

    def dtype_of(value: Any, name: str) -> np.dtype[Any]:
        dtype = check_dtype(value, name)
        if strict and dtype.name not in FLOATS:
            raise InvalidArgument(f"{name}={value!r} gets a warning, but strict=True")
        return dtype

    def shape_of(value: Any, name: str) -> tuple[int, ...]:
        shape = check_shape(value, name)
        if strict and 0 in shape:
            raise InvalidArgument(f"{name}={value!r} gets a warning, but strict=True")
        return shape

    one = arrays(
        mostly_floats(strict=strict) if dtypes is None else choice(dtypes, "dtypes", dtype_of),
        default_shapes(strict=strict)
        if shapes is None
        else value_or_strategy(shapes, "shapes", shape_of),
        elements_of(elements),
        choice(orders, "orders", check_order),
    )
    return st.lists(one, min_size=min_arrays, max_size=max_arrays)


def _check_count(count: Any, name: str) -> int:
    if type(count) is not int:
        message = f"Expected int but got {name}={count!r} (type={type(count).__name__})"
        raise InvalidArgument(message)
    if not 1 <= count <= MAX_NUM_SAMPLES:
        raise InvalidArgument(f"{name}={count!r}: expected 1 to 2**53")
    return count


def _check_count_or_none(count: Any, name: str) -> int | None:
    return None if count is None else _check_count(count, name)
