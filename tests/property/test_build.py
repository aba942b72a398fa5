"""Only one outcome is allowed: what is built is valid, canonical, and loads to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bkformat import InvalidUpdateError, build_update, check_bytes, load_file, write_update

from .conftest import Load
from .expected import LOADERS, expected
from .files import (
    DTYPES,
    FLOATS,
    Array,
    Content,
    asm,
    assembled,
    counts,
    filled,
    forms,
    huge,
    updates,
    written,
)

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


def _finite(dtype: str, bits: bytes) -> Array:
    """Any finite values at all: both zeros, subnormal numbers, the largest."""
    if dtype == "bool":
        return np.frombuffer(bits, "u1") % 2 == 1
    found = np.frombuffer(bits[: len(bits) // 8 * 8], dtype).copy()
    if dtype in FLOATS:
        found[~np.isfinite(found)] = -0.0
    return found


any_values = st.builds(_finite, st.sampled_from(DTYPES), st.binary(min_size=8, max_size=400))
disguised = st.sampled_from(sorted(_DISGUISES))


@_settings
@given(content=st.builds(Content, counts, st.lists(any_values, min_size=1, max_size=4)))
def test_any_finite_values(tmp_path: Path, load: Load, content: Content) -> None:
    data = build_update(content.num_samples, content.arrays)
    layout = check_bytes(data).layout
    assert layout is not None
    for array, said in zip(content.arrays, layout.parameters, strict=True):
        assert data[said.offset : said.offset + said.nbytes] == array.tobytes()
    (tmp_path / "a.npy").write_bytes(data)
    assert load(tmp_path / "a.npy") == dict.fromkeys(LOADERS, expected(data, layout))


@_settings
@given(st.lists(any_values, min_size=1, max_size=3), st.sampled_from(FLOATS), disguised)
def test_conversion_is_numpys(arrays: list[Array], dtype: str, disguise: str) -> None:
    with np.errstate(all="ignore"):
        wanted = [array.astype(dtype) for array in arrays]
    other = [_DISGUISES[disguise](array) for array in arrays]
    if all(np.isfinite(array).all() for array in wanted):
        assert build_update(7, other, dtype=dtype) == build_update(7, wanted)
        return
    with pytest.raises(InvalidUpdateError) as caught:
        build_update(7, other, dtype=dtype)
    assert {found.code for found in caught.value.report.findings} == {"BK402"}


@settings(_settings, max_examples=40)
@given(content=updates, data=st.data())
def test_one_bad_value_and_nothing_is_written(
    tmp_path: Path, content: Content, data: st.DataObject
) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(b"old")
    floats = [at for at, a in enumerate(content.arrays) if a.dtype.kind == "f" and a.size]
    assume(floats)
    at = data.draw(st.sampled_from(floats))
    arrays = [array.copy() for array in content.arrays]
    position = data.draw(st.integers(0, arrays[at].size - 1))
    arrays[at].flat[position] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with pytest.raises(InvalidUpdateError) as caught:
        write_update(path, content.num_samples, arrays, fsync=False)
    assert [found.where for found in caught.value.report.findings] == [f"parameters[{at}]"]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("disguise", sorted(_DISGUISES))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "bool"])
def test_arrays_larger_than_any_block(dtype: str, disguise: str, tmp_path: Path) -> None:
    """Past what is written, turned, read or hashed at a time, and past 64 KiB alone."""
    arrays = [filled(dtype, shape, "C", 3) for shape in [(2501, 1801), (130, 129), (3,)]]
    wanted = build_update(7, arrays)
    other = [_DISGUISES[disguise](array) for array in arrays]
    same = build_update(7, other) == wanted
    assert same  # without a comparison that pytest would take minutes to show
    with write_update(tmp_path / "a.npy", 7, other, fsync=False) as proof:
        same = (tmp_path / "a.npy").read_bytes() == wanted
        assert same
        assert proof.sha256 == check_bytes(wanted, sha256=True).sha256
    for array, said in zip(arrays, proof.layout.parameters, strict=True):
        same = wanted[said.offset : said.offset + said.nbytes] == array.tobytes()
        assert same
    (tmp_path / "a.npy").unlink()
