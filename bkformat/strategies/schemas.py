"""Schemas, and updates that fit one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.extra import numpy as npst
from hypothesis.strategies import SearchStrategy

from bkformat.dtypes import ITEMSIZES
from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.load import Update
from bkformat.schema import UpdateSchema
from bkformat.strategies.arguments import check_interval, choice
from bkformat.strategies.arrays import (
    FLOATS,
    MAX_SIDE,
    ORDERS,
    PLAIN,
    Array,
    Elements,
    arrays,
    check_order,
    default_shapes,
    finite_elements,
)
from bkformat.strategies.files import FILE_FORMS, build_file
from bkformat.strategies.updates import COUNTS, MORE_ARRAYS
from bkformat.values import within

__all__ = ["schemas", "updates_for"]

_INT64_MAX = 2**63 - 1
_EXTRA = 512
"""Bytes that one more array, or another count, shape or dtype, adds to a file at the most."""


def updates_for(
    schema: UpdateSchema | SearchStrategy[UpdateSchema],
    *,
    orders: str | Collection[str] | SearchStrategy[str] = ORDERS,
    strict: bool = False,
) -> SearchStrategy[Update]:
    """Updates that fit a schema: so does the file of one, in canonical form or by `np.save`.

    What the schema leaves open is drawn as `updates()` draws it: free dimensions of up to 5
    elements, 0 among them, mostly floats where any dtype may stand. Where the schema has `finite`
    false, NaN and infinities are drawn too. What the schema names gets no warnings.

    Args:
        schema: what is expected, or a strategy for it.
        orders: how elements lie in memory, as for `updates`.
        strict: only what gets no warnings: floats and full arrays where the schema leaves it open.

    Raises:
        InvalidArgument: no update fits the schema; where it is a strategy, when it is drawn.

    >>> updates_for(UpdateSchema.model_validate({"version": 1, "dtypes": []}))
    Traceback (most recent call last):
    hypothesis.errors.InvalidArgument: schema=UpdateSchema(version=1, ...): no dtype is allowed
    """
    drawn_orders = choice(orders, "orders", check_order)
    if isinstance(schema, SearchStrategy):
        return schema.flatmap(partial(updates_for, orders=orders, strict=strict))
    return _fitting(_plan(_check_schema(schema), strict), drawn_orders)


def schemas(*, min_arrays: int = 1, max_arrays: int | None = None) -> SearchStrategy[UpdateSchema]:
    """Schemas that some update fits, so that `updates_for` draws from every one of them.

    Examples shrink towards the schema that asks for nothing.

    Args:
        min_arrays: the least number of arrays where the schema names them, at least 1.
        max_arrays: the greatest; None for 4 more than the least.

    Raises:
        InvalidArgument: the numbers leave nothing between them.
    """
    check_interval(min_arrays, max_arrays, "arrays", floor=1)
    most = min_arrays + MORE_ARRAYS if max_arrays is None else max_arrays
    return _schemas(min_arrays, most)


def _check_schema(schema: Any) -> UpdateSchema:
    if not isinstance(schema, UpdateSchema):
        kind = type(schema).__name__
        raise InvalidArgument(f"Expected UpdateSchema but got schema={schema!r} (type={kind})")
    return schema


# --- what fits -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slot:
    """What may stand in one place of the list.

    Attributes:
        dtypes: names to choose from.
        shape: elements along each axis, None for any number; None for any shape.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...] | None

    @property
    def smallest(self) -> str:
        """The dtype of the fewest bytes."""
        return min(self.dtypes, key=ITEMSIZES.__getitem__)

    def dims(self, side: int) -> tuple[int, ...]:
        """The shape whose free dimensions have `side` elements."""
        return tuple(side if dim is None else dim for dim in self.shape or ())


_Kind = tuple[str, tuple[int, ...]]
"""Dtype and shape of an array."""


@dataclass(frozen=True)
class _Plan:
    """What updates of a schema look like.

    Attributes:
        schema: what is expected.
        slots: the arrays.
        more: how many more may follow, each like the last.
        empty: whether free dimensions may have no elements.
        least: the arrays of a small update; those that are drawn may take more.
        room: bytes that the file of an update may be larger than that of the small one.
    """

    schema: UpdateSchema
    slots: tuple[_Slot, ...]
    more: int
    empty: bool
    least: tuple[_Kind, ...]
    room: float = math.inf

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest num_samples."""
        bounds = self.schema.num_samples
        if bounds is None:
            return 1, MAX_NUM_SAMPLES
        return bounds.min or 1, bounds.max or MAX_NUM_SAMPLES

    def nbytes(self) -> int:
        """Bytes of the small update's file, in the form that makes most of it."""
        arrays = [np.zeros(shape, dtype) for dtype, shape in self.least]
        return _file_nbytes(Update(self.bounds[0], arrays))


