"""Whatever is accepted loads to exactly the layout and values we report, in every reader."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from bkformat import Report, UpdateLayout, check_bytes, load_file, validate_bytes

from .expected import LOADERS, expected
from .files import (
    FORMS,
    Content,
    asm,
    edited,
    edited_bytes,
    edited_gets,
    edited_ops,
    good_files,
    huge,
    small_files,
    small_fixtures,
    written,
)
from .test_runs import files as streams

Load = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples, written again for each."""
    return tmp_path_factory.mktemp("loads") / "update.npy"


def write(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    os.replace(beside, path)


def assert_loads(path: Path, data: bytes, load: Load, report: Report) -> None:
    layout = report.layout
    assert layout is not None
    write(path, data)
    told = expected(data, layout)
    answers = load(path)
    assert list(answers) == LOADERS
    for name, answer in answers.items():
        assert answer == told, name
    assert_ours(path, data, layout)


def assert_ours(path: Path, data: bytes, layout: UpdateLayout) -> None:
    """load_file, mapped and copied, and the proof give the same arrays."""
    kind = layout.kind
    mapped = load_file(path, kind=kind)
    copied = load_file(path, kind=kind, mmap=False)
    with validate_bytes(data, kind=kind) as proof:
        proven = proof.parameters()
        assert proof.sha256 == hashlib.sha256(data).hexdigest()
    assert mapped.num_samples == copied.num_samples == layout.num_samples
    for arrays in (mapped.parameters, copied.parameters, proven):
        assert len(arrays) == len(layout.parameters)
        for array, said in zip(arrays, layout.parameters, strict=True):
            same = array.tobytes(said.order) == data[said.offset : said.offset + said.nbytes]
            assert (array.dtype.name, array.shape) == (said.dtype, said.shape)
            assert same


def assert_if_accepted(path: Path, data: bytes, load: Load) -> None:
    # An aggregate may be an update too, so this is the wider of the two.
    report = check_bytes(data, kind="aggregate")
    event(f"valid {report.valid}")
    if report.valid:
        assert_loads(path, data, load, report)


@settings(max_examples=150)
@given(data=good_files)
def test_good_files(path: Path, load: Load, data: bytes) -> None:
    report = check_bytes(data, kind="aggregate")
    assert report.valid
    assert_loads(path, data, load, report)


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=2)
@given(content=huge)
def test_files_of_many_or_large_arrays(form: str, path: Path, load: Load, content: Content) -> None:
    data = written(content, form)
    report = check_bytes(data)
    assert report.valid
    assert_loads(path, data, load, report)


@settings(max_examples=300)
@given(data=edited)
def test_edited_files(path: Path, load: Load, data: bytes) -> None:
    assert_if_accepted(path, data, load)


@settings(max_examples=300)
@given(data=edited_gets(small_files) | edited_ops(small_files))
def test_edited_opcodes(path: Path, load: Load, data: bytes) -> None:
    assert_if_accepted(path, data, load)


@settings(max_examples=500)
@given(data=streams)
def test_values_fetched_from_the_memo(path: Path, load: Load, data: bytes) -> None:
    assert_if_accepted(path, data, load)


_valid_fixtures = st.sampled_from(small_fixtures("valid", "warning"))


@settings(max_examples=300)
@given(data=edited_bytes(_valid_fixtures))
def test_edited_fixtures(path: Path, load: Load, data: bytes) -> None:
    assert_if_accepted(path, data, load)


@pytest.mark.parametrize("folder", ["valid", "warning"])
def test_fixtures(folder: str, path: Path, load: Load) -> None:
    for data in small_fixtures(folder):
        report = check_bytes(data, kind="aggregate")
        assert report.valid
        assert_loads(path, data, load, report)


_header = bytes(asm.npy_header())
_stream = bytes(asm.D.file().data)[len(_header) :]
_TEXT = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


@example(_TEXT.replace(b"(2,)", b"(02,)"))
@example(_TEXT.replace(b"(2,)", b"(0000000002,)"))
@settings(max_examples=300)
@given(
    text=st.builds(
        lambda at, cut, put: _TEXT[:at] + put + _TEXT[at + cut :],
        st.integers(0, len(_TEXT)),
        st.integers(0, 2),
        st.sampled_from(
            [b"", b" ", b"0", b"00", b"_", b"L", b",", b"(", b")", b"8", b"+", b"\t", b"'"]
        ),
    )
)
def test_edited_headers(path: Path, load: Load, text: bytes) -> None:
    """A header we take for (2,) is one that numpy can read."""
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    assert_if_accepted(path, bytes(asm.raw_header(text)) + _stream, load)


def test_the_child_refuses_other_names(path: Path, load: Load) -> None:
    """The oracle itself is safe, and would notice a name that we must not accept."""
    names = {
        "os": asm.global_line("os", "getpid") + asm.EMPTY_TUPLE + asm.REDUCE,
        "numpy": asm.global_line("numpy", "array") + asm.EMPTY_TUPLE + asm.REDUCE,
    }
    for name, call in names.items():
        data = asm.D.file(asm.D.update(num_samples=call)).data
        write(path, data)
        for answer in load(path).values():
            assert "RefusedError" in answer["error"], name
    assert "os.getpid" not in sys.modules
