from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bkformat
from bkformat import InvalidUpdateError, build_update, check_bytes, write_update

W = np.arange(12, dtype="float32").reshape(3, 4) / 8
B = np.arange(4, dtype="float32") / 8


def loaded(data: bytes) -> Any:
    return np.load(io.BytesIO(data), allow_pickle=True)


def codes(error: InvalidUpdateError) -> list[tuple[str, str]]:
    return [(found.code, found.where) for found in error.report.findings]


def refusal(*arguments: Any, **named: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidUpdateError) as caught:
        build_update(*arguments, **named)
    assert all(found.offset is None for found in caught.value.report.findings)
    return codes(caught.value)


# --- bytes -----------------------------------------------------------------------------------


def test_known_bytes() -> None:
    """Written down by hand from the description of the form."""
    data = build_update(7, [np.array([0, 1], "float32")])
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
    dtype = b"\x89\x88\x87R(K\3X\1\0\0\0"
    tail = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    before = (
        b"\x93NUMPY\1\0v\0" + head.ljust(117) + b"\n"
        b"\x80\3cnumpy.core.multiarray\n_reconstruct\nq\0cnumpy\nndarray\nq\1K\0\x85C\1bq\2\x87R"
        b"(K\1K\2\x85cnumpy\ndtype\nq\3X\2\0\0\0O8" + dtype + b"|" + tail + b"K?tb\x89"
        b"](K\7]h\0h\1K\0\x85h\2\x87R("
    )
    after = b"K\2\x85h\3X\2\0\0\0f4" + dtype + b"<" + tail + b"K\0tb\x89C\x08"
    padding = -(len(before) + 3 + len(after)) % 64
    version = b"\x8a" + bytes([1 + padding]) + b"\1" + bytes(padding)
    assert data == before + version + after + b"\0\0\0\0\0\0\x80?" + b"tbaetb."


@pytest.mark.parametrize("count", [1, 2, 3, 999, 1000, 1001, 2000, 2001])
def test_lists_of_any_length(count: int) -> None:
    data = build_update(1, [np.full((1,), at, "float32") for at in range(count)])
    report = check_bytes(data)
    assert report.valid
    assert report.layout is not None
    assert report.layout.writer == "canonical"
    assert all(array.aligned for array in report.layout.parameters)
    assert [array.item() for array in loaded(data)[1]] == list(range(count))


def test_layouts_and_byte_orders_of_the_input_do_not_matter() -> None:
    wanted = build_update(9, [W, B])
    wide = np.zeros((6, 8), "float32")
    wide[::2, ::2] = W
    backwards = W[::-1].copy()[::-1]
    unaligned = np.frombuffer(b"x" + W.tobytes(), "float32", 12, 1).reshape(3, 4)
    for same in (np.asfortranarray(W), wide[::2, ::2], backwards, W.astype(">f4"), unaligned):
        assert build_update(9, [same, B.astype(">f4")]) == wanted
        assert build_update(np.int64(9), (same, B)) == wanted


def test_large_arrays_of_other_layouts() -> None:
    big = np.arange(3_000_000, dtype="float64").reshape(1000, 3000)
    wanted = build_update(1, [big])
    assert np.array_equal(loaded(wanted)[1][0], big)
    assert build_update(1, [np.asfortranarray(big)]) == wanted
    assert build_update(1, [big.astype(">f8")]) == wanted
    assert build_update(1, [np.repeat(big, 2, axis=1)[:, ::2]]) == wanted


def test_no_dimensions_and_no_elements() -> None:
    arrays = [np.array(1.5), np.zeros((0, 3), "float32"), np.zeros((2, 0), "float16")]
    found = loaded(build_update(1, arrays))[1]
    assert [(a.shape, a.dtype.name) for a in found] == [
        ((), "float64"), ((0, 3), "float32"), ((2, 0), "float16"),
    ]  # fmt: skip
    assert found[0] == 1.5


def test_the_same_array_twice_is_written_twice() -> None:
    found = loaded(build_update(1, [W, W]))[1]
    assert found[0] is not found[1]
    assert not np.shares_memory(*found)


# --- num_samples -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 255, 256, 65_536, 2**31, 2**53, np.uint8(7), np.array(7)])
def test_counts(count: Any) -> None:
    found = loaded(build_update(count, [B]))[0]
    assert type(found) is int
    assert found == int(count)