def _plan(schema: UpdateSchema, strict: bool) -> _Plan:
    if schema.parameters is not None and not schema.parameters:
        raise InvalidArgument(f"schema={schema!r}: an update has at least one array")
    empty = schema.allows_empty or not strict
    slots = tuple(_slots(schema, strict))
    more = MORE_ARRAYS if schema.parameters is None else 0
    smallest = math.inf
    for least in _small(slots, (1, 0) if empty else (1,)):
        plan = _Plan(schema, slots, more, empty, least)
        if schema.max_nbytes is None:
            return plan
        nbytes = plan.nbytes()
        if nbytes <= schema.max_nbytes:
            return replace(plan, room=schema.max_nbytes - nbytes)
        smallest = min(smallest, nbytes)
    raise InvalidArgument(f"schema={schema!r}: the smallest file found has {smallest:,} bytes")


def _small(slots: Sequence[_Slot], sides: Sequence[int]) -> Iterator[tuple[_Kind, ...]]:
    """Arrays that make a small file, where one dtype for many may take less than the smallest."""
    for side in sides:
        yield tuple((slot.smallest, slot.dims(side)) for slot in slots)
    names = dict.fromkeys(name for slot in slots for name in slot.dtypes)
    for side, name in product(sides, names):
        chosen = (name if name in slot.dtypes else slot.smallest for slot in slots)
        yield tuple((dtype, slot.dims(side)) for dtype, slot in zip(chosen, slots, strict=True))


def _slots(schema: UpdateSchema, strict: bool) -> Iterator[_Slot]:
    free = _free_dtypes(schema, strict)
    if schema.parameters is None:
        if not free:
            raise InvalidArgument(f"schema={schema!r}: no dtype is allowed")
        yield _Slot(free, None)
    for index, spec in enumerate(schema.parameters or ()):
        wanted = free
        if spec.dtype is not None:
            refused = schema.dtypes is not None and spec.dtype not in schema.dtypes
            wanted = () if refused else (spec.dtype,)
        if not wanted:
            raise InvalidArgument(f"schema={schema!r}: no dtype is allowed for parameters[{index}]")
        dims = tuple(dim or 1 for dim in spec.shape or ())
        fitting = tuple(name for name in wanted if _nbytes((name, dims)) <= _INT64_MAX)
        if not fitting:
            raise InvalidArgument(f"schema={schema!r}: parameters[{index}] is past 2**63-1 bytes")
        yield _Slot(fitting, spec.shape)


def _free_dtypes(schema: UpdateSchema, strict: bool) -> tuple[str, ...]:
    """Names for an array whose own dtype the schema leaves open."""
    if schema.dtypes is not None:
        return tuple(schema.dtypes)
    others = PLAIN[len(FLOATS) :]
    if strict:
        others = tuple(name for name in others if name in schema.allowed_dtypes)
    return FLOATS + others


def _dtypes(names: tuple[str, ...]) -> SearchStrategy[str]:
    """One of them, most often a float where there is any."""
    floats = [name for name in names if name in FLOATS]
    some = st.sampled_from(names)
    return st.sampled_from(floats) | some if floats else some


@st.composite
def _fitting(draw: st.DrawFn, plan: _Plan, orders: SearchStrategy[str]) -> Update:
    schema, room = plan.schema, plan.room
    least, most = plan.bounds
    if room < _EXTRA:
        most = least
    counts = COUNTS if (least, most) == (1, MAX_NUM_SAMPLES) else st.integers(least, most)
    count = draw(counts)
    room -= _EXTRA
    parameters: list[Array] = []
    places = list(zip(plan.slots, plan.least, strict=True))
    for slot, small in (*places, *places[-1:] * plan.more):
        if len(parameters) >= len(places) and (room < _EXTRA * 2 or not draw(st.booleans())):
            break
        shapes = _shapes(slot.shape, plan.empty)
        kind = draw(_dtypes(slot.dtypes)), draw(shapes)
        taken = _EXTRA + _nbytes(kind) - _nbytes(small)
        if taken > room or _nonzero_nbytes(kind) > _INT64_MAX:
            kind, taken = small, 0
        room -= taken
        dtype, shape = kind
        one = arrays(st.just(np.dtype(dtype)), st.just(shape), _elements(schema), orders)
        parameters.append(draw(one))
    # Hypothesis shows what it saw being built: the arrays, where repr would only count them.
    update = draw(st.builds(Update, st.just(count), st.just(parameters)))
    assume(schema.max_nbytes is None or _file_nbytes(update) <= schema.max_nbytes)
    return update


