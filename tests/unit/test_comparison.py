"""A layout beside a schema: every mismatch, and what it most likely means."""

from __future__ import annotations

from typing import Any

import pytest

from bkformat import ArrayLayout, Finding, UpdateLayout, UpdateSchema
from bkformat.comparison import compare_layout

Spec = tuple[str | None, tuple[int | None, ...] | None]


def layout(*arrays: tuple[str, tuple[int, ...]], count: int | None = 7) -> UpdateLayout:
    parameters = tuple(
        ArrayLayout(dtype, shape, "C", 1000 + at, 4) for at, (dtype, shape) in enumerate(arrays)
    )
    return UpdateLayout("update", count, parameters, 5000, 4, "E", ">=1.26.1")


def compared(
    arrays: list[tuple[str, tuple[int, ...]]], specs: list[Spec] | None, **fields: Any
) -> list[Finding]:
    parameters = None
    if specs is not None:
        parameters = [{"dtype": dtype, "shape": shape} for dtype, shape in specs]
    schema = UpdateSchema.model_validate({"version": 1, "parameters": parameters, **fields})
    return compare_layout(layout(*arrays), schema)


def f4(*shape: int) -> tuple[str, tuple[int, ...]]:
    return "float32", shape


_A, _B, _C, _D = f4(2), f4(3, 4), f4(5), ("float64", (6,))


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in found]


def hints(found: list[Finding]) -> set[str | None]:
    """The hints; what explains all mismatches at once is said with the first alone."""
    first, *others = found
    if all(finding.hint is None for finding in others):
        return {first.hint}
    return {finding.hint for finding in found}


@pytest.mark.parametrize(
    "specs",
    [
        None,
        [_A, _B, _C],
        [(None, (2,)), ("float32", None), (None, None)],
        [_A, ("float32", (None, 4)), ("float32", (None,))],
    ],
)
def test_what_fits(specs: list[Spec] | None) -> None:
    assert compared([_A, _B, _C], specs) == []


def test_shapes_are_compared_exactly() -> None:
    """Never by broadcasting: (3,) and (3, 1) would average to (3, 3)."""
    for shape in ((3, 1), (1, 3), (), (1,), (0,)):
        (found,) = compared([f4(3)], [("float32", shape)])
        assert (found.code, found.where, found.offset) == ("BK503", "parameters[0].shape", 1000)
    for shape in ((1,), (3, 1), (1, 3), ()):
        (found,) = compared([f4(*shape)], [("float32", (3,))])
        assert found.code == "BK503"
    (found,) = compared([f4(3, 4)], [("float32", (None, 5))])
    assert "(3, 4), expected (?, 5)" in found.message


def test_dtypes() -> None:
    (found,) = compared([f4(3)], [("float64", (3,))])
    assert (found.code, found.where, found.offset) == ("BK502", "parameters[0].dtype", 1000)
    assert found.hint == "convert it: x.astype('float64')"
    found_two = compared([f4(3), f4(4)], [("float64", (9,)), f4(4)])
    assert told(found_two) == [("BK502", "parameters[0].dtype"), ("BK503", "parameters[0].shape")]


def test_allowed_dtypes() -> None:
    found = compared([_A, _D, _B], None, dtypes=["float32"])
    assert told(found) == [("BK505", "parameters[1].dtype")]
    assert "float64, the schema allows float32" in found[0].message
    assert len(compared([_A, _D], None, dtypes=[])) == 2


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"min": 7, "max": 7}, []),
        ({"min": 8}, [("BK504", "num_samples")]),
        ({"max": 6}, [("BK504", "num_samples")]),
        ({}, []),
    ],
)
def test_bounds_of_the_count(bounds: dict[str, int], found: list[tuple[str, str]]) -> None:
    assert told(compared([_A], None, num_samples=bounds)) == found


def test_an_aggregate_without_a_count_has_no_bounds() -> None:
    schema = UpdateSchema.model_validate({"version": 1, "num_samples": {"min": 9}})
    assert compare_layout(layout(_A, count=None), schema) == []


def test_size_of_the_file() -> None:
    assert compared([_A], None, max_nbytes=5000) == []
    assert told(compared([_A], None, max_nbytes=4999)) == [("BK507", "")]


def test_names_are_shown_and_escaped() -> None:
    schema = UpdateSchema.model_validate(
        {"version": 1, "parameters": [{"name": "w\x1b\u00e9", "shape": [3]}]}
    )
    (found,) = compare_layout(layout(_A), schema)
    assert r"('w\x1b\xe9')" in found.message


# --- hints -----------------------------------------------------------------------------------


def test_one_is_missing() -> None:
    for gap in range(3):
        have = [_A, _B, _C]
        del have[gap]
        found = compared(have, [_A, _B, _C])
        assert found[0].code == "BK501"
        assert "2 arrays, expected 3" in found[0].message
        (hint,) = hints(found)
        assert hint is not None
        assert hint.startswith(f"parameters[{gap}] is missing")
        if gap < 2:
            assert f"from parameters[{gap}] on, everything matches when shifted by one" in hint


def test_one_too_many() -> None:
    for at in range(4):
        have = [_A, _B, _C]
        have.insert(at, _D)
        (hint,) = hints(compared(have, [_A, _B, _C]))
        assert hint is not None
        assert hint.startswith(f"parameters[{at}] is not expected")


