"""What the strategies draw is what they promise: valid, of a form, fitting, or with one fault."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bkformat import RULES, Update, UpdateSchema, build_update, check_bytes
from bkformat.rules import ERROR
from bkformat.strategies import (
    aggregates,
    faulty_files,
    schemas,
    update_files,
    updates,
    updates_for,
)
from bkformat.strategies.files import build_file
from bkformat.validate import judge, source_of

_T = TypeVar("_T")
Array = np.ndarray[Any, Any]
FORMS = ["canonical", "C", "D", "E"]
CODES = [code for code, rule in RULES.items() if rule.severity == ERROR and code < "BK5"]
"""Every error that a file has by itself: there is none that bytes can't show."""


def loaded(data: bytes) -> tuple[int | None, list[Array]]:
    """What np.load makes of a file; the numpys of forms C, D and E all load by it."""
    outer = np.load(io.BytesIO(data), allow_pickle=True)
    assert outer.dtype == object
    if len(outer) == 2 and type(outer[1]) is list:
        return outer[0], outer[1]
    return None, list(outer)


def same(one: Array, other: Array) -> bool:
    """Whether two arrays agree in every bit."""
    kinds = (one.dtype, one.shape) == (other.dtype, other.shape)
    return kinds and one.tobytes("C") == other.tobytes("C")


def saved(update: Update) -> bytes:
    """The file of an update, by the numpy that is installed."""
    outer = np.empty(2 if update.num_samples is not None else len(update.parameters), object)
    items = update.parameters
    if update.num_samples is not None:
        items = [update.num_samples, update.parameters]
    for index, item in enumerate(items):
        outer[index] = item
    buffer = io.BytesIO()
    np.save(buffer, outer, allow_pickle=True)
    return buffer.getvalue()


def some(strategy: st.SearchStrategy[_T], wanted: Callable[[_T], Any] = lambda _: True) -> _T:
    """An example, as it was drawn: shrinking would take most of the time."""
    generate = settings(phases=[Phase.generate], max_examples=2000)
    return find(strategy, lambda drawn: bool(wanted(drawn)), settings=generate)


# --- updates and their files -----------------------------------------------------------------


@given(updates())
def test_updates_are_valid(update: Update) -> None:
    assert check_bytes(saved(update)).valid
    assert not any(array.flags.writeable for array in update.parameters)


@given(updates(strict=True))
def test_strict_updates_get_no_warnings(update: Update) -> None:
    assert check_bytes(saved(update)).findings == ()


@given(st.data())
def test_files_are_of_the_form_asked_for_and_hold_the_update(data: st.DataObject) -> None:
    update = data.draw(aggregates())
    form = data.draw(st.sampled_from(FORMS))
    file = data.draw(update_files(update=update, forms=form))
    report = check_bytes(file, kind="aggregate")
    assert report.valid, report
    assert report.layout is not None
    assert report.layout.writer == form
    assert check_bytes(file).valid is (update.num_samples is not None)
    count, arrays = loaded(file)
    assert (type(count), count) == (type(update.num_samples), update.num_samples)
    assert all(map(same, arrays, update.parameters))
    assert len(arrays) == len(update.parameters)


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="form E is numpy 2's")
@given(st.data())
def test_form_e_is_what_np_save_writes(data: st.DataObject) -> None:
    update = data.draw(aggregates())
    assert data.draw(update_files(update=update, forms="E")) == saved(update)


@given(st.data())
def test_form_d_is_what_pickle_writes_under_the_old_name(data: st.DataObject) -> None:
    update = data.draw(updates())
    outer = np.empty(2, object)
    outer[:] = update.num_samples, update.parameters
    stream = pickle.dumps(outer, protocol=3)
    file = data.draw(update_files(update=update, forms="D"))
    assert file[128:] == stream.replace(
        b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1
    )


@given(st.data())
def test_form_c_is_form_d_but_for_the_arguments_of_dtypes(data: st.DataObject) -> None:
    # Zeros hold none of the bytes that are replaced.
    update = data.draw(updates(elements=st.just(0)))
    old, new = (data.draw(update_files(update=update, forms=form)) for form in "CD")
    assert new != old == new.replace(b"\x89\x88\x87", b"K\0K\1\x87")


