"""The stages together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import (
    InvalidUpdateError,
    UpdateChangedError,
    UpdateSchema,
    check_bytes,
    check_file,
    check_many,
    infer_schema,
    inspect_file,
    validate,
    validate_bytes,
    validate_file,
)
from bkformat.validate import source_of

from .files import aggregate, asm, codes, update, zeros


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "update.npy"
    path.write_bytes(update(*zeros((3, 4), (4,)), num_samples=1329))
    return path


def test_files_and_bytes_give_one_report(path: Path) -> None:
    data = path.read_bytes()
    report = check_file(path)
    assert report.valid
    assert report.values_checked
    assert report.sha256 is None
    assert (
        report == check_bytes(data) == check_bytes(bytearray(data)) == check_bytes(memoryview(data))
    )
    assert check_file(str(path)) == check_file(os.fsencode(path)) == report  # type: ignore[arg-type]


def test_bytes_are_copied_from_what_can_change() -> None:
    data = bytearray(b"abc")
    source = source_of(data)
    data[0] = 0
    assert source.read_at(0, 3) == b"abc"
    assert source_of(memoryview(b"abcdef")[::2]).read_at(0, 3) == b"ace"
    with pytest.raises(TypeError):
        check_bytes("text")  # type: ignore[arg-type]


def test_misspelt_kinds() -> None:
    for judge in (check_bytes, lambda data, kind: check_file("nowhere", kind=kind)):
        with pytest.raises(ValueError, match="'upload'"):
            judge(b"", kind="upload")  # type: ignore[arg-type, operator]


def test_values_can_be_left_out() -> None:
    data = update(np.array([np.nan], "f4"))
    assert codes(check_bytes(data)) == ["BK401"]
    without = check_bytes(data, values=False)
    assert without.valid
    assert not without.values_checked
    assert not check_bytes(data[:-1]).values_checked


def test_strict_changes_the_verdict_and_nothing_else() -> None:
    data = update(*zeros((3,), dtype="int32"))
    plain, strict = check_bytes(data), check_bytes(data, strict=True)
    assert (plain.valid, strict.valid) == (True, False)
    assert plain.findings == strict.findings
    assert strict.findings[0].severity == "warning"


def test_a_schema_is_judged_after_the_layout() -> None:
    schema = UpdateSchema.model_validate({"version": 1, "parameters": [{"shape": [9]}]})
    data = update(np.array([np.nan], "f4"))
    assert codes(check_bytes(data, schema=schema)) == ["BK503", "BK401"]
    # What was not read to its end is not compared.
    cut = update(np.array([1], "f4"), form=asm.D)[:-2]
    assert codes(check_bytes(cut, schema=schema)) == ["BK207"]


def test_inspect(path: Path, tmp_path: Path) -> None:
    layout = inspect_file(path)
    assert (layout.kind, layout.num_samples) == ("update", 1329)
    bare = tmp_path / "aggregate.npy"
    bare.write_bytes(aggregate(*zeros((2,), (3,))))
    assert inspect_file(bare).kind == "aggregate"
    path.write_bytes(update(*zeros((2,)), num_samples=0))
    assert inspect_file(path).num_samples == 0
    path.write_bytes(update(*zeros((2,)))[:-1])
    with pytest.raises(InvalidUpdateError) as caught:
        inspect_file(path)
    assert caught.value.report.layout is not None


def test_a_file_that_grows_or_changes_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = validate._read_layout

    def meddle(*arguments: object) -> object:
        found = judged(*arguments)  # type: ignore[arg-type]
        with path.open("ab") as file:
            file.write(b"x")
        return found

    monkeypatch.setattr(validate, "_read_layout", meddle)
    with pytest.raises(UpdateChangedError):
        check_file(path)


@pytest.mark.parametrize("cut", [50, 128, 200, 380])
def test_a_file_that_is_truncated_meanwhile(
    path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the file shrinks, an OSError comes out and nothing crashes."""
    size = path.stat().st_size
    assert cut < size
    reads = 0
    pread, preadv = os.pread, os.preadv

    def shrinking(read: object, *arguments: object) -> object:
        nonlocal reads
        reads += 1
        if reads == 2:
            os.truncate(path, cut)
        return read(*arguments)  # type: ignore[operator]

    monkeypatch.setattr(os, "pread", lambda *arguments: shrinking(pread, *arguments))
    monkeypatch.setattr(os, "preadv", lambda *arguments: shrinking(preadv, *arguments))
    with pytest.raises(OSError):  # noqa: PT011  (what it says depends on where it was noticed)
        check_file(path, sha256=True)


