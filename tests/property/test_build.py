"""Only one outcome is allowed: what is built is valid, canonical, and loads to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkformat import build_update, check_bytes, load_file, write_update

from .conftest import Load
from .expected import LOADERS, expected
from .files import Array, Content, asm, assembled, forms, huge, updates, written

_settings = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _reversed(array: Array) -> Array:
    """The same values through a view with negative strides."""
    step = (slice(None, None, -1),) * array.ndim
    return np.asarray(np.asarray(array[step]).copy()[step])


def _spaced(array: Array) -> Array:
    """The same values in every second place of a larger array."""
    axes = min(array.ndim, 4)
    wide = np.zeros(
        [dim * (2 if at < axes else 1) for at, dim in enumerate(array.shape)], array.dtype
    )
    step = (slice(None, None, 2),) * axes
    wide[step] = array
    return np.asarray(wide[step])


def _unaligned(array: Array) -> Array:
    raw = np.zeros(array.nbytes + 1, "uint8")
    raw[1:] = np.frombuffer(array.tobytes(), "uint8")
    return raw[1:].view(array.dtype).reshape(array.shape)


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


_DISGUISES = {
    "as it is": lambda array: array,
    "fortran": lambda array: np.array(array, order="F"),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "big-endian fortran": lambda a: np.array(a, a.dtype.newbyteorder(">"), order="F"),
    "negative strides": _reversed,
    "spaced": _spaced,
    "unaligned": _unaligned,
    "read-only": _read_only,
}


@_settings
@given(content=st.one_of(updates, huge))
def test_what_is_built_loads_to_the_same_bits(tmp_path: Path, load: Load, content: Content) -> None:
    data = build_update(content.num_samples, content.arrays)
    report = check_bytes(data)
    assert report.valid
    assert report.layout is not None
    assert (report.layout.writer, report.layout.loads_on) == ("canonical", ">=1.16")
    assert report.layout.num_samples == content.num_samples
    assert all(array.aligned for array in report.layout.parameters)
    path = tmp_path / "update.npy"
    path.write_bytes(data)
    answers = load(path)
    assert answers == dict.fromkeys(LOADERS, expected(data, report.layout))
    for mmap in (True, False):
        update = load_file(path, mmap=mmap)
        for one, other in zip(update.parameters, content.arrays, strict=True):
            assert (one.shape, one.dtype, one.tobytes()) == (
                other.shape, other.dtype, other.tobytes(),
            )  # fmt: skip
            assert not one.flags.writeable
    assert build_update(update.num_samples, update.parameters) == data


@_settings
@given(content=updates, disguises=st.lists(st.sampled_from(sorted(_DISGUISES)), min_size=1))
def test_bytes_do_not_depend_on_the_input_s_layout(content: Content, disguises: list[str]) -> None:
    arrays: list[Any] = [
        _DISGUISES[disguises[at % len(disguises)]](array) for at, array in enumerate(content.arrays)
    ]
    wanted = build_update(content.num_samples, content.arrays)
    assert build_update(content.num_samples, arrays) == wanted
    assert build_update(content.num_samples, {str(i): a for i, a in enumerate(arrays)}) == wanted


@_settings
@given(content=st.one_of(updates, huge))
def test_it_is_the_form_that_the_fixtures_have(content: Content) -> None:
    """But for bytes objects of 0 or 1 byte, which the assembler shares as CPython does."""
    arrays = [np.ascontiguousarray(a).reshape(a.shape) for a in content.arrays if a.nbytes > 1]
    if arrays:
        same = Content(content.num_samples, arrays)
        assert build_update(*same) == assembled(same, asm.CANONICAL, "used")


@_settings
@given(content=updates, form=forms)
def test_a_file_that_is_loaded_and_written_again(
    tmp_path: Path, content: Content, form: str
) -> None:
    path, out = tmp_path / "a.npy", tmp_path / "b.npy"
    path.write_bytes(written(content, form))
    update = load_file(path)
    with write_update(out, update.num_samples, update.parameters, fsync=False) as proof:
        assert out.read_bytes() == build_update(content.num_samples, content.arrays)
        assert proof.sha256 == check_bytes(out.read_bytes(), sha256=True).sha256
        assert proof.findings == check_bytes(out.read_bytes()).findings


@pytest.mark.parametrize("count", [1, 2**31 - 1, 2**31, 2**53])
def test_counts_keep_their_value(count: int, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(build_update(count, [np.zeros(1, "f4")]))
    assert load_file(tmp_path / "a.npy").num_samples == count
