"""Faults of the layout and the values: BK3xx and BK4xx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np
from hypothesis import strategies as st

from bkformat import assembler as asm
from bkformat.assembler import breaches
from bkformat.load import Update
from bkformat.strategies.bases import SMALL, Base, Fault, draw_base, fault
from bkformat.strategies.files import FILE_FORMS, build_file

__all__: list[str] = []

_Place = Callable[[Base, asm.Part], bytes]
_Breaches = Callable[[asm.Form], Iterator[breaches.Breach]]


def _in_place(code: str, listed: _Breaches, place: _Place) -> Fault:
    """Put one of the parts that break this rule in that place of a file."""

    def draw_file(draw: st.DrawFn) -> bytes:
        base = draw_base(draw)
        parts = [part for found, _, part in listed(base.form) if found == code]
        return place(base, parts[draw(st.integers(0, len(parts) - 1))])

    return draw_file


for _listed, _place in (
    (breaches.roots, Base.file),
    (breaches.counts, Base.with_count),
    (breaches.parameters, Base.with_parameters),
    (breaches.items, Base.with_items),
):
    for _code in sorted({code for code, _, _ in _listed(asm.D)}):
        fault(_code)(_in_place(_code, _listed, _place))


# --- the outer array -------------------------------------------------------------------------


def _outer(base: Base, shape: tuple[int, ...], *items: asm.Part) -> bytes:
    """An object array of this shape, and a header that agrees."""
    return base.file(base.form.outer(asm.list_of(*items), shape), repr(shape))


@fault("BK302")
def _outer_shape(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    count, arrays = asm.integer(base.num_samples), base.parameters
    shape = draw(st.sampled_from([(2, 1), (1, 2), (1,), (3,), ()]))
    items = {0: [asm.list_of(count, arrays)], 2: [count, arrays]}.get(len(shape))
    if items is None:
        items = [arrays] if shape == (1,) else [count, arrays, draw(_THIRD)]
    return _outer(base, shape, *items)


_THIRD = st.sampled_from([asm.NONE, asm.TRUE, asm.EMPTY_LIST, asm.integer(0)])


@fault("BK302")
def _flat(draw: st.DrawFn) -> bytes:
    """The arrays not in a list, but beside the count."""
    base = draw_base(draw)
    items = [asm.integer(base.num_samples), *base.arrays, base.form.array()]
    return _outer(base, (len(items),), *items)


@fault("BK303")
def _header_shape(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    shapes = st.lists(st.integers(0, 2**63 - 1), max_size=4).map(tuple)
    shape = draw(shapes.filter(lambda dims: dims != (2,)))
    return base.file(base.root, repr(shape))


@fault("BK304")
def _array_alone(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return base.file(base.arrays[0])


@fault("BK305")
def _arrays_alone(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return _outer(base, (len(base.arrays),), *base.arrays)


# --- num_samples and the list ----------------------------------------------------------------


@fault("BK306")
def _count_is_text(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return base.with_count(base.form.text(str(base.num_samples)))


@fault("BK306")
def _count_second(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return _outer(base, (2,), base.parameters, asm.integer(base.num_samples))


@fault("BK308")
def _count_is_float(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return base.with_count(asm.real(draw(st.just(float(base.num_samples)) | st.floats())))


@fault("BK310")
def _count_is_array(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return base.with_count(base.arrays[0])


@fault("BK311")
def _count_out_of_range(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    small, large = st.integers(-(2**63), 0), st.integers(2**53 + 1, 2**63 - 1)
    return base.with_count(asm.integer(draw(small | large)))


@fault("BK312")
def _tuple(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return base.with_parameters(asm.tuple_of(*base.arrays))


@fault("BK313")
def _dict(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    names = [base.form.text(f"layer{at}") for at in range(len(base.arrays))]
    pairs = [part for pair in zip(names, base.arrays, strict=True) for part in pair]
    found = [asm.EMPTY_DICT, asm.MARK, *pairs, asm.SETITEMS]
    return base.with_parameters(found) if draw(st.booleans()) else base.with_items(found)


@fault("BK316")
def _number(draw: st.DrawFn) -> bytes:
    number = st.integers(-(2**63), 2**63 - 1).map(asm.integer) | st.floats().map(asm.real)
    return draw_base(draw).with_items(draw(number))


# --- arrays ----------------------------------------------------------------------------------


@fault("BK319")
def _same_object(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    tied = base.form.array(draw(_SHAPES), key="tied")
    return base._replace(arrays=[tied, *base.arrays]).with_items(tied)


@fault("BK320")
def _same_bytes(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    shape = draw(_SHAPES)
    body = asm.Memo(asm.payload(asm.ramp("f4", prod(shape))), "payload")
    first, second = (base.form.array(dims, body=body) for dims in (shape, (1, *shape)))
    return base._replace(arrays=[first, *base.arrays]).with_items(second)


_SHAPES = st.lists(st.integers(1, 4), max_size=3)


@fault("BK321")
def _payload_size(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    right = 4 * prod(shape)
    nbytes = draw(st.integers(0, 2 * right + 8).filter(lambda wrong: wrong != right))
    return base.with_items(base.form.array(shape, body=asm.payload(bytes(nbytes))))


@fault("BK322")
def _dimensions(draw: st.DrawFn) -> bytes:
    ones = [1] * draw(st.integers(33, 70))
    base = draw_base(draw)
    return base.with_items(base.form.array(ones))


@fault("BK323")
def _dimension(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    wrong = [part for _, _, part in breaches.dimensions(base.form)]
    dims: list[asm.Part] = [asm.integer(dim) for dim in draw(_SHAPES)]
    negative = st.integers(-(2**63), -1).map(asm.integer)
    part = draw(negative | st.integers(0, len(wrong) - 1).map(wrong.__getitem__))
    dims.insert(draw(st.integers(0, len(dims))), part)
    return base.with_items(base.form.array(dims=asm.tuple_of(*dims)))


@fault("BK324")
def _overflow(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    large = st.integers(2**31, 2**63 - 1)
    dims = [draw(large), draw(large), *draw(st.lists(st.integers(0, 3), max_size=2))]
    dims = draw(st.permutations(dims))
    return base.with_items(base.form.array(dims, body=asm.payload(b"")))


@fault("BK327")
def _flag(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    flat = draw(st.lists(st.integers(1, 4), max_size=1))
    return base.with_items(base.form.array(flat, fortran=asm.TRUE))


@fault("BK330")
def _built_again(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    alias = base.form.array(draw(_SHAPES), key="alias")
    again = [alias, asm.tuple_of(asm.NONE), asm.BUILD]
    return base._replace(arrays=[alias, *base.arrays]).with_items(again)


@fault("BK331")
def _big_endian(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    text = draw(st.sampled_from(["f4", "f8", "f2", "i4", "i8", "u2"]))
    dtype = base.form.dtype(text, order=base.form.order(">"))
    return base.with_items(base.form.array(draw(_SHAPES), text, dtype=dtype))


def _sized(kind: str, unit: int) -> Fault:
    def draw_file(draw: st.DrawFn) -> bytes:
        base = draw_base(draw)
        length, shape = draw(st.integers(1, 20)), draw(_SHAPES)
        dtype = breaches.sized_dtype(base.form, kind, length)
        body = asm.payload(bytes(prod(shape) * length * unit))
        return base.with_items(base.form.array(shape, dtype=dtype, body=body))

    return draw_file


for _code, _kind, _unit in (("BK334", "V", 1), ("BK335", "S", 1), ("BK335", "U", 4)):
    fault(_code)(_sized(_kind, _unit))


# --- values ----------------------------------------------------------------------------------


def _values(*bad: float) -> Fault:
    def draw_file(draw: st.DrawFn) -> bytes:
        update: Update = draw(SMALL)
        which = draw(st.integers(0, len(update.parameters) - 1))
        array = np.array(update.parameters[which])
        places = st.integers(0, array.size - 1)
        for at in draw(st.lists(places, min_size=1, max_size=3)):
            array.flat[at] = draw(st.sampled_from(bad))
        update.parameters[which] = array
        return build_file(update, draw(st.sampled_from(FILE_FORMS)))

    return draw_file


fault("BK401")(_values(np.nan, -np.nan))
fault("BK402")(_values(np.inf, -np.inf))