@given(st.data())
def test_canonical_form_is_what_build_update_writes(data: st.DataObject) -> None:
    update = data.draw(updates())
    file = data.draw(update_files(update=update, forms="canonical"))
    assert file == build_update(update.num_samples, update.parameters)


_SIZES = [1, 63, 64, 65, 250, 255, 256, 65_530, 65_531, 65_535, 65_536, 65_537, 70_000]


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="form E is numpy 2's")
@given(st.data())
@settings(max_examples=40)
def test_frames_memo_and_batches_lie_where_np_save_lays_them(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.sampled_from(_SIZES), min_size=1, max_size=6))
    small = data.draw(st.sampled_from([0, 1, 2, 300, 998, 999, 1000, 2001]))
    arrays = [np.zeros(size, "int8") for size in sizes]
    arrays += [np.zeros((2, 3), "float32", order="F") for _ in range(small)]
    update = Update(2**40, arrays)
    assert data.draw(update_files(update=update, forms="E")) == saved(update)


def test_examples_of_every_kind_are_drawn() -> None:
    def drawn(wanted: Callable[[Array], Any]) -> bool:
        found = some(updates(), lambda update: any(map(wanted, update.parameters)))
        return found is not None

    assert drawn(lambda array: array.ndim == 0)
    assert drawn(lambda array: array.size == 0)
    assert drawn(lambda array: array.flags.f_contiguous and not array.flags.c_contiguous)
    assert drawn(lambda array: min(array.strides, default=0) < 0)
    assert drawn(lambda array: not array.flags.aligned)
    assert drawn(lambda array: array.ndim and array.size and array.base is not None)
    assert drawn(lambda array: array.dtype.kind in "iu")
    assert drawn(lambda array: array.dtype == bool)
    tiny = np.finfo("float32").tiny
    assert drawn(lambda a: a.dtype.kind == "f" and ((a != 0) & (np.abs(a) < tiny)).any())
    assert drawn(lambda a: a.dtype.kind == "f" and (np.signbit(a) & (a == 0)).any())
    assert drawn(lambda a: a.dtype == "float32" and (np.abs(a) > 1e38).any())


def test_examples_shrink() -> None:
    update = find(updates(), lambda _: True)
    assert update.num_samples == 1
    assert [same(array, np.zeros((), "float32")) for array in update.parameters] == [True]
    small = find(update_files(), lambda _: True)
    assert len(small) < 400
    report = check_bytes(small)
    assert report.layout is not None
    assert (report.layout.num_samples, len(report.layout.parameters)) == (1, 1)


@given(updates(elements={"min_value": -1, "max_value": 1}, dtypes=("float32", "int8")))
def test_elements_may_be_keywords(update: Update) -> None:
    for array in update.parameters:
        assert array.dtype.name in ("float32", "int8")
        assert (np.abs(array) <= 1).all()


@given(
    updates(
        num_samples=7,
        min_arrays=2,
        max_arrays=2,
        dtypes=np.float64,
        shapes=npst.array_shapes(min_dims=2, max_dims=2, max_side=2),
        elements=st.floats(0, 1),
        orders="F",
    )
)
def test_arguments_are_heeded(update: Update) -> None:
    assert update.num_samples == 7
    assert len(update.parameters) == 2
    for array in update.parameters:
        assert (array.dtype, array.ndim) == (np.float64, 2)
        assert array.flags.f_contiguous
        assert ((array >= 0) & (array <= 1)).all()


