"""Only two outcomes are allowed on any bytes: refused in one line, or a valid file; no litter."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkformat import (
    InvalidSourceError,
    InvalidUpdateError,
    build_update,
    check_file,
    convert_file,
    repair_file,
)

from .files import Content, by_pickle, edited_bytes

_ARRAYS = [np.ones((3, 4), "f4"), np.zeros(5), np.asfortranarray(np.ones((2, 3)))]


def _seeds(folder: Path) -> dict[str, list[bytes]]:
    """Good files of every kind, by suffix."""
    source, tensors = folder / "u.npy", folder / "u.safetensors"
    source.write_bytes(build_update(7, _ARRAYS))
    convert_file(source, tensors)
    layers = {f"layer_{at}": array for at, array in enumerate(_ARRAYS)}
    np.savez(folder / "stored.npz", weighting=np.array([7.0]), **layers)
    np.savez_compressed(folder / "deflated.npz", weighting=np.array([7.0]), **layers)
    root = np.empty(2, dtype=object)
    root[:] = np.int64(7), (np.ones(3, ">f4"), np.float32(1))
    old = source.read_bytes()[:128] + pickle.dumps(root, 2)
    return {
        ".npy": [by_pickle(Content(7, _ARRAYS), 2), old, source.read_bytes()],
        ".npz": [(folder / f"{name}.npz").read_bytes() for name in ("stored", "deflated")],
        ".safetensors": [tensors.read_bytes()],
    }


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_edited_files(tmp_path_factory: pytest.TempPathFactory, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("seeds")
    seeds = _seeds(folder)[suffix]
    outcomes = set()

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edited_bytes(st.sampled_from(seeds)))
    def only_two_outcomes(data: bytes) -> None:
        path, out = folder / f"in{suffix}", folder / "out.npy"
        path.write_bytes(data)
        out.unlink(missing_ok=True)
        try:
            if suffix == ".npy":
                repair_file(path, out, fsync=False)
            else:
                convert_file(path, out, num_samples=None, max_size=1 << 24, fsync=False)
            said = ""
        except (InvalidSourceError, InvalidUpdateError, OSError) as exc:
            # Trouble with the file itself is only that a size it claims is past the limit.
            said = str(exc) if not isinstance(exc, OSError) or exc.errno == errno.EFBIG else "\n"
        outcomes.add("refused" if said else "valid")
        assert "\n" not in said
        assert out.exists() == (not said)
        assert said or check_file(out, kind="aggregate").valid
        assert path.read_bytes() == data
        assert not [name for name in os.listdir(folder) if name.startswith(".bkformat")]

    only_two_outcomes()
    assert outcomes == {"refused", "valid"}
