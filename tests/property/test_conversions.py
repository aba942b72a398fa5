"""Only one outcome is allowed: every bit is the same after convert and repair, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkformat import build_update, check_file, convert_file, repair_file

from .files import Content, by_pickle, contents, forms, huge, written

_settings = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _canonical(content: Content, path: Path) -> bytes:
    """By the builder for an update; by repair, held against numpy, for an aggregate."""
    if content.num_samples is not None:
        return build_update(content.num_samples, content.arrays)
    path.write_bytes(written(content, "np.save"))
    repair_file(path, path.with_suffix(".canonical.npy"), fsync=False)
    loaded = np.load(path.with_suffix(".canonical.npy"), allow_pickle=True)
    for one, other in zip(loaded, content.arrays, strict=True):
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    return path.with_suffix(".canonical.npy").read_bytes()


@_settings
@given(content=st.one_of(contents, huge), form=forms)
def test_repair_makes_every_form_canonical(tmp_path: Path, content: Content, form: str) -> None:
    path, out = tmp_path / "a.npy", tmp_path / "b.npy"
    path.write_bytes(written(content, form))
    repair_file(path, out, fsync=False)
    assert out.read_bytes() == _canonical(content, tmp_path / "c.npy")


@_settings
@given(content=st.one_of(contents, huge))
def test_repair_reads_protocol_2(tmp_path: Path, content: Content) -> None:
    path, out = tmp_path / "a.npy", tmp_path / "b.npy"
    path.write_bytes(by_pickle(content, 2))
    assert not check_file(path).valid
    repair_file(path, out, fsync=False)
    assert out.read_bytes() == _canonical(content, tmp_path / "c.npy")


@_settings
@given(content=contents, form=forms)
def test_safetensors_there_and_back(tmp_path: Path, content: Content, form: str) -> None:
    path, there, back = (tmp_path / name for name in ("a.npy", "a.safetensors", "b.npy"))
    path.write_bytes(written(content, form))
    convert_file(path, there, fsync=False)
    found = safetensors.numpy.load_file(there)
    for index, array in enumerate(content.arrays):
        other = found[f"parameters.{index}"]
        assert (other.shape, other.dtype) == (array.shape, array.dtype)
        assert other.tobytes() == array.tobytes()
    convert_file(there, back, fsync=False)
    assert back.read_bytes() == _canonical(content, tmp_path / "c.npy")


@_settings
@given(content=contents, form=forms)
def test_npz_there_and_back(tmp_path: Path, content: Content, form: str) -> None:
    path, there, back = (tmp_path / name for name in ("a.npy", "a.npz", "b.npy"))
    path.write_bytes(written(content, form))
    convert_file(path, there, fsync=False)
    with np.load(there, allow_pickle=False) as archive:
        for index, array in enumerate(content.arrays):
            other = archive[f"layer_{index}"]
            assert (other.shape, other.dtype) == (array.shape, array.dtype)
            assert other.tobytes() == array.tobytes()
    count = content.num_samples or 7
    convert_file(there, back, num_samples=count, fsync=False)
    assert back.read_bytes() == build_update(count, content.arrays)
