"""Two files side by side, held against numpy on loaded arrays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bkformat import Diff
from bkformat.diff import diff_sources
from bkformat.pairs import BLOCK
from bkformat.source import BytesSource

from .files import asm

Array = np.ndarray[Any, Any]

_TEXTS = {
    "bool": "b1", "int8": "i1", "uint8": "u1", "int16": "i2", "uint32": "u4", "int64": "i8",
    "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8", "complex64": "c8",
}  # fmt: skip
_SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
_BLOCKS = 16 << 20


def file_of(
    arrays: list[Array], num_samples: int = 7, form: Any = asm.E, order: str = "C"
) -> bytes:
    parts = []
    for array in arrays:
        turned = order == "F" and not np.asfortranarray(array).flags.c_contiguous
        data = array.tobytes("F" if turned else "C")
        flag = asm.TRUE if turned else asm.FALSE
        parts.append(form.array(array.shape, _TEXTS[array.dtype.name], data, fortran=flag))
    return bytes(form.file(form.update(*parts, num_samples=num_samples)).data)


def compare(a: bytes, b: bytes) -> Diff:
    return diff_sources(BytesSource(a), BytesSource(b), "a", "b")


def arrays_of(dtype: str, shape: Any = _SHAPES) -> st.SearchStrategy[Array]:
    return npst.arrays(dtype, shape)


_dtypes = st.sampled_from(sorted(_TEXTS))
_array = _dtypes.flatmap(arrays_of)
_files = st.lists(_array, min_size=1, max_size=4)
_orders = st.sampled_from("CF")
_forms = st.sampled_from([asm.C, asm.D, asm.E])


@given(_files, _forms, _orders, _forms, _orders)
def test_a_file_equals_itself_however_it_is_written(
    arrays: list[Array], form_a: Any, order_a: str, form_b: Any, order_b: str
) -> None:
    a = file_of(arrays, form=form_a, order=order_a)
    found = compare(a, file_of(arrays, form=form_b, order=order_b))
    assert found.equal
    assert found.total.num_different == 0
    assert found.total.norm in (0, None)
    assert found.summary().startswith("unchanged")


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    """Two arrays of one dtype and shape, which have some elements in common."""
    a = draw(_array)
    b = draw(arrays_of(a.dtype.name, a.shape))
    if draw(st.booleans()):
        return a, b
    keep = draw(npst.arrays(bool, a.shape))
    return a, np.where(keep, a, b).astype(a.dtype)


def _bits(array: Array) -> bytes:
    return array.tobytes()


def _expected(a: Array, b: Array) -> dict[str, Any]:
    """What the figures are, by Python's own arithmetic where that is exact."""
    kind = a.dtype.kind
    wide = np.dtype("c16") if kind == "c" else np.dtype("f8")
    with np.errstate(all="ignore"):
        x, y = a.astype(wide).ravel(), b.astype(wide).ravel()
        different = ~((x == y) | (np.isnan(x) & np.isnan(y)))
        if kind in "iu":
            different = (a != b).ravel()
        finite = np.isfinite(x) & np.isfinite(y)
        gap = np.abs(y - x)[finite]
        if kind in "iub":
            gap = np.array([abs(int(q) - int(p)) for p, q in zip(a.flat, b.flat, strict=True)], "O")
        sizes = np.abs(x)[finite]
        ratios = [g / s for g, s in zip(gap, sizes, strict=True) if s]
        told = {
            "num_different": int(different.sum()),
            "max_abs": max(gap) if gap.size else None,
            "max_rel": max(ratios) if ratios else None,
            "nan": (int(np.isnan(x).sum()), int(np.isnan(y).sum())),
            "inf": tuple(int((~np.isfinite(z) & ~np.isnan(z)).sum()) for z in (x, y)),
            "norm_a": np.sqrt(np.square(sizes).sum()) if gap.size else None,
            "norm": np.sqrt(np.square(gap.astype("f8")).sum()) if gap.size else None,
        }
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in told.items()
    }


