"""Stage 3, its end: from what the pickle builds to a layout."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from bkformat import Report, check_bytes, infer_schema
from bkformat.layout import MAX_NUM_SAMPLES, LayoutReader
from bkformat.source import BytesSource

from .files import aggregate, asm, codes, update, zeros

D, E = asm.D, asm.E


def file(*items: Any, form: Any = D, count: Any = None) -> bytes:
    """An update of these parts in place of arrays."""
    count = asm.integer(7) if count is None else count
    return bytes(form.file(form.outer(asm.list_of(count, asm.list_of(*items)))).data)


def test_an_update() -> None:
    data = update(np.zeros((3, 4), "f4"), np.zeros((2, 3), "f8", order="F"), num_samples=1329)
    layout = check_bytes(data).layout
    assert layout is not None
    assert (layout.kind, layout.num_samples, layout.nbytes) == ("update", 1329, len(data))
    assert (layout.protocol, layout.writer, layout.loads_on) == (4, "E", ">=1.26.1")
    assert layout.stopped_at is None
    assert layout.num_elements == 18
    assert [array[:3] for array in layout.parameters] == [
        ("float32", (3, 4), "C"), ("float64", (2, 3), "F"),
    ]  # fmt: skip


def test_kinds() -> None:
    bare = aggregate(*zeros((2,), (3,)))
    counted = update(*zeros((2,)))
    assert codes(check_bytes(bare)) == ["BK305"]
    assert check_bytes(bare, kind="aggregate").valid
    assert check_bytes(counted, kind="aggregate").valid
    for data, kind in ((bare, "aggregate"), (counted, "update")):
        assert LayoutReader(BytesSource(data), kind=None).read().kind == kind


@pytest.mark.parametrize(
    ("count", "code"),
    [
        (asm.integer(0), "BK311"),
        (asm.integer(-1), "BK311"),
        (asm.integer(MAX_NUM_SAMPLES + 1), "BK311"),
        (asm.TRUE, "BK307"),
        (asm.real(7.0), "BK308"),
        (D.scalar("i8"), "BK309"),
        (D.array((), "i8"), "BK310"),
        (asm.NONE, "BK306"),
        (D.text("seven"), "BK306"),
    ],
)
def test_counts(count: Any, code: str) -> None:
    report = check_bytes(file(D.array(), count=count))
    assert codes(report) == [code]
    assert report.findings[0].where == "num_samples"
    assert report.layout is not None
    assert len(report.layout.parameters) == 1


def test_the_edges_of_the_count() -> None:
    for count in (1, MAX_NUM_SAMPLES):
        assert check_bytes(file(D.array(), count=asm.integer(count))).valid


def test_a_float_count_is_answered_with_the_number() -> None:
    report = check_bytes(file(D.array(), count=asm.real(7.0)))
    assert report.findings[0].hint == "give it as a plain int: 7"
    report = check_bytes(file(D.array(), count=asm.real(7.5)))
    assert "plain int: 7" not in (report.findings[0].hint or "")


@pytest.mark.parametrize(
    ("item", "code", "where"),
    [
        (asm.integer(1), "BK316", "parameters[1]"),
        (asm.real(1.0), "BK316", "parameters[1]"),
        (D.scalar("f4"), "BK317", "parameters[1]"),
        (asm.NONE, "BK318", "parameters[1]"),
        (asm.list_of(), "BK318", "parameters[1]"),
        (D.array((), "c8", bytes(8)), "BK332", "parameters[1].dtype"),
        (D.array((1,), "i4"), "BK601", "parameters[1].dtype"),
        (D.array((1,), "b1"), "BK602", "parameters[1].dtype"),
        (D.array((0, 3)), "BK603", "parameters[1].shape"),
    ],
)
def test_items(item: Any, code: str, where: str) -> None:
    report = check_bytes(file(D.array(), item, D.array((3,))))
    assert codes(report) == [code]
    assert report.findings[0].where == where
    assert report.findings[0].offset is not None


def test_one_report_tells_everything_there_is_to_mend() -> None:
    items = [asm.integer(1), D.array(), D.scalar("f4"), D.array((), "c8", bytes(8))]
    outer = asm.list_of(asm.TRUE, asm.tuple_of(*items))
    report = check_bytes(D.file(D.outer(outer)).data)
    assert codes(report) == ["BK307", "BK312", "BK316", "BK317", "BK332"]


def test_an_array_that_stands_there_twice() -> None:
    shared = D.array((2,), key="shared")
    report = check_bytes(file(shared, D.array(), shared))
    assert codes(report) == ["BK319"]
    assert report.findings[0].where == "parameters[2]"
    assert "parameters[0]" in report.findings[0].message


def test_complex_is_allowed_where_a_schema_says_so() -> None:
    data = file(D.array((1,), "c8", bytes(8)))
    for allowed, found in ((frozenset[str](), ["BK332"]), (frozenset({"complex64"}), [])):
        reader = LayoutReader(BytesSource(data), allowed=allowed)
        reader.read()
        assert [finding.code for finding in reader.findings] == found


@pytest.mark.parametrize(
    ("root", "code"),
    [
        (D.array((2,)), "BK304"),
        (asm.list_of(asm.integer(7), asm.list_of(D.array())), "BK301"),
        (D.outer(asm.list_of(asm.integer(7)), (1,)), "BK302"),
        (D.outer(asm.list_of(asm.integer(7), asm.list_of())), "BK315"),
        (D.outer(asm.list_of(asm.integer(7), asm.integer(8))), "BK314"),
    ],
)
def test_roots(root: Any, code: str) -> None:
    assert code in codes(check_bytes(D.file(root).data))


def test_the_header_s_shape_is_the_pickle_s() -> None:
    report = check_bytes(D.file(shape="(3,)").data)
    assert codes(report) == ["BK303"]


def test_where_reading_stopped() -> None:
    # Form D has no frames: a file of form E that is cut short ends inside its frame.
    data = update(*zeros((2,), (3,), (4,)), num_samples=9, form=D)
    layout = check_bytes(data).layout
    assert layout is not None
    first, second, _ = layout.parameters
    cut = check_bytes(data[: second.offset + 2])
    assert cut.layout is not None
    assert cut.layout.num_samples == 9
    assert cut.layout.parameters == (first,)
    assert cut.findings[-1].where == "parameters[1]"
    assert cut.layout.stopped_at == cut.findings[-1].offset
    assert not cut.values_checked


def saved(*items: Any) -> Report:
    """The report on an object array of these items, saved as numpy does."""
    outer = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        outer[index] = item
    file = io.BytesIO()
    np.save(file, outer, allow_pickle=True)
    return check_bytes(file.getvalue())


def place_of(report: Report) -> tuple[str, str]:
    """The last finding, which is where reading stopped."""
    assert codes(report)[-1] == "BK313"
    return report.findings[-1].where, report.findings[-1].message


@pytest.mark.parametrize("items", [1, 2, 999, 1000, 1001, 2000])
def test_dicts_are_refused_where_they_stand(items: int) -> None:
    """Picklers add items to a list in batches of 1,000, and a single one in another way."""
    arrays = [np.zeros(2, "f4") for _ in range(items)]
    found = {"a": arrays[0]}
    assert place_of(saved(7, [*arrays, found])) == (
        f"parameters[{items}]", "a dict in place of an array",
    )  # fmt: skip
    assert place_of(saved(7, found)) == ("parameters", "a dict in place of a list of arrays")
    assert place_of(saved(found, arrays)) == ("num_samples", "a dict in place of an int")
    if items % 1000:  # after a full batch, more items could follow in the same way
        assert place_of(saved(7, arrays, found)) == ("", "a dict as a third item")


def test_a_dict_that_was_saved_whole() -> None:
    file = io.BytesIO()
    np.save(file, {"w": np.zeros(2, "f4")}, allow_pickle=True)  # type: ignore[arg-type]
    report = check_bytes(file.getvalue())
    assert place_of(report) == ("", "a dict in place of num_samples and arrays")
    assert "o[0] = num_samples" in (report.findings[0].hint or "")


def test_count_and_arrays_in_the_wrong_order() -> None:
    report = saved([np.zeros(2, "f4"), np.zeros(3, "f8")], 7)
    assert codes(report) == ["BK306"]
    assert "swap them" in (report.findings[0].hint or "")
    assert report.layout is not None
    assert report.layout.num_samples == 7
    assert [array.shape for array in report.layout.parameters] == [(2,), (3,)]


@pytest.mark.parametrize(
    ("items", "hint"),
    [
        ([7, [np.zeros(2)], 0.5], "leave out what follows the list"),
        ([7, np.zeros(2), np.zeros(3)], "put the arrays into one list"),
        ([[np.zeros(2)]], "put num_samples before the list"),
        ([None], "build it by assignment"),
    ],
)
def test_outer_arrays_of_another_length(items: list[Any], hint: str) -> None:
    report = saved(*items)
    assert codes(report) == ["BK302"]
    assert (report.findings[0].hint or "").startswith(hint)


def test_items_that_are_no_arrays() -> None:
    report = saved(7, [("w", np.zeros(2, "f4")), [1.0, 2.0], np.zeros(2, "f4"), None])
    assert codes(report) == ["BK318", "BK318", "BK318"]
    pair, numbers, none = (found.hint or "" for found in report.findings)
    assert "for name, array in items" in pair
    assert "np.asarray" in numbers
    assert "asarray" not in none
    assert report.layout is not None
    assert report.layout.positions == (2,)
    with pytest.raises(ValueError, match="something else"):
        infer_schema(report.layout)


@pytest.mark.parametrize(
    ("count", "hint"),
    [
        (3.0, "give it as a plain int: 3"),
        (0.0, "give the number of samples as a plain int"),
        (-1.0, "give the number of samples as a plain int"),
        (float("nan"), "give the number of samples as a plain int"),
        (None, "give the number of samples as a plain int"),
        (np.float64(3.5), "give the number of samples as a plain int"),
        (np.int64(3), "make it a plain int: int(num_samples)"),
        (np.array([3]), "make it a plain int: num_samples.item()"),
    ],
)
def test_remedies_for_the_count_work(count: Any, hint: str) -> None:
    report = saved(count, [np.zeros(2, "f4")])
    assert [found.hint for found in report.findings] == [hint]


def test_what_is_known_of_a_refused_protocol() -> None:
    layout = check_bytes(asm.npy_header() + b"\x80\x02U\x01b").layout
    assert layout is not None
    assert (layout.protocol, layout.writer, layout.stopped_at) == (2, "A", 128)
    assert check_bytes(b"junk").layout is None


@pytest.mark.parametrize("fast", [True, False])
def test_structure_and_payloads_are_the_whole_file(fast: bool) -> None:
    data = update(*zeros((2,), (3, 100), (0,), ()), num_samples=9)
    reader = LayoutReader(BytesSource(data), keep_structure=True, fast=fast)
    layout = reader.read()
    pieces = dict(reader.structure())
    pieces |= {
        a.offset: data[a.offset : a.offset + a.nbytes] for a in layout.parameters if a.nbytes
    }
    # The typecode is a payload that no array holds.
    at = data.index(b"C\x01b") + 2
    pieces[at] = data[at : at + 1]
    assert b"".join(pieces[offset] for offset in sorted(pieces)) == data
