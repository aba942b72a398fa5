from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bkformat import (
    InvalidSourceError,
    InvalidUpdateError,
    UpdateSchema,
    build_update,
    check_file,
    convert_file,
)

from .files import FIXTURES

W = np.arange(12, dtype="float32").reshape(3, 4) / 8
B = np.arange(4, dtype="float64")
MIXED = [
    W, B, np.array(1.5, "float16"), np.zeros((0, 3), "float32"), np.arange(5),
    np.array([True, False]), np.arange(3, dtype="uint8"),
]  # fmt: skip


@pytest.fixture
def update(tmp_path: Path) -> Path:
    path = tmp_path / "update.npy"
    path.write_bytes(build_update(1329, MIXED))
    return path


# --- there and back --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_there_and_back(update: Path, tmp_path: Path, suffix: str) -> None:
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.npy"
    done = convert_file(update, there)
    assert done == ("update", 1329, len(MIXED), there.stat().st_size)
    convert_file(there, back)
    assert back.read_bytes() == update.read_bytes()


def test_by_way_of_both(update: Path, tmp_path: Path) -> None:
    convert_file(update, tmp_path / "a.npz")
    convert_file(tmp_path / "a.npz", tmp_path / "b.safetensors")
    convert_file(tmp_path / "b.safetensors", tmp_path / "c.npz")
    convert_file(tmp_path / "c.npz", tmp_path / "d.npy")
    assert (tmp_path / "d.npy").read_bytes() == update.read_bytes()
    assert (tmp_path / "c.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_every_valid_fixture(tmp_path: Path, suffix: str) -> None:
    """Of any form; aggregates without a count need none in .safetensors, and one in .npz."""
    for path in sorted((FIXTURES / "valid").glob("*.npy")):
        there, back = tmp_path / f"there{suffix}", tmp_path / "back.npy"
        done = convert_file(path, there)
        count = 7 if done.num_samples is None and suffix == ".npz" else None
        convert_file(there, back, num_samples=count)
        before, after = (np.load(p, allow_pickle=True) for p in (path, back))
        one = list(before) if done.num_samples is None else before[1]
        other = list(after) if done.num_samples is None and count is None else after[1]
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()), path.name


