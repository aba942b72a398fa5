"""The proof: made by validation alone, and it hands out the very bytes that were judged."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from bkformat import (
    InvalidUpdateError,
    UpdateChangedError,
    UpdateSchema,
    ValidatedUpdate,
    proof,
    validate_bytes,
    validate_file,
)

from .files import FIXTURES, aggregate, update, zeros

_MIB = 1 << 20


def _digest(data: bytes) -> str:
    """Compared in place of megabytes, whose difference takes minutes to show."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three blocks and a bit."""
    path = tmp_path / "update.npy"
    rng = np.random.default_rng(5)
    arrays = [rng.random(3 * _MIB // 4 + 100, "f4"), np.asfortranarray(rng.random((3, 4)))]
    path.write_bytes(update(*arrays, num_samples=1329))
    return path


def test_attributes(path: Path) -> None:
    with validate_file(path) as found:
        assert (found.kind, found.num_samples, found.schema) == ("update", 1329, None)
        assert found.values_checked
        assert found.nbytes == path.stat().st_size
        assert found.layout.num_samples == 1329
        assert found.sha256[:12] in repr(found)


@pytest.mark.parametrize("name", ["form-c", "form-e", "canonical", "form-e-1100-arrays"])
@pytest.mark.parametrize("values", [True, False])
def test_the_hash_is_hashlib_s(name: str, values: bool) -> None:
    path = FIXTURES / "valid" / f"{name}.npy"
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for _ in range(2):  # read, and recalled
        with validate_file(path, values=values) as found:
            assert found.sha256 == digest
            assert found.values_checked is values
        with validate_bytes(data, values=values) as found:
            assert found.sha256 == digest


def test_what_is_invalid_has_no_proof(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidUpdateError) as caught:
        validate_file(path)
    assert not caught.value.report.valid
    with pytest.raises(InvalidUpdateError):
        validate_bytes(b"")
    with pytest.raises(InvalidUpdateError):
        validate_bytes(aggregate(*zeros((2,), (3,))))
    with pytest.raises(ValueError, match="kind"):
        validate_file(path, kind="upload")  # type: ignore[arg-type]
    assert len(os.listdir("/dev/fd")) == before


def test_kind_and_schema_are_kept() -> None:
    schema = UpdateSchema.model_validate({"version": 1, "dtypes": ["float32"]})
    found = validate_bytes(aggregate(*zeros((2,))), kind="aggregate", schema=schema)
    assert (found.kind, found.num_samples, found.schema) == ("aggregate", None, schema)


def test_it_can_not_be_made_by_hand() -> None:
    found = validate_bytes(update(*zeros((2,))))
    for arguments in ((), (None,), (object(), found._source)):
        with pytest.raises(TypeError):
            ValidatedUpdate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        type("Forged", (ValidatedUpdate,), {})
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copier(found)
    with pytest.raises(AttributeError):
        found.trusted = True  # type: ignore[attr-defined]


def test_blocks_are_the_file(path: Path) -> None:
    data = path.read_bytes()
    digest = _digest(data)
    for found in (validate_file(path), validate_bytes(data)):
        with found:
            for _ in range(2):
                blocks = list(found.blocks())
                assert _digest(b"".join(blocks)) == digest
                assert len(blocks) == -(-len(data) // _MIB)
                assert all(0 < len(block) <= _MIB for block in blocks)


def test_the_open_file_is_sent_and_not_the_path(path: Path) -> None:
    data = path.read_bytes()
    with validate_file(path) as found:
        beside = path.with_name("other")
        beside.write_bytes(b"something else")
        os.replace(beside, path)
        assert _digest(b"".join(found.blocks())) == _digest(data)


@pytest.mark.parametrize("at", [0, 200, _MIB, -1])
def test_a_changed_file_never_arrives_whole(path: Path, at: int) -> None:
    """Whichever byte changed, the last block is not handed out."""
    data = bytearray(path.read_bytes())
    with validate_file(path) as found:
        data[at] ^= 1
        with path.open("r+b") as file:
            file.write(data)
        received: list[bytes] = []
        with pytest.raises(UpdateChangedError):
            received.extend(found.blocks())
        assert sum(map(len, received)) == len(data) - len(data) % _MIB
        with pytest.raises(UpdateChangedError):
            found.parameters()


def test_a_change_between_blocks(path: Path) -> None:
    with validate_file(path) as found:
        blocks = found.blocks()
        first = next(blocks)
        with path.open("r+b") as file:
            file.seek(2 * _MIB)
            file.write(b"changed!")
        with pytest.raises(UpdateChangedError):
            list(blocks)
        assert first == path.read_bytes()[:_MIB]


def test_a_truncated_file_is_an_os_error(path: Path) -> None:
    with validate_file(path) as found:
        os.truncate(path, _MIB + 5)
        with pytest.raises(OSError, match="cut short"):
            list(found.blocks())
        with pytest.raises(OSError, match="cut short"):
            found.parameters()


def test_a_change_between_parsing_and_hashing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that were parsed are compared with those that are hashed."""
    data = path.read_bytes()
    at = data.index(b"M1\x05")  # the count, 1329
    judge = proof.judge
    assert judge(proof.source_of(data), sha256=True).report.valid

    class Changing(proof.BytesSource):
        """Changes once the stream was parsed: then the header alone is asked for."""

        def read_at(self, offset: int, length: int) -> bytes:
            if (offset, length) == (0, 128):
                self._data = data[:at] + b"M2\x05" + data[at + 3 :]
            return super().read_at(offset, length)

    with pytest.raises(UpdateChangedError):
        judge(Changing(data), sha256=True)


def test_parameters(path: Path) -> None:
    with validate_file(path) as found:
        copied, mapped = found.parameters(), found.parameters(mmap=True)
    for one, other in zip(copied, mapped, strict=True):
        assert np.array_equal(one, other)
        assert not one.flags.writeable
        assert not other.flags.writeable
    assert copied[1].flags.f_contiguous
    in_memory = validate_bytes(path.read_bytes()).parameters(mmap=True)
    assert np.array_equal(in_memory[0], copied[0])


def test_closing(path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    found = validate_file(path)
    assert len(os.listdir("/dev/fd")) == before + 1
    found.close()
    found.close()
    assert len(os.listdir("/dev/fd")) == before
    assert found.num_samples == 1329
    with pytest.raises(ValueError, match="closed"):
        list(found.blocks())
    with pytest.raises(ValueError, match="closed"):
        found.parameters()
    with pytest.raises(ZeroDivisionError), validate_file(path):
        raise ZeroDivisionError
    assert len(os.listdir("/dev/fd")) == before