def _shapes(shape: tuple[int | None, ...] | None, empty: bool) -> SearchStrategy[tuple[int, ...]]:
    if shape is None:
        return default_shapes(strict=not empty)
    free = st.integers(1, MAX_SIDE)
    if empty:
        free |= st.just(0)
    return st.tuples(*(free if dim is None else st.just(dim) for dim in shape))


def _nbytes(kind: _Kind) -> int:
    dtype, shape = kind
    return prod(shape) * ITEMSIZES[dtype]


def _nonzero_nbytes(kind: _Kind) -> int:
    """Bytes by the rule that leaves out dimensions without elements."""
    dtype, shape = kind
    return _nbytes((dtype, tuple(dim or 1 for dim in shape)))


def _file_nbytes(update: Update) -> int:
    return max(len(build_file(update, form)) for form in FILE_FORMS)


# --- values ----------------------------------------------------------------------------------


def _elements(schema: UpdateSchema) -> Elements:
    if schema.finite and schema.max_abs is None:
        return finite_elements
    return lambda dtype: _bounded_elements(dtype, schema.finite, schema.max_abs)


@lru_cache
def _bounded_elements(
    dtype: np.dtype[Any], finite: bool, max_abs: float | None
) -> SearchStrategy[Any]:
    if dtype.kind == "b" or (dtype.kind in "iu" and max_abs is None):
        return npst.from_dtype(dtype)
    if dtype.kind == "c":  # each part is judged by itself
        part = _bounded_elements(np.dtype(f"float{dtype.itemsize * 4}"), finite, max_abs)
        return st.builds(complex, part, part)
    if max_abs is None:
        return npst.from_dtype(dtype)
    least, greatest = (bound.item() for bound in within(max_abs, dtype))
    bounded = npst.from_dtype(dtype, min_value=least, max_value=greatest)
    return bounded if finite or dtype.kind != "f" else bounded | st.just(dtype.type("nan"))


# --- schemas ---------------------------------------------------------------------------------

_DTYPES = (*FLOATS, *(name for name in ITEMSIZES if name not in FLOATS))
_NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
_SHAPES = st.lists(st.none() | st.integers(0, MAX_SIDE), max_size=4)


@st.composite
def _schemas(draw: st.DrawFn, min_arrays: int, max_arrays: int) -> UpdateSchema:
    some = st.lists(st.sampled_from(_DTYPES), min_size=1, max_size=4, unique=True)
    dtypes = draw(st.none() | some)
    spec = st.fixed_dictionaries(
        {},
        optional={
            "name": _NAMES,
            "dtype": st.sampled_from(dtypes or _DTYPES),
            "shape": _SHAPES,
        },
    )
    specs = st.lists(spec, min_size=min_arrays, max_size=max_arrays)
    fields = {
        "version": 1,
        "num_samples": draw(st.none() | _bounds()),
        "dtypes": dtypes,
        "finite": draw(st.sampled_from([True, False])),
        "max_abs": draw(st.none() | st.floats(0, allow_infinity=False)),
        "parameters": draw(st.none() | specs),
    }
    schema = UpdateSchema.model_validate(fields)
    more = draw(st.none() | st.integers(0, 8 * _EXTRA))
    if more is None:
        return schema
    least = max(_plan(schema, strict).nbytes() for strict in (False, True))
    return schema.model_copy(update={"max_nbytes": least + more})


@st.composite
def _bounds(draw: st.DrawFn) -> dict[str, int | None]:
    least = draw(st.none() | st.integers(1, MAX_NUM_SAMPLES))
    return {"min": least, "max": draw(st.none() | st.integers(least or 1, MAX_NUM_SAMPLES))}
