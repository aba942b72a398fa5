"""From a valid file to arrays."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bkformat import (
    InvalidUpdateError,
    Update,
    UpdateChangedError,
    UpdateSchema,
    load_file,
    views,
    write_update,
)

from .files import FIXTURES, Array, aggregate, asm, update, zeros


@pytest.fixture
def arrays() -> list[Array]:
    rng = np.random.default_rng(7)
    return [
        rng.random((3, 4), "f4"),
        np.asfortranarray(rng.random((4, 5))),
        np.array(1.5, "f2"),
        np.zeros((0, 3), "f4"),
        rng.integers(0, 2, (2, 1, 3, 1)).astype(bool),
        rng.integers(-99, 99, 70_000).astype("i8"),
    ]


@pytest.fixture
def path(tmp_path: Path, arrays: list[Array]) -> Path:
    path = tmp_path / "update.npy"
    path.write_bytes(update(*arrays, num_samples=1329))
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("form", [asm.C, asm.D, asm.E, asm.CANONICAL])
def test_every_bit_comes_back(path: Path, arrays: list[Array], mmap: bool, form: object) -> None:
    path.write_bytes(update(*arrays, num_samples=1329, form=form))
    loaded = load_file(path, mmap=mmap)
    assert type(loaded) is Update
    assert loaded.num_samples == 1329
    assert type(loaded.num_samples) is int
    assert type(loaded.parameters) is list
    for got, was in zip(loaded.parameters, arrays, strict=True):
        assert type(got) is np.ndarray
        assert (got.dtype, got.shape) == (was.dtype, was.shape)
        same = got.tobytes() == was.tobytes()
        assert same  # without a comparison that pytest would take minutes to show
    assert loaded.parameters[1].flags.f_contiguous


@pytest.mark.parametrize("mmap", [True, False])
def test_arrays_are_read_only(path: Path, mmap: bool) -> None:
    for array in load_file(path, mmap=mmap).parameters:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    if mmap:
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize("mmap", [True, False])
def test_arrays_outlive_the_update_and_the_file(
    path: Path, arrays: list[Array], mmap: bool
) -> None:
    loaded = load_file(path, mmap=mmap)
    last = loaded.parameters[-1]
    del loaded
    gc.collect()
    path.unlink()
    assert np.array_equal(last, arrays[-1])


def test_a_mapping_sees_later_changes_and_a_copy_does_not(path: Path) -> None:
    mapped, copied = load_file(path), load_file(path, mmap=False)
    before = copied.parameters[0].copy()
    data = path.read_bytes()
    at = data.index(before.tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(before.nbytes))
    assert not mapped.parameters[0].any()
    assert np.array_equal(copied.parameters[0], before)


def test_mapped_payloads_are_not_copied(path: Path) -> None:
    for array in load_file(path).parameters:
        assert not array.flags.owndata
    data = update(*zeros((5,), (7,)), form=asm.CANONICAL)
    path.write_bytes(data)
    for array in load_file(path).parameters:
        assert array.__array_interface__["data"][0] % 64 == 0


def test_no_descriptor_is_left_open(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for mmap in (True, False):
        loaded = load_file(path, mmap=mmap)
        del loaded
        gc.collect()
    path.write_bytes(b"junk")
    with pytest.raises(InvalidUpdateError):
        load_file(path)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_invalid_is_not_loaded(path: Path, mmap: bool) -> None:
    path.write_bytes(update(np.array([np.nan], "f4")))
    with pytest.raises(InvalidUpdateError) as caught:
        load_file(path, mmap=mmap)
    assert caught.value.report.findings[0].code == "BK401"
    assert np.isnan(load_file(path, values=False, mmap=mmap).parameters[0][0])
    schema = UpdateSchema.model_validate({"version": 1, "dtypes": ["float64"]})
    with pytest.raises(InvalidUpdateError):
        load_file(path, values=False, schema=schema, mmap=mmap)


@pytest.mark.parametrize("mmap", [True, False])
def test_aggregates(path: Path, mmap: bool) -> None:
    path.write_bytes(aggregate(*zeros((2,), (3,))))
    loaded = load_file(path, kind="aggregate", mmap=mmap)
    assert loaded.num_samples is None
    assert [array.shape for array in loaded.parameters] == [(2,), (3,)]
    with pytest.raises(ValueError, match="kind"):
        load_file(path, kind="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("mmap", [True, False])
def test_one_byte_that_two_arrays_share(mmap: bool) -> None:
    path = FIXTURES / "warning" / "BK601-shared-payload-of-1-byte-form-e.npy"
    loaded = load_file(path, mmap=mmap)
    assert [array.tobytes() for array in loaded.parameters] == [b"b", b"b"]


def test_truncated_while_it_is_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_arrays = views.copy_arrays

    def truncating(*arguments: object) -> object:
        os.truncate(path, 5000)
        return copy_arrays(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "copy_arrays", truncating)
    with pytest.raises(UpdateChangedError):
        load_file(path, mmap=False)


def test_changed_while_it_is_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_arrays = views.copy_arrays

    def touching(*arguments: object) -> object:
        found = copy_arrays(*arguments)  # type: ignore[arg-type]
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(views, "copy_arrays", touching)
    with pytest.raises(UpdateChangedError):
        load_file(path, mmap=False)


def test_a_mapping_survives_truncation_until_it_is_touched(path: Path) -> None:
    """The one danger of a mapping is as documented: touching it kills the process, nothing else."""
    script = (
        "import os, sys, bkformat\n"
        "loaded = bkformat.load_file(sys.argv[1], mmap=sys.argv[2] == 'mmap')\n"
        "os.truncate(sys.argv[1], 0)\n"
        "print(len(loaded.parameters), flush=True)\n"
        "print(float(loaded.parameters[0].sum()), flush=True)\n"
    )
    data = path.read_bytes()
    ends = {}
    for how in ("mmap", "copy"):
        path.write_bytes(data)
        command = [sys.executable, "-c", script, str(path), how]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.stdout.startswith("6\n")
        ends[how] = run.returncode
    assert ends["copy"] == 0
    assert ends["mmap"] < 0  # killed by SIGBUS


def test_canonical_files_map_to_aligned_arrays(tmp_path: Path) -> None:
    arrays = [np.full((at, 3), at, "float32") for at in range(1, 40)]
    write_update(tmp_path / "a.npy", 7, arrays, fsync=False).close()
    update = load_file(tmp_path / "a.npy")
    assert all(array.ctypes.data % 64 == 0 for array in update.parameters)
    assert all(array.flags.aligned for array in update.parameters)
    kept = update.parameters[5]
    del update
    (tmp_path / "a.npy").unlink()
    assert kept.tobytes() == arrays[5].tobytes()