def test_two_are_missing() -> None:
    (hint,) = hints(compared([_A, _D], [_A, _B, _C, _D]))
    assert hint == (
        "parameters[1:3] are missing: from parameters[1] on, everything matches when shifted by 2"
    )


def test_gaps_apart() -> None:
    (hint,) = hints(compared([_B, _D], [_A, _B, _C, _D]))
    assert hint == ("parameters[0] and parameters[2] are missing; all else matches in its order")
    (hint,) = hints(compared([_A, _B, _C, _D], [_B, _D]))
    assert hint is not None
    assert hint.startswith("parameters[0] and parameters[2] are not expected;")
    many = [_A, _B, _C, _D, _B, _A, _C, _B]
    (hint,) = hints(compared(many[1::2], many))
    assert hint is not None
    assert hint.startswith("parameters[0], parameters[2], parameters[4] and others are missing")


def test_a_gap_among_neighbours_that_are_alike() -> None:
    """Which of them is missing can't be told, so the hint does not pretend to know."""
    (hint,) = hints(compared([_A, _B, _B, _C], [_A, _B, _B, _B, _C]))
    assert hint == (
        "one of parameters[1:4] is missing: from parameters[3] on, "
        "everything matches when shifted by one"
    )
    (hint,) = hints(compared([_A, _B, _B], [_A, _B]))
    assert hint == "one of parameters[1:3] is not expected; all before matches"
    (hint,) = hints(compared([_B, _A, _A], [_C, _B, _A, _A, _A]))
    assert hint is not None
    assert hint.startswith("parameters[0] and one of parameters[2:5] are missing")
    (hint,) = hints(compared([_A, _C], [_A, _B, _A, _B, _C]))
    assert hint is not None
    assert hint.startswith("parameters[1:4] are missing")


def test_two_are_swapped() -> None:
    found = compared([_A, _C, _B, _D], [_A, _B, _C, _D])
    assert hints(found) == {"parameters[1] and parameters[2] look swapped"}
    found = compared([_D, _B, _C, _A], [_A, _B, _C, _D])
    assert hints(found) == {"parameters[0] and parameters[3] look swapped"}


def test_one_moved() -> None:
    found = compared([_B, _C, _A, _D], [_A, _B, _C, _D])
    assert hints(found) == {"parameters[2] looks moved: its place is parameters[0]"}
    found = compared([_C, _A, _B, _D], [_A, _B, _C, _D])
    assert hints(found) == {"parameters[0] looks moved: its place is parameters[2]"}


def test_another_order() -> None:
    found = compared([_C, _D, _A, _B], [_A, _B, _C, _D])
    assert hints(found) == {"from parameters[0] on, the same arrays stand in another order"}
    found = compared([_A, _C, _D, _B, f4(9)], [_A, _B, _C, _D, f4(9)])
    assert hints(found) == {"parameters[3] looks moved: its place is parameters[1]"}


def test_all_are_of_another_dtype() -> None:
    doubles = [("float64", shape) for _, shape in (_A, _B, _C)]
    found = compared(doubles, [_A, _B, _C])
    assert [one.code for one in found] == ["BK502"] * 3
    assert found[0].hint == "all are float64; convert them: [x.astype('float32') for x in arrays]"
    assert hints(found[1:]) == {None}
    assert hints(compared([doubles[0], _B], [_A, _B])) == {"convert it: x.astype('float32')"}


def test_two_mistakes_at_once() -> None:
    """Arrays of another dtype still line up by their shapes, and transposed ones by theirs."""
    doubles = [("float64", shape) for _, shape in (_A, _B, _C)]
    (hint,) = hints(compared([doubles[0], doubles[2]], [_A, _B, _C]))
    assert hint == (
        "by their shapes, parameters[1] is missing: from parameters[1] on, everything matches when "
        "shifted by one; all are float64; convert them: [x.astype('float32') for x in arrays]"
    )
    found = compared([doubles[0], _C, _B], [_A, _B, _C])
    assert found[0].hint == "by their shapes, parameters[1] and parameters[2] look swapped"
    (hint,) = hints(compared([f4(4, 3), _C], [_A, _B, _C]))
    assert hint is not None
    assert hint.startswith("parameters[0] is missing")
    assert hint.endswith("; others look transposed")


def test_no_remedy_for_single_arrays_where_some_are_missing() -> None:
    first, *others = compared([_D, f4(7)], [_B, _C, _A])
    assert first.code == "BK501"
    assert {found.hint for found in others} == {None}


def test_a_dtype_that_no_update_may_hold_is_not_compared() -> None:
    assert compared([("U5", (2,))], [_A]) == []
    assert compared([("U5", (2,))], None, dtypes=["float32"]) == []


def test_transposed() -> None:
    found = compared([f4(4, 3), _A], [f4(3, 4), _A])
    assert told(found) == [("BK503", "parameters[0].shape")]
    assert hints(found) == {"this looks transposed: save x.T"}
    assert "transposed" not in str(hints(compared([f4(4, 4)], [f4(3, 4)])))
    (free,) = compared([f4(4, 3)], [("float32", (3, None))])
    assert free.hint == "this looks transposed: save x.T"


def test_no_hint_where_nothing_simple_explains_it() -> None:
    found = compared([_A, _D], [_B, _C, _A])
    assert found[0].code == "BK501"
    assert "shifted" not in str(hints(found))
    assert not any("swapped" in str(hint) for hint in hints(compared([_B, _D], [_A, _C])))
