"""Arrays: their dtypes, shapes and values, and how they lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.extra import numpy as npst
from hypothesis.strategies import SearchStrategy

from bkformat.arrays import MAX_DIMENSIONS
from bkformat.dtypes import ITEMSIZES, refusal

__all__ = [
    "FLOATS",
    "MAX_SIDE",
    "ORDERS",
    "PLAIN",
    "Array",
    "Elements",
    "arrays",
    "check_dtype",
    "check_order",
    "check_shape",
    "default_shapes",
    "elements_of",
    "finite_elements",
    "mostly_floats",
]

Array = np.ndarray[Any, Any]
Elements = Callable[[np.dtype[Any]], SearchStrategy[Any]]

FLOATS = ("float32", "float64", "float16")
PLAIN = (*FLOATS, *(name for name in ITEMSIZES if name not in FLOATS and refusal(name) is None))
"""Names of the dtypes that every update may hold, the simplest first."""

MAX_SIDE = 5
"""Elements along one axis, where nothing else is asked for."""


# --- memory ----------------------------------------------------------------------------------


def _along_each_axis(values: Array, step: int) -> Array:
    index: tuple[Any, ...] = (Ellipsis, *[slice(None, None, step)] * values.ndim)
    view: Array = values[index]
    return view


def _strided(values: Array) -> Array:
    """Every second element of a larger array along each axis."""
    large = np.ones([2 * side for side in values.shape], values.dtype)
    view = _along_each_axis(large, 2)
    view[...] = values
    return view


def _reversed(values: Array) -> Array:
    return _along_each_axis(_along_each_axis(values, -1).copy(), -1)


def _unaligned(values: Array) -> Array:
    raw = np.empty(values.nbytes + 1, np.uint8)
    view: Array = raw[1:].view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


_LAID: dict[str, Callable[[Array], Array]] = {
    "C": lambda values: values,
    "F": lambda values: np.array(values, order="F"),
    "strided": _strided,
    "reversed": _reversed,
    "unaligned": _unaligned,
}

ORDERS = tuple(_LAID)
"""How elements may lie: as they are pickled ("C", "F"), as views do, and as mapped files do."""


# --- what users pass -------------------------------------------------------------------------


def check_order(order: Any, name: str) -> str:
    if order not in ORDERS:
        raise InvalidArgument(f"{name}={order!r}: expected one of {', '.join(ORDERS)}")
    return str(order)


def check_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """Numpy's own dtype, of those that an update may hold whatever its receiver expects."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument(f"{name}={dtype!r}: no dtype") from exc
    if found.name not in PLAIN or found != np.dtype(found.name):
        raise InvalidArgument(f"{name}={dtype!r}: expected one of {', '.join(PLAIN)}")
    return found


def check_shape(shape: Any, name: str) -> tuple[int, ...]:
    dims = (shape,) if isinstance(shape, (int, np.integer)) else shape
    if not isinstance(dims, (tuple, list)) or len(dims) > MAX_DIMENSIONS:
        message = f"{name}={shape!r}: expected a tuple of at most {MAX_DIMENSIONS} integers"
        raise InvalidArgument(message)
    for dim in dims:
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 0:
            raise InvalidArgument(f"{name}={shape!r}: {dim!r} is no dimension")
    return tuple(int(dim) for dim in dims)


def elements_of(elements: Any) -> Elements:
    """A strategy for the values of each dtype.

    Args:
        elements: a strategy for all of them, keywords of `hypothesis.extra.numpy.from_dtype`, or
            None.

    Raises:
        InvalidArgument: it is something else.
    """
    if elements is None:
        return finite_elements
    if isinstance(elements, SearchStrategy):
        return lambda dtype: elements
    if isinstance(elements, Mapping):
        keywords = {"allow_nan": False, "allow_infinity": False, **elements}
        return lambda dtype: npst.from_dtype(dtype, **keywords)
    raise InvalidArgument(
        f"Expected a strategy or a mapping but got elements={elements!r} "
        f"(type={type(elements).__name__})"
    )


@lru_cache
def finite_elements(dtype: np.dtype[Any]) -> SearchStrategy[Any]:
    return npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)


# --- strategies ------------------------------------------------------------------------------


def mostly_floats(*, strict: bool) -> SearchStrategy[np.dtype[Any]]:
    floats = st.sampled_from([np.dtype(name) for name in FLOATS])
    if strict:
        return floats
    others = st.sampled_from([np.dtype(name) for name in PLAIN[len(FLOATS) :]])
    return floats | st.sampled_from([np.dtype("float32"), np.dtype("float64")]) | others


def default_shapes(*, strict: bool) -> SearchStrategy[tuple[int, ...]]:
    """Few dimensions of few elements, sometimes none; empty ones too, but where strict."""
    full = npst.array_shapes(min_dims=0, max_dims=4, max_side=MAX_SIDE)
    if strict:
        return full
    flat = npst.array_shapes(min_dims=0, max_dims=2, max_side=MAX_SIDE)
    return full | flat | npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=MAX_SIDE)


@st.composite
def arrays(
    draw: st.DrawFn,
    dtypes: SearchStrategy[np.dtype[Any]],
    shapes: SearchStrategy[tuple[int, ...]],
    elements: Elements,
    orders: SearchStrategy[str],
) -> Array:
    """One array, read-only as those of a file are."""
    dtype, shape = draw(dtypes), draw(shapes)
    values = draw(npst.arrays(dtype, shape, elements=elements(dtype)))
    laid = _LAID[draw(orders)](values)
    laid.flags.writeable = False
    return laid