def test_descriptors_are_closed(path: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"junk")
    for _ in range(20):
        check_file(path)
        check_file(bad)
        with pytest.raises(InvalidUpdateError):
            inspect_file(bad)
        with pytest.raises(OSError):  # noqa: PT011
            check_file(tmp_path)
    assert len(os.listdir("/dev/fd")) == before


def test_max_size(path: Path) -> None:
    size = path.stat().st_size
    assert check_file(path, max_size=size).valid
    with pytest.raises(OSError, match="past the limit"):
        check_file(path, max_size=size - 1)


def test_positions_are_those_of_the_list_where_other_items_stand_in_it(tmp_path: Path) -> None:
    items = [1.5, np.array([np.nan], "f4"), 2.5, np.zeros(2, "i8")]
    outer = np.empty(2, object)
    outer[0], outer[1] = 7, items
    np.save(tmp_path / "update.npy", outer, allow_pickle=True)
    report = check_file(tmp_path / "update.npy")
    assert [(found.code, found.where) for found in report.findings] == [
        ("BK316", "parameters[0]"),
        ("BK316", "parameters[2]"),
        ("BK601", "parameters[3].dtype"),
        ("BK401", "parameters[1]"),
    ]
    layout = report.layout
    assert layout is not None
    assert layout.positions == (1, 3)
    with pytest.raises(ValueError, match="something else"):
        infer_schema(layout)
    # Each array is still compared with what stands in its place.
    expected = [{}, {"dtype": "float32"}, {}, {"dtype": "float32", "shape": [2]}, {}]
    schema = UpdateSchema.model_validate({"version": 1, "parameters": expected})
    found = check_file(tmp_path / "update.npy", schema=schema).findings
    assert [one.where for one in found if one.code.startswith("BK5")] == ["parameters[3].dtype"]
    allowed = UpdateSchema.model_validate({"version": 1, "dtypes": ["float32"]})
    found = check_file(tmp_path / "update.npy", schema=allowed).findings
    assert [one.where for one in found if one.code.startswith("BK5")] == ["parameters[3].dtype"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"schema": "model.json"}, TypeError),
        ({"schema": {"version": 1}}, TypeError),
        ({"max_size": "10"}, TypeError),
        ({"max_size": -1}, ValueError),
        ({"jobs": "2"}, TypeError),
        ({"jobs": 0}, ValueError),
        ({"kind": "model"}, ValueError),
    ],
)
def test_wrong_options_are_refused_before_any_file_is_opened(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_file("missing.npy", **options)
    with pytest.raises(error):
        check_many(["missing.npy"], **options)
    if "jobs" not in options:
        with pytest.raises(error):
            validate_file("missing.npy", **options)


def test_one_path_is_not_taken_for_many() -> None:
    for paths in ("one.npy", b"one.npy", Path("one.npy")):
        with pytest.raises(TypeError, match="check_file takes one"):
            check_many(paths)  # type: ignore[arg-type]


def test_the_proof_can_be_strict_and_limited(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(update(np.zeros(1, "i8")))
    validate_file(path).close()
    with pytest.raises(InvalidUpdateError, match="BK601"):
        validate_file(path, strict=True)
    with pytest.raises(InvalidUpdateError, match="BK601"):
        validate_bytes(path.read_bytes(), strict=True)
    with pytest.raises(OSError, match="past the limit"):
        validate_file(path, max_size=10)
