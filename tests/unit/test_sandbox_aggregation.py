"""Means are those of plain arithmetic, in the dtype of the array, for any layout of the files."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import InvalidUpdateError, inspect_file, load_file
from bktransport.sandbox import aggregation
from bktransport.sandbox.aggregation import Counted, aggregate

from .files import update

Array = np.ndarray[Any, Any]


def counted(path: Path, num_samples: int, *arrays: Array) -> Counted:
    path.write_bytes(update(*arrays, num_samples=num_samples))
    return Counted(path, inspect_file(path), num_samples)


def means(tmp_path: Path, *given: tuple[int, Array]) -> Array:
    """The mean of one array, of updates with these counts."""
    files = [counted(tmp_path / f"{at}.npy", n, a) for at, (n, a) in enumerate(given)]
    out = tmp_path / "out.npy"
    assert aggregate(out, files, lambda: None) == sum(n for n, _ in given)
    found = load_file(out, mmap=False, kind="aggregate")
    assert found.num_samples == sum(n for n, _ in given)
    array: Array = found.parameters[0]
    assert (array.dtype, array.shape) == (given[0][1].dtype, given[0][1].shape)
    return array


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_are_rounded_once(tmp_path: Path, dtype: str) -> None:
    """Against exact fractions, where float64 holds the whole sum."""
    rng = np.random.default_rng(1)
    given = [(n, rng.standard_normal(500).astype(dtype)) for n in (3, 11, 1329)]
    exact = [sum(n * Fraction(float(array[at])) for n, array in given) / 1343 for at in range(500)]
    wanted = np.array([float(one) for one in exact]).astype(dtype)
    found = means(tmp_path, *given)
    assert np.mean(found == wanted) > 0.99  # float64 in between may round twice
    assert np.abs(found - wanted).max() <= np.spacing(np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool"])
def test_equal_updates_give_themselves(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(2).integers(0, 100, 1000).astype(dtype)
    assert np.array_equal(means(tmp_path, (1, array), (2, array), (7, array)), array)


def test_integers_go_to_the_nearest(tmp_path: Path) -> None:
    a, b = np.array([0, 0, 1, -1, 0], "i4"), np.array([1, 3, 2, -2, -1], "i4")
    assert means(tmp_path, (1, a), (1, b)).tolist() == [0, 2, 2, -2, 0]
    assert means(tmp_path, (1, a), (3, b)).tolist() == [1, 2, 2, -2, -1]


def test_bools_go_to_the_majority(tmp_path: Path) -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert means(tmp_path, (2, a), (1, b)).tolist() == [True, True, False, False]
    assert means(tmp_path, (1, a), (1, b)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", "uint8"])
def test_integers_never_wrap_around(tmp_path: Path, dtype: str) -> None:
    limits = np.iinfo(dtype)
    ends = np.array([limits.min, limits.max], dtype)
    assert np.array_equal(means(tmp_path, (1, ends), (2**50, ends)), ends)


def test_sums_past_float64(tmp_path: Path) -> None:
    ends = np.array([np.finfo("f8").max, -np.finfo("f8").max, 1])
    found = means(tmp_path, (2**52, ends), (2**52, ends))
    assert np.array_equal(found, ends)


def test_files_of_other_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C and Fortran order, empty and 0-d arrays, pieces that end anywhere."""
    monkeypatch.setattr(aggregation, "_ELEMENTS", 1000)
    plain = np.arange(60_000, dtype="f4").reshape(200, 300)
    few = [np.zeros((0, 3), "f8"), np.array(5, "i2")]
    files = [
        counted(tmp_path / "a.npy", 1, plain, *few),
        counted(tmp_path / "b.npy", 1, np.asfortranarray(3 * plain), *few),
    ]
    aggregate(tmp_path / "out.npy", files, lambda: None)
    found = load_file(tmp_path / "out.npy", mmap=False).parameters
    assert np.array_equal(found[0], 2 * plain)
    assert found[1].shape == (0, 3)
    assert found[2] == 5
    assert inspect_file(tmp_path / "out.npy").writer == "canonical"


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in ([], [5], [3, 3, 3], [7, 1, 8], [16], [1] * 9, [4, 4], [0, 4, 0]):
        data = bytes(range(sum(sizes)))
        edges = np.cumsum([0, *sizes])
        blocks = [data[a:b] for a, b in pairwise(edges)]
        found = [bytes(piece) for piece in aggregation._pieces(iter(blocks), 4)]
        assert found == [data[at : at + 4] for at in range(0, len(data), 4)]


def test_too_many_samples(tmp_path: Path) -> None:
    file = counted(tmp_path / "a.npy", 2**53, np.zeros(1))
    with pytest.raises(ValueError, match=r"more than 2\*\*53"):
        aggregate(tmp_path / "out.npy", [file, file], lambda: None)
    assert not (tmp_path / "out.npy").exists()


def test_it_can_be_given_up(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyError

    file = counted(tmp_path / "a.npy", 1, np.zeros(10))
    with pytest.raises(KeyError):
        aggregate(tmp_path / "out.npy", [file], stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_file_that_changed(tmp_path: Path) -> None:
    """The layout was judged; values are judged again as the aggregate is written."""
    file = counted(tmp_path / "a.npy", 1, np.ones(3, "f4"))
    data = bytearray(file.path.read_bytes())
    at = data.index(np.ones(3, "f4").tobytes())
    data[at : at + 4] = np.float32("inf").tobytes()
    file.path.write_bytes(data)
    with pytest.raises(InvalidUpdateError, match="BK402"):
        aggregate(tmp_path / "out.npy", [file], lambda: None)
    file.path.write_bytes(data[:-20])
    with pytest.raises(OSError, match="cut short"):
        aggregate(tmp_path / "out.npy", [file], lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