def test_large_arrays_in_fortran_order(tmp_path: Path) -> None:
    """One that is turned in memory, and one that goes through a file."""
    arrays = [np.arange(n, dtype="float32").reshape(50, -1) for n in (3_000_000, 6_000_000)]
    root = np.empty(2, dtype=object)
    root[:] = 7, [np.asfortranarray(array) for array in arrays]
    np.save(tmp_path / "f.npy", root, allow_pickle=True)
    convert_file(tmp_path / "f.npy", tmp_path / "f.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "f.safetensors")
    for index, array in enumerate(arrays):
        assert np.array_equal(found[f"parameters.{index}"], array)


# --- .npz ------------------------------------------------------------------------------------


def test_what_an_npz_holds(update: Path, tmp_path: Path) -> None:
    convert_file(update, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["weighting", *(f"layer_{at}" for at in range(len(MIXED)))]
        weighting = archive["weighting"]
        assert (weighting.dtype, weighting.shape, weighting[0]) == ("float64", (1,), 1329)
        for index, array in enumerate(MIXED):
            found = archive[f"layer_{index}"]
            assert (found.shape, found.dtype) == (array.shape, array.dtype)
            assert np.array_equal(found, array)


def npz(path: Path, *, compressed: bool = True, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def layers(count: int) -> dict[str, Any]:
    return {f"layer_{at}": np.full(2, at, "float32") for at in range(count)}


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = dict(sorted(layers(12).items()))
    assert list(found)[:3] == ["layer_0", "layer_1", "layer_10"]
    path = npz(tmp_path / "a.npz", weighting=np.array([7.0]), **found)
    convert_file(path, tmp_path / "a.npy")
    assert (tmp_path / "a.npy").read_bytes() == build_update(7, list(layers(12).values()))


@pytest.mark.parametrize("weighting", [7.0, [7], np.float32(7), np.int32(7), [[7.0]]])
@pytest.mark.parametrize("compressed", [True, False])
def test_weightings(tmp_path: Path, weighting: Any, compressed: bool) -> None:
    path = npz(tmp_path / "a.npz", compressed=compressed, weighting=weighting, **layers(1))
    assert convert_file(path, tmp_path / "a.npy").num_samples == 7


def test_an_aggregate_needs_a_count(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", **layers(2))
    with pytest.raises(InvalidSourceError, match="--num-samples"):
        convert_file(path, tmp_path / "a.npy")
    assert convert_file(path, tmp_path / "a.npy", num_samples=9).num_samples == 9
    assert convert_file(path, tmp_path / "a.safetensors").kind == "aggregate"


def test_a_payload_kind(tmp_path: Path) -> None:
    kind = {"__bk_payload_kind__": np.array("federated_learning")}
    path = npz(tmp_path / "a.npz", weighting=7.0, **layers(1), **kind)
    assert convert_file(path, tmp_path / "a.npy").num_samples == 7
    kind = {"__bk_payload_kind__": np.array("federated_analytics")}
    path = npz(tmp_path / "a.npz", weighting=7.0, **layers(1), **kind)
    with pytest.raises(InvalidSourceError, match="federated_analytics"):
        convert_file(path, tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weighting": 7.5, **layers(1)}, "no number of samples"),
        ({"weighting": 0.0, **layers(1)}, "no number of samples"),
        ({"weighting": -1, **layers(1)}, "no number of samples"),
        ({"weighting": np.nan, **layers(1)}, "no number of samples"),
        ({"weighting": np.inf, **layers(1)}, "no number of samples"),
        ({"weighting": 2.0**54, **layers(1)}, "no number of samples"),
        ({"weighting": [1.0, 2.0], **layers(1)}, "not a single number"),
        ({"weighting": True, **layers(1)}, "not a single number"),
        ({"weighting": np.zeros(10_000), **layers(1)}, "for a single value"),
        ({"weighting": 7.0}, "no layer_0"),
        ({"weighting": 7.0, "layer_1": W}, "layer_0 is missing"),
        ({"weighting": 7.0, "layer_0": W, "layer_2": W}, "layer_1 is missing"),
        ({"weighting": 7.0, "layer_00": W}, "neither weighting nor layer_0"),
        ({"weighting": 7.0, "layer_0": W, "bias": B}, "bias: neither weighting"),
        ({"weighting": 7.0, "layer_0": np.array([None])}, "array of objects"),
        ({"weighting": 7.0, "layer_0": W.astype("c8")}, "BK332"),
        ({"weighting": 7.0, "layer_0": np.array(["a"])}, "BK335"),
        ({"weighting": np.array(None), "layer_0": W}, "array of objects"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidSourceError, match=message):
        convert_file(path, tmp_path / "a.npy")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_values_are_looked_at(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", weighting=7.0, layer_0=W, layer_1=np.array([1, np.nan]))
    for suffix in (".npy", ".safetensors"):
        with pytest.raises(InvalidUpdateError) as caught:
            convert_file(path, tmp_path / f"a{suffix}")
        (found,) = caught.value.report.findings
        assert (found.code, found.where, found.offset) == ("BK401", "parameters[1]", None)
    assert os.listdir(tmp_path) == ["a.npz"]


def _zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("layer_0.npy", _npy(W)[:-1])], "47 bytes where"),
        ([("layer_0.npy", _npy(W) + b"x")], "49 bytes where"),
        ([("layer_0.npy", b"\x93NUMPY\1\0\xff\xff{")], "no .npy header"),
        ([("layer_0.npy", b"")], "no .npy header"),
        ([("layer_0.npy", b"\x93NUMPY\1\0\x80\0" + b"(" * 127 + b"\n")], "no .npy header"),
        ([("layer_0.npy", _npy(W)), ("layer_0.npy", _npy(B))], "twice"),
        ([("layer_0.npy", _npy(W)), ("readme.txt", b"x")], "not an .npy"),
        ([("../layer_0.npy", _npy(W))], "neither weighting"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_broken_archives(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    path = _zip(tmp_path / "a.npz", members)
    with pytest.raises(InvalidSourceError, match=message):
        convert_file(path, tmp_path / "a.npy", num_samples=1)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_another_compression(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.npz", [("layer_0.npy", _npy(W))], zipfile.ZIP_LZMA)
    with pytest.raises(InvalidSourceError, match="another method"):
        convert_file(path, tmp_path / "a.npy", num_samples=1)


def test_a_flipped_bit_fails_the_checksum(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", compressed=False, layer_0=np.full(2, 1.5, "float32"))
    data = bytearray(path.read_bytes())
    data[data.index(np.full(2, 1.5, "float32").tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidSourceError, match="CRC"):
        convert_file(path, tmp_path / "a.npy", num_samples=1)


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -30])
def test_cut_archives(tmp_path: Path, cut: int) -> None:
    path = npz(tmp_path / "a.npz", **layers(3))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidSourceError):
        convert_file(path, tmp_path / "a.npy", num_samples=1)
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_an_archive_of_zeros_that_grows(tmp_path: Path, suffix: str) -> None:
    path = npz(tmp_path / "a.npz", weighting=7.0, layer_0=np.zeros(80 << 20, "float32"))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(OSError, match="past the limit of 268,435,456"):
        convert_file(path, tmp_path / f"a{suffix}")
    with pytest.raises(OSError, match="past the limit of 1,000"):
        convert_file(path, tmp_path / f"a{suffix}", max_size=1000)
    assert os.listdir(tmp_path) == ["a.npz"]


# --- .safetensors ----------------------------------------------------------------------------


def test_what_the_real_library_reads(update: Path, tmp_path: Path) -> None:
    convert_file(update, tmp_path / "a.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert sorted(found) == [f"parameters.{at}" for at in range(len(MIXED))]
    for index, array in enumerate(MIXED):
        assert np.array_equal(found[f"parameters.{index}"], array)
        assert found[f"parameters.{index}"].dtype == array.dtype
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata()["num_samples"] == "1329"
        assert json.loads(file.metadata()["order"])[1] == "parameters.1"


def test_names_of_a_schema(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(build_update(7, [W, B]))
    specs = [{"name": "z.weight"}, {"name": "a.bias"}]
    schema = UpdateSchema.model_validate({"version": 1, "parameters": specs})
    convert_file(tmp_path / "a.npy", tmp_path / "a.safetensors", schema=schema)
    found = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert np.array_equal(found["z.weight"], W)
    convert_file(tmp_path / "a.safetensors", tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == build_update(7, [W, B])
    some = UpdateSchema.model_validate({"version": 1, "parameters": [{"name": "z"}, {}]})
    with pytest.raises(InvalidSourceError, match="some of the arrays"):
        convert_file(tmp_path / "a.npy", tmp_path / "c.safetensors", schema=some)
    one = UpdateSchema.model_validate({"version": 1, "parameters": [{"name": "z"}]})
    with pytest.raises(InvalidUpdateError):
        convert_file(tmp_path / "a.npy", tmp_path / "c.safetensors", schema=one)


def test_what_the_real_library_writes(tmp_path: Path) -> None:
    arrays = {f"parameters.{at}": np.full((2, at), at, "float32") for at in range(12)}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    for wrong in (0, -1, 2**53 + 1, 7.0, True):
        with pytest.raises((ValueError, TypeError), match="num_samples"):
            convert_file(tmp_path / "a.safetensors", tmp_path / "x.npz", num_samples=wrong)
    convert_file(tmp_path / "a.safetensors", tmp_path / "a.npy", num_samples=7)
    assert (tmp_path / "a.npy").read_bytes() == build_update(7, list(arrays.values()))


def _tensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _f4(start: int, stop: int, count: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [count], "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", b"", "no JSON"),
        (b"[]", b"", "no JSON object"),
        (b"{", b"", "no JSON"),
        (b"[" * 90_000, b"", "no JSON"),
        (b"\xff\xfe", b"", "no JSON"),
        ({}, b"", "holds no array"),
        ({"a": _f4(0, 8, 2)}, b"\0" * 7, "the arrays end at"),
        ({"a": _f4(0, 8, 2)}, b"\0" * 9, "the arrays end at"),
        ({"a": _f4(1, 9, 2)}, b"\0" * 9, "a hole or overlap"),
        ({"a": _f4(0, 8, 2), "b": _f4(4, 12, 2)}, b"\0" * 12, "a hole or overlap"),
        ({"a": _f4(0, 8, 2), "b": _f4(0, 8, 2)}, b"\0" * 8, "a hole or overlap"),
        ({"a": _f4(0, 8, 3)}, b"\0" * 8, "8 bytes where it needs 12"),
        ({"a": _f4(8, 0, 2)}, b"", "-8 bytes where it needs 8"),
        ({"a": _f4(-8, 0, 2)}, b"", "no sizes"),
        ({"a": {**_f4(0, 8, 2), "x": 1}}, b"\0" * 8, "not dtype, shape and data_offsets"),
        ({"a": {**_f4(0, 4, 1), "shape": [True]}}, b"\0" * 4, "no sizes"),
        ({"a": {**_f4(0, 4, 1), "shape": [1] * 33}}, b"\0" * 4, "33 dimensions"),
        ({"a": {**_f4(0, 8, 2), "dtype": "F8_E4M3"}}, b"\0" * 8, "F8_E4M3"),
        ({"a": {**_f4(0, 4, 2), "dtype": "BF16"}}, b"\0" * 4, "BK224"),
        ({"a": {**_f4(0, 8, 2), "dtype": ["F32"]}}, b"\0" * 8, "F32"),
        ({"a": 7}, b"", "not dtype, shape"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
         b'"data_offsets":[4,8]}}', b"\0" * 8, "twice"),
        ({"__metadata__": {"num_samples": 7}, "a": _f4(0, 8, 2)}, b"\0" * 8, "text to text"),
        ({"__metadata__": {"num_samples": "7.0"}, "a": _f4(0, 8, 2)}, b"\0" * 8, "num_samples"),
        ({"__metadata__": {"num_samples": "0"}, "a": _f4(0, 8, 2)}, b"\0" * 8, "num_samples"),
        ({"__metadata__": {"order": "["}, "a": _f4(0, 8, 2)}, b"\0" * 8, "order"),
        ({"__metadata__": {"order": '["b"]'}, "a": _f4(0, 8, 2)}, b"\0" * 8, "order"),
        ({"__metadata__": {"order": "7"}, "a": _f4(0, 8, 2)}, b"\0" * 8, "order"),
        ({"a": {**_f4(0, 0, 0), "shape": [0, 2**63]}}, b"", "no sizes"),
    ],
)  # fmt: skip
def test_broken_safetensors(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = _tensors(tmp_path / "a.safetensors", header, data)
    with pytest.raises(InvalidSourceError, match=message):
        convert_file(path, tmp_path / "a.npy", num_samples=7)
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("length", [3, 100, 100_000_001, 2**63, 2**64 - 1])
def test_lengths_of_the_header(tmp_path: Path, length: int) -> None:
    path = _tensors(tmp_path / "a.safetensors", {"a": _f4(0, 8, 2)}, b"\0" * 8, length)
    with pytest.raises(InvalidSourceError):
        convert_file(path, tmp_path / "a.npy", num_samples=7)
    path.write_bytes(b"1234567")
    with pytest.raises(InvalidSourceError, match="shorter than 8"):
        convert_file(path, tmp_path / "a.npy", num_samples=7)


# --- all of them -----------------------------------------------------------------------------


def test_counts_must_agree(update: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSourceError, match="1,329"):
        convert_file(update, tmp_path / "a.npz", num_samples=7)
    assert convert_file(update, tmp_path / "a.npz", num_samples=1329).num_samples == 1329


def test_suffixes(update: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in"):
        convert_file(update, tmp_path / "a.txt")
    with pytest.raises(ValueError, match="both are"):
        convert_file(update, tmp_path / "a.NPY")


def test_an_invalid_update(tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    with pytest.raises(InvalidUpdateError) as caught:
        convert_file(FIXTURES / "invalid" / "BK401-f4-form-e.npy", out)
    assert caught.value.report.findings[0].code == "BK401"
    with pytest.raises(InvalidUpdateError):
        convert_file(FIXTURES / "invalid" / "BK101-empty.npy", out)
    assert not out.exists()


def test_the_output_is_judged(update: Path, tmp_path: Path) -> None:
    convert_file(update, tmp_path / "a.npz")
    convert_file(tmp_path / "a.npz", tmp_path / "b.npy", fsync=False)
    assert check_file(tmp_path / "b.npy").valid