# --- schemas ---------------------------------------------------------------------------------


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_updates_for_a_schema_fit_it(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    strict = data.draw(st.booleans())
    update = data.draw(updates_for(schema, strict=strict))
    file = data.draw(update_files(update=update))
    report = check_bytes(file, schema=schema)
    assert report.valid, report
    if strict:
        assert report.findings == ()


def schema_of(**keys: Any) -> UpdateSchema:
    return UpdateSchema.model_validate({"version": 1, **keys})


_NAMED = schema_of(
    num_samples={"min": 10, "max": 20},
    dtypes=["int64", "complex64", "float16", "bool"],
    max_abs=100.5,
    parameters=[
        {"dtype": "int64", "shape": []},
        {"dtype": "complex64", "shape": [None]},
        {"shape": [0, None]},
        {"dtype": "bool"},
    ],
)


@given(update_files(update=updates_for(_NAMED)))
def test_what_a_schema_names_gets_no_warnings(data: bytes) -> None:
    assert check_bytes(data, schema=_NAMED).findings == ()


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000])
def test_files_keep_to_max_nbytes(room: int) -> None:
    specs = [{"dtype": "float32", "shape": [None, 100]}, {"shape": [None]}]
    least = Update(1, [np.zeros((0, 100), "float32"), np.zeros(0, "float16")])
    nbytes = max(len(build_file(least, form)) for form in FORMS)
    schema = schema_of(parameters=specs, max_nbytes=nbytes + room)

    @given(update_files(update=updates_for(schema)))
    @settings(max_examples=20)
    def keeps_to_it(data: bytes) -> None:
        assert check_bytes(data, schema=schema).valid

    keeps_to_it()


def test_infinite_values_are_drawn_where_a_schema_allows_them() -> None:
    def has_infinity(update: Update) -> bool:
        return any(np.isinf(array).any() for array in update.parameters)

    anything = schema_of(finite=False, parameters=[{"dtype": "float32", "shape": [2]}])
    assert some(updates_for(anything), has_infinity)
    bounded = anything.model_copy(update={"max_abs": 1.0})
    nan = some(updates_for(bounded), lambda update: np.isnan(update.parameters[0]).any())
    assert not has_infinity(nan)


def test_every_key_of_a_schema_is_drawn() -> None:
    for key in ("num_samples", "dtypes", "max_abs", "max_nbytes", "parameters"):
        assert some(schemas(), lambda schema, key=key: getattr(schema, key) is not None)
    assert some(schemas(), lambda schema: not schema.finite)
    two = some(schemas(min_arrays=2, max_arrays=2), lambda schema: schema.parameters is not None)
    assert two.parameters is not None
    assert len(two.parameters) == 2
    assert find(schemas(), lambda _: True) == schema_of()


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_faulty_files_break_one_rule_alone(code: str) -> None:
    @given(faulty_files(codes=code))
    @settings(max_examples=10)
    def breaks_it(drawn: tuple[bytes, str]) -> None:
        data, expected = drawn
        assert expected == code
        for report in (check_bytes(data), judge(source_of(data), fast=False).report):
            assert [found.code for found in report.findings] == [code]

    breaks_it()


@given(faulty_files())
def test_any_faulty_file_is_refused_for_what_it_says(drawn: tuple[bytes, str]) -> None:
    data, code = drawn
    assert [found.code for found in check_bytes(data).findings] == [code]


@given(faulty_files(codes=st.sampled_from(["BK101", "BK311"])))
def test_codes_may_be_a_strategy(drawn: tuple[bytes, str]) -> None:
    assert drawn[1] in ("BK101", "BK311")


@pytest.mark.parametrize("code", ["BK211", "BK311"])
def test_faulty_files_shrink(code: str) -> None:
    data, _ = find(faulty_files(codes=code), lambda _: True)
    assert len(data) < 400


def test_faults_are_of_any_form_and_stand_anywhere() -> None:
    def offset(data: bytes) -> int:
        return check_bytes(data).findings[0].offset or 0

    for code in ("BK203", "BK318", "BK401"):
        assert some(faulty_files(codes=code), lambda drawn: offset(drawn[0]) < 400)
        assert some(faulty_files(codes=code), lambda drawn: offset(drawn[0]) > 450)
    for protocol in (3, 4):
        files = faulty_files(codes="BK316")
        assert some(files, lambda drawn, number=protocol: drawn[0][129] == number)