@pytest.mark.parametrize(
    ("count", "code"),
    [
        (0, "BK311"), (-1, "BK311"), (2**53 + 1, "BK311"), (1 << 20_000, "BK311"),
        (True, "BK307"), (np.True_, "BK307"), (np.array(True), "BK307"),
        (7.0, "BK308"), (np.float32(7), "BK308"), (float("nan"), "BK308"),
        (np.array([7]), "BK310"), (np.array(7.0), "BK310"),
        ("7", "BK306"), (None, "BK306"), ([7], "BK306"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_counts_that_are_refused(count: Any, code: str) -> None:
    assert refusal(count, [B]) == [(code, "num_samples")]


def test_the_hint_for_a_whole_float_gives_the_int() -> None:
    with pytest.raises(InvalidUpdateError, match="give it as a plain int: 7"):
        build_update(7.0, [B])


# --- parameters ------------------------------------------------------------------------------


class Tensor:
    """Follows PyTorch's protocol: numpy() fails while it needs grad or lies on a device."""

    def __init__(self, array: Any, dtype: str, *, grad: bool = True, device: str = "gpu") -> None:
        self.array, self.grad, self.device = array, grad, device
        self.dtype = f"torch.{dtype}"
        self.shape = array.shape

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor that needs grad")

    def detach(self) -> Tensor:
        return Tensor(self.array, self.dtype[6:], grad=False, device=self.device)

    def cpu(self) -> Tensor:
        return Tensor(self.array, self.dtype[6:], grad=self.grad, device="cpu")

    def float(self) -> Tensor:
        return Tensor(self.array.astype("float32"), "float32", grad=self.grad, device=self.device)

    def numpy(self) -> Any:
        if self.grad or self.device != "cpu" or self.dtype == "torch.bfloat16":
            raise TypeError("call detach() and cpu() first; no bfloat16")
        return self.array


class Jax:
    """Follows the protocol of numpy alone."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


class Module:
    def state_dict(self) -> dict[str, Any]:
        return {}


def pairs() -> Iterator[tuple[str, Any]]:
    yield "weight", Tensor(W, "float32")
    yield "bias", Tensor(B, "float32")


@pytest.mark.parametrize(
    "parameters",
    [
        (W, B),
        {"weight": W, "bias": B},
        OrderedDict(weight=Tensor(W, "float32"), bias=Tensor(B, "float32")),
        [("weight", W), ("bias", B)],
        [Jax(W), Jax(B)],
        [Tensor(W, "float32"), B],
        iter([W, B]),
    ],
)
def test_containers(parameters: Any) -> None:
    assert build_update(7, parameters) == build_update(7, [W, B])


def test_named_parameters_are_an_iterator() -> None:
    assert build_update(7, pairs()) == build_update(7, [W, B])


def test_an_open_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weight=W, bias=B)
    with np.load(tmp_path / "a.npz") as archive:
        assert build_update(7, archive) == build_update(7, [W, B])


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ([], ("BK315", "parameters")),
        ({}, ("BK315", "parameters")),
        (W, ("BK314", "parameters")),
        (Tensor(W, "float32"), ("BK314", "parameters")),
        ("weights", ("BK314", "parameters")),
        (7, ("BK314", "parameters")),
        ({W.tobytes()}, ("BK314", "parameters")),
        (Module(), ("BK314", "parameters")),
        ([W, 1.5], ("BK316", "parameters[1]")),
        ([W, np.float32(1)], ("BK317", "parameters[1]")),
        ([W, None], ("BK318", "parameters[1]")),
        ([W, [1.0, 2.0]], ("BK318", "parameters[1]")),
        ({"layer": {"kernel": W}}, ("BK313", "parameters[0]")),
        ([np.ma.masked_array(W, W > 1)], ("BK222", "parameters[0]")),
        ([W.view(np.recarray)], ("BK222", "parameters[0]")),
        ([W.astype("complex64")], ("BK332", "parameters[0].dtype")),
        ([W.astype("longdouble")], ("BK333", "parameters[0].dtype")),
        ([np.zeros(2, "V4")], ("BK334", "parameters[0].dtype")),
        ([np.array(["a"])], ("BK335", "parameters[0].dtype")),
        ([np.array([b"a"])], ("BK335", "parameters[0].dtype")),
        ([np.zeros(2, "M8[s]")], ("BK336", "parameters[0].dtype")),
        ([np.array([None])], ("BK337", "parameters[0].dtype")),
        ([np.zeros(2, [("a", "f4")])], ("BK338", "parameters[0].dtype")),
        ([Tensor(W, "bfloat16")], ("BK224", "parameters[0].dtype")),
        ([W, np.array([np.nan])], ("BK401", "parameters[1]")),
        ([W, np.array([np.inf], ">f4")], ("BK402", "parameters[1]")),
        ([np.full(100_000, -np.inf)], ("BK402", "parameters[0]")),
    ],
)
def test_parameters_that_are_refused(parameters: Any, found: tuple[str, str]) -> None:
    assert refusal(7, parameters) == [found]


def test_everything_wrong_is_told_at_once() -> None:
    found = refusal(True, [W, 1.5, np.array([None]), None])
    assert [code for code, _ in found] == ["BK307", "BK316", "BK337", "BK318"]


def test_more_than_32_dimensions() -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("numpy 1 makes no array of more than 32 dimensions")
    assert refusal(1, [np.zeros((1,) * 33)]) == [("BK322", "parameters[0].shape")]


def test_a_memory_mapped_array_is_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", W)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert build_update(7, [mapped]) == build_update(7, [W])


# --- dtype -----------------------------------------------------------------------------------


def test_conversion_on_request() -> None:
    wide = np.array([0.1, 1e-50, -2], "float64")
    found = loaded(build_update(7, [wide, B.astype(">f4"), np.arange(3)], dtype="float32"))[1]
    assert [array.dtype.name for array in found] == ["float32"] * 3
    assert np.array_equal(found[0], wide.astype("float32"))
    assert build_update(7, [B], dtype=np.float16) == build_update(7, [B.astype("f2")])
    assert build_update(7, [Tensor(B, "bfloat16")], dtype="float32") == build_update(7, [B])


def test_a_conversion_that_overflows_is_refused() -> None:
    assert refusal(7, [np.array([1e300])], dtype="float32") == [("BK402", "parameters[0]")]


@pytest.mark.parametrize("value", [300, -1, np.nan, np.inf, 255.5])
def test_integers_that_do_not_fit(value: float) -> None:
    with pytest.raises(ValueError, match=r"parameters\[0\] holds values that uint8 does not"):
        build_update(7, [np.array([value])], dtype="uint8")


@pytest.mark.parametrize("dtype", ["complex64", "O", "S3", "longdouble"])
def test_dtypes_that_no_update_holds(dtype: str) -> None:
    with pytest.raises(ValueError, match="dtype is one of"):
        build_update(7, [B], dtype=dtype)


def test_no_dtype_at_all() -> None:
    with pytest.raises(TypeError):
        build_update(7, [B], dtype="flaot32")


# --- files -----------------------------------------------------------------------------------


def test_the_file_and_its_proof(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    with write_update(path, 7, [W, B, np.arange(3)]) as proof:
        assert path.read_bytes() == build_update(7, [W, B, np.arange(3)])
        assert b"".join(proof.blocks()) == path.read_bytes()
        assert (proof.kind, proof.num_samples, proof.values_checked) == ("update", 7, True)
        assert [found.code for found in proof.findings] == ["BK601"]
        assert np.array_equal(proof.parameters()[0], W)
    with bkformat.validate_file(path) as again:
        assert again.sha256 == proof.sha256
    assert os.listdir(tmp_path) == ["update.npy"]


def test_a_large_file_is_hashed_beside_the_writing(tmp_path: Path) -> None:
    big = np.arange(5_000_000, dtype="float32")
    turned = np.asfortranarray(big.reshape(2500, 2000))
    with write_update(tmp_path / "a.npy", 7, [W, big, B, turned], fsync=False) as proof:
        assert b"".join(proof.blocks())[-1:] == b"."
    assert bkformat.check_file(tmp_path / "a.npy", sha256=True).sha256 == proof.sha256


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(b"old")
    link = tmp_path / "link.npy"
    link.symlink_to(path)
    write_update(link, 7, [W]).close()
    assert link.is_symlink()
    assert path.read_bytes() == build_update(7, [W])


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_update(tmp_path / "update.npy", 7, [W]).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "update.npy").stat().st_mode) == 0o640


def test_what_is_refused_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(b"old")
    with pytest.raises(InvalidUpdateError):
        write_update(path, 7, [np.array([np.nan])])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["update.npy"]


def test_targets_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_update(tmp_path, 7, [W])
    with pytest.raises(OSError, match="Not a regular file"):
        write_update("/dev/null", 7, [W])
    with pytest.raises(FileNotFoundError):
        write_update(tmp_path / "missing" / "update.npy", 7, [W])
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="Not a regular file"):
        write_update(tmp_path / "fifo", 7, [W])
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interrupted_write_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(b"old")
    real = os.write

    def write(fd: int, data: Any) -> int:
        if fd > 2 and len(os.listdir(tmp_path)) > 1:
            real(fd, bytes(data[:10]))
            raise error
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(error):
        write_update(path, 7, [W])
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["update.npy"]


def test_a_file_size_limit_leaves_no_litter(tmp_path: Path) -> None:
    """What a full disk does, in a process of its own."""
    code = (
        "import resource, sys, numpy as np, bkformat\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n    bkformat.write_update('big.npy', 7, [np.zeros(1 << 20)])\n"
        "except OSError as exc:\n    print(type(exc).__name__, exc.filename)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "OSError big.npy\n"
    assert os.listdir(tmp_path) == []
