from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import InvalidUpdateError, build_update, check_bytes, check_file, repair_file

from .files import FIXTURES, asm

W = np.arange(12, dtype="float32").reshape(3, 4) / 8
B = np.arange(4, dtype="float64")


def outer(*items: Any) -> Any:
    root = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        root[index] = item
    return root


def saved(root: Any, protocol: int | None = None) -> bytes:
    """As np.save writes it, or with another pickle protocol."""
    buffer = io.BytesIO()
    np.save(buffer, root, allow_pickle=True)
    data = buffer.getvalue()
    return data if protocol is None else data[:128] + pickle.dumps(root, protocol=protocol)


def repaired(tmp_path: Path, data: bytes, **options: Any) -> tuple[bytes, tuple[str, ...]]:
    path, out = tmp_path / "in.npy", tmp_path / "out.npy"
    path.write_bytes(data)
    report = repair_file(path, out, **options)
    assert path.read_bytes() == data
    assert report.after.valid
    assert report.after == check_file(out, kind=report.after.kind)  # type: ignore[arg-type]
    return out.read_bytes(), report.changes


def big_endian(form: Any = asm.E) -> bytes:
    array = form.array((3,), "f4", np.arange(3, dtype=">f4").tobytes(),
                       dtype=form.dtype("f4", order=form.order(">")))  # fmt: skip
    return bytes(form.file(form.update(array)).data)


_CASES: dict[str, tuple[Callable[[], bytes], list[Any], list[str]]] = {
    "numpy integer": (lambda: saved(outer(np.int64(7), [W, B])), [W, B], ["BK309"]),
    "small numpy integer": (lambda: saved(outer(np.uint8(7), [W])), [W], ["BK309"]),
    "tuple": (lambda: saved(outer(7, (W, B))), [W, B], ["BK312"]),
    "tuple of one": (lambda: saved(outer(7, (W,))), [W], ["BK312"]),
    "numpy scalars": (
        lambda: saved(outer(7, [np.float32(1.5), W, np.float64(2)])),
        [np.array(1.5, "float32"), W, np.array(2.0)],
        ["BK317"],
    ),
    "big-endian": (big_endian, [np.arange(3, dtype="float32")], ["BK331"]),
    "shared": (lambda: saved(outer(7, [W, B, W])), [W, B, W], ["BK319"]),
    "several": (
        lambda: saved(outer(np.int32(7), (W, np.float32(1), W))),
        [W, np.array(1, "float32"), W],
        ["BK309", "BK312", "BK317", "BK319"],
    ),
    "fortran": (lambda: saved(outer(7, [np.asfortranarray(W)])), [W], []),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, None])
@pytest.mark.parametrize("case", _CASES)
def test_what_is_put_right(tmp_path: Path, case: str, protocol: int | None) -> None:
    make, arrays, codes = _CASES[case]
    data = make()
    if case == "big-endian":
        protocol = None  # assembled in one protocol
    if protocol is not None:
        data = data[:128] + pickle.dumps(pickle.loads(data[128:]), protocol=protocol)
    found, changes = repaired(tmp_path, data)
    assert found == build_update(7, arrays)
    assert [code for code in codes if not any(code in change for change in changes)] == []
    assert len(changes) == len(codes) + 1
    assert ("protocol 2" in changes[0]) == (protocol == 2)


def test_python_2_files(tmp_path: Path) -> None:
    """Form A, written down by hand: byte strings are SHORT_BINSTRING, a large int is INT."""
    call = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR"
    dtype = b"cnumpy\ndtype\n(U\2%sK\0K\1tR(K\3U\1%sNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK%stb"
    payload = np.array([1.5, -2.5], "float32").tobytes()
    array = call + b"(K\1K\2\x85" + dtype % (b"f4", b"<", b"\0") + b"\x89U\x08" + payload + b"tb"
    outer = (
        b"(K\1K\2\x85" + dtype % (b"O8", b"|", b"\x3f") + b"\x89](I2147483648\n]" + array + b"aetb"
    )
    data = asm.npy_header(descr="'|O8'", align=16) + b"\x80\2" + call + outer + b"."
    assert np.load(io.BytesIO(data), allow_pickle=True, encoding="latin1")[0] == 2**31
    found, changes = repaired(tmp_path, data)
    assert found == build_update(2**31, [np.array([1.5, -2.5], "float32")])
    assert changes == ("pickle protocol 2, of numpy 1.16 or older, rewritten in canonical form",)