@given(_pairs(), _orders, _orders)
def test_figures_are_those_of_numpy(pair: tuple[Array, Array], order_a: str, order_b: str) -> None:
    a, b = pair
    (row,) = compare(file_of([a], order=order_a), file_of([b], order=order_b)).arrays
    found, expected = row.change, _expected(a, b)
    assert found is not None
    assert row.equal == (_bits(a) == _bits(b))
    assert found.num_different == expected["num_different"]
    assert (found.nan_a, found.nan_b) == expected["nan"]
    assert (found.inf_a, found.inf_b) == expected["inf"]
    assert found.max_abs == expected["max_abs"]
    close = {"rel": 1e-9, "abs": 1e-150}
    assert found.max_rel == (expected["max_rel"] and pytest.approx(expected["max_rel"], rel=1e-9))
    for name in ("norm", "norm_a"):
        if expected[name] is not None:  # numpy's squares overflow where ours do not
            assert getattr(found, name) == pytest.approx(expected[name], **close)
    assert found.cosine is None or -1 <= found.cosine <= 1


@given(_pairs(), _pairs())
def test_either_way_round(first: tuple[Array, Array], second: tuple[Array, Array]) -> None:
    a, b = (file_of([one, other]) for one, other in zip(first, second, strict=True))
    there, back = compare(a, b), compare(b, a)
    assert there.equal == back.equal
    x, y = there.total, back.total
    assert (x.num_different, x.max_abs, x.identical) == (y.num_different, y.max_abs, y.identical)
    assert (x.nan_a, x.nan_b, x.inf_a, x.inf_b) == (y.nan_b, y.nan_a, y.inf_b, y.inf_a)
    assert (x.norm, x.norm_a, x.norm_b) == (y.norm, y.norm_b, y.norm_a)
    assert x.cosine == y.cosine


_Shape = st.integers(1, 6).map(lambda length: np.zeros(length, "f4"))


@given(st.lists(_Shape, min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_what_was_put_in_is_found(arrays: list[Array], at: list[int]) -> None:
    """Arrays of a shape that no other has."""
    longer = list(arrays)
    for index in sorted(at, reverse=True):
        longer.insert(index, np.ones((2, 3), "f4"))
    positions = [index for index, array in enumerate(longer) if array.ndim == 2]
    found = compare(file_of(arrays), file_of(longer))
    assert [row.b_index for row in found.arrays if row.status == "added"] == positions
    assert sum(row.equal for row in found.arrays) == len(arrays)
    back = compare(file_of(longer), file_of(arrays))
    assert [row.a_index for row in back.arrays if row.status == "removed"] == positions


@given(st.lists(_Shape, min_size=2, max_size=12), st.data())
def test_what_was_taken_out_is_found(arrays: list[Array], data: st.DataObject) -> None:
    """As few as were taken out, and nothing but equal arrays beside them."""
    kept = data.draw(st.lists(st.sampled_from(range(len(arrays))), min_size=1, unique=True))
    assume(len(kept) < len(arrays))
    shorter = [arrays[index] for index in sorted(kept)]
    statuses = [row.status for row in compare(file_of(arrays), file_of(shorter)).arrays]
    assert statuses.count("equal") == len(kept)
    assert statuses.count("removed") == len(arrays) - len(kept)


# --- memory ----------------------------------------------------------------------------------


@lru_cache
def _large(order: str, scale: float) -> bytes:
    array = np.full((3000, 1500), scale, "f4")
    return file_of([array], order=order)


@pytest.fixture
def _tracing() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_tracing")
@pytest.mark.parametrize(("order", "scale"), [("C", 1), ("C", 2), ("F", 1), ("F", 3)])
def test_memory_does_not_grow_with_the_arrays(tmp_path: Path, order: str, scale: float) -> None:
    from bkformat import diff_files

    paths = tmp_path / "a.npy", tmp_path / "b.npy"
    paths[0].write_bytes(_large("C", 1))
    paths[1].write_bytes(_large(order, scale))
    assert paths[0].stat().st_size > _BLOCKS
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    found = diff_files(*paths)
    assert tracemalloc.get_traced_memory()[1] - before < _BLOCKS - (4 << 20)
    assert found.equal == (scale == 1)
    assert found.total.max_abs == scale - 1
    assert found.total.num_elements > 9 * BLOCK
