"""Every single byte of a good file replaced, left out or added: refused, or read as loaders do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bkformat import check_bytes

from .expected import LOADERS, expected
from .files import asm

Load = Callable[[Path], dict[str, Any]]


def small(form: Any) -> bytes:
    """Every kind of opcode and little payload: of values, most bytes are as good as others."""
    arrays = [
        form.array((1, 2), "i1", b"\1\2", fortran=asm.TRUE),
        form.array((), "f2", b"\0\x3c"),
        form.array((1,), "f2", b"\0\x3d"),
    ]
    memo = "used" if form is asm.CANONICAL else "all"
    return bytes(form.file(form.update(*arrays, num_samples=300), memo=memo).data)


def replaced(data: bytes) -> Iterator[bytes]:
    for at, was in enumerate(data):
        for byte in range(256):
            if byte != was:
                yield data[:at] + bytes([byte]) + data[at + 1 :]


def inserted(data: bytes) -> Iterator[bytes]:
    for at in range(len(data) + 1):
        for byte in range(256):
            yield data[:at] + bytes([byte]) + data[at:]


def left_out(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[:at] + data[at + 1 :]


_FORMS = {"C": asm.C, "D": asm.D, "E": asm.E, "canonical": asm.CANONICAL}


@pytest.mark.parametrize("change", [replaced, inserted, left_out])
@pytest.mark.parametrize("name", _FORMS)
def test_one_byte(
    name: str, change: Callable[[bytes], Iterator[bytes]], load: Load, tmp_path: Path
) -> None:
    path = tmp_path / "update.npy"
    accepted = tried = 0
    for data in change(small(_FORMS[name])):
        tried += 1
        report = check_bytes(data)
        if not report.valid:
            assert report.findings
            continue
        accepted += 1
        assert report.layout is not None
        path.write_bytes(data)
        answers = load(path)
        assert list(answers) == LOADERS
        told = expected(data, report.layout)
        assert all(answer == told for answer in answers.values()), (data, told, answers)
    assert tried >= 300
    assert accepted > 0 or change is not replaced