@pytest.mark.parametrize("nbytes", [0, 1, 255, 256, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_payloads_that_are_texts(tmp_path: Path, nbytes: int) -> None:
    """Form B: every byte value, and sequences of two bytes that blocks cut in the middle."""
    array = np.resize(np.arange(256, dtype="uint8")[::-1], nbytes)
    shifted = np.resize(np.roll(np.arange(256, dtype="uint8"), 1), nbytes + 1)
    data = saved(outer(7, [array, shifted]), 2)
    assert repaired(tmp_path, data)[0] == build_update(7, [array, shifted])


def test_many_arrays_of_protocol_2(tmp_path: Path) -> None:
    arrays = [np.full((at % 5, 2), at, ["float32", ">f8", "int16"][at % 3]) for at in range(1100)]
    data = saved(outer(7, arrays), 2)
    assert repaired(tmp_path, data)[0] == build_update(7, arrays)


def test_canonical_files_stay_as_they_are(tmp_path: Path) -> None:
    data = build_update(7, [W, B])
    assert repaired(tmp_path, data) == (data, ())


def test_aggregates_without_a_count(tmp_path: Path) -> None:
    data = saved(outer(W, B))
    found, _ = repaired(tmp_path, data)
    assert check_bytes(found, kind="aggregate").valid
    loaded = np.load(io.BytesIO(found), allow_pickle=True)
    assert loaded.shape == (2,)
    assert all(np.array_equal(*pair) for pair in zip(loaded, [W, B], strict=True))


def test_every_valid_fixture(tmp_path: Path) -> None:
    for path in sorted((FIXTURES / "valid").glob("*.npy")):
        found, _ = repaired(tmp_path, path.read_bytes())
        report = check_bytes(found, kind="aggregate")
        assert report.layout is not None
        assert report.layout.writer == "canonical", path.name
        before, after = (np.load(p, allow_pickle=True) for p in (path, tmp_path / "out.npy"))
        pair = (list(before), list(after)) if before.shape != (2,) else (before[1], after[1])
        if before.shape == (2,) and isinstance(before[0], np.ndarray):
            pair = (list(before), list(after))
        for one, other in zip(*pair, strict=True):
            assert one.tobytes() == other.tobytes()
            assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize(
    ("root", "code"),
    [
        (outer(7.0, [W]), "BK308"),
        (outer(np.float64(7), [W]), "BK309"),
        (outer(np.True_, [W]), "BK309"),
        (outer(np.int64(0), [W]), "BK311"),
        (outer(np.int64(-7), [W]), "BK311"),
        (outer(True, [W]), "BK307"),
        (outer(7, [1.5]), "BK316"),
        (outer(7, [np.array([np.nan])]), "BK401"),
        (outer(7, [np.array([np.inf], ">f4")]), "BK402"),
        (outer(7, [W.astype("complex64")]), "BK332"),
        (outer(7, [np.complex64(1)]), "BK317"),
        (outer(7, W), "BK314"),
        (outer(7, [W], 3), "BK302"),
        (outer([W], 7), "BK306"),
    ],
)
@pytest.mark.parametrize("protocol", [2, None])
def test_what_would_be_a_guess(tmp_path: Path, root: Any, code: str, protocol: int | None) -> None:
    path, out = tmp_path / "in.npy", tmp_path / "out.npy"
    path.write_bytes(saved(root, protocol))
    out.write_bytes(b"old")
    with pytest.raises(InvalidUpdateError) as caught:
        repair_file(path, out)
    assert code in {found.code for found in caught.value.report.findings}
    assert out.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["in.npy", "out.npy"]


@pytest.mark.parametrize("text", ["f12", "f16", "c24", "c32", "c8"])
def test_dtypes_that_no_update_or_no_machine_holds(tmp_path: Path, text: str) -> None:
    form = asm.D
    big = form.dtype(text, order=form.order(">"))
    size = int(text[1:])
    array = form.array((1,), body=asm.bytes_of(bytes(size)), dtype=big)
    scalar = asm.tuple_of(form.dtype(text), asm.bytes_of(bytes(size)))
    call = [form.name(form.core, "scalar"), scalar, asm.REDUCE]
    for update in (form.update(array), form.update(call), form.update(num_samples=call)):
        (tmp_path / "in.npy").write_bytes(form.file(update).data)
        with pytest.raises(InvalidUpdateError):
            repair_file(tmp_path / "in.npy", tmp_path / "out.npy")
        assert os.listdir(tmp_path) == ["in.npy"]


def test_every_invalid_fixture_is_repaired_or_refused(tmp_path: Path) -> None:
    """And nothing but the mistakes that are understood is ever repaired."""
    mended = set()
    for path in sorted((FIXTURES / "invalid").glob("*.npy")):
        code = path.name.split("-")[0]
        try:
            repaired(tmp_path, path.read_bytes())
        except InvalidUpdateError:
            continue
        mended.add(code)
    assert mended <= {"BK202", "BK305", "BK309", "BK312", "BK317", "BK319", "BK331"}
    assert mended >= {"BK309", "BK312", "BK317", "BK319", "BK331"}


def _protocol_2(stream: bytes) -> bytes:
    return asm.npy_header() + b"\x80\2" + stream


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"cos\nmkdir\n.", "BK203"),
        (b"c__builtin__\neval\n.", "BK203"),
        (b"c__builtin__\nbytes\nK\1\x85R.", "BK328"),
        (b"c_codecs\nencode\nX\1\0\0\0aX\5\0\0\0utf-8\x86R.", "BK328"),
        (b"c_codecs\nencode\nX\2\0\0\0\xc4\x80X\6\0\0\0latin1\x86R.", "BK219"),
        (b"c_codecs\nencode\nX\1\0\0\0\xc3X\6\0\0\0latin1\x86R.", "BK219"),
        (b"X\xff\xff\xff\xffa.", "BK209"),
        (b"I" + b"9" * 30 + b"\n.", "BK218"),
        (b"Ix\n.", "BK219"),
        (b"\x8c\1a.", "BK206"),
        (b"C\1a.", "BK206"),
        (b"U\1", "BK209"),
        (b"I01\n.", "BK301"),
    ],
)
def test_hostile_streams_of_protocol_2(tmp_path: Path, stream: bytes, code: str) -> None:
    path = tmp_path / "in.npy"
    path.write_bytes(_protocol_2(stream))
    with pytest.raises(InvalidUpdateError) as caught:
        repair_file(path, tmp_path / "out.npy")
    assert [found.code for found in caught.value.report.findings] == [code]
    assert os.listdir(tmp_path) == ["in.npy"]


def test_a_small_file_that_grows(tmp_path: Path) -> None:
    big = np.zeros(1 << 20, "float32")
    path = tmp_path / "in.npy"
    path.write_bytes(saved(outer(7, [big] * 200)))
    with pytest.raises(OSError, match="past the limit of 268,435,456"):
        repair_file(path, tmp_path / "out.npy")
    assert os.listdir(tmp_path) == ["in.npy"]
    report = repair_file(path, tmp_path / "out.npy", max_size=1 << 30, fsync=False)
    assert report.after.nbytes > 200 << 22


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    path = tmp_path / "in.npy"
    path.write_bytes(saved(outer(7, [W])))
    (tmp_path / "link.npy").symlink_to(path)
    for out in (path, tmp_path / "link.npy"):
        with pytest.raises(ValueError, match="the same file"):
            repair_file(path, out)
