"""What `build_update` writes loads in numpys older than bkformat runs with, without a warning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import build_update, inspect_file

from .environments import environment, interpreter, run
from .writer import DTYPES, cases, ramp

_HERE = Path(__file__).parent

_NUMPYS = {
    "1.16.6": "3.7",
    "1.18.5": "3.8",
    "1.21.6": "3.10",
    "1.23.5": "3.10",
    "1.26.0": "3.10",  # the last that fails on files of numpy 2
}
"""Those that receivers may still have, and a Python that has wheels of each."""


def _every_case() -> Iterator[tuple[str, int, list[Any]]]:
    yield from cases()
    weights = ramp("f4", 6, 8)
    unaligned = np.frombuffer(b"x" + weights.tobytes(), "f4", 48, 1).reshape(6, 8)
    assert not unaligned.flags.aligned
    yield "other-byte-order", 7, [weights.astype(">f4"), ramp("f8", 3).astype(">f8")]
    yield "unaligned", 7, [unaligned, weights[::-1, ::-1], np.broadcast_to(weights[0], (6, 8))]
    yield "1000-arrays", 7, [ramp("f4", 3) for _ in range(1000)]
    yield "1001-arrays", 7, [ramp("f4", 3) for _ in range(1001)]
    yield (
        "past-1-MiB",
        7,
        [ramp("f4", 700, 700), ramp("f2", 5), np.asfortranarray(ramp("f8", 600, 400))],
    )
    yield "all-dtypes", 7, [ramp(dtype, 5) for dtype in DTYPES * 2]


def _old() -> list[Any]:
    """Versions; those whose Python is missing are skipped, and pytest lists them."""
    found = []
    for version, python in _NUMPYS.items():
        reason = f"NOT PROVEN on numpy {version}: no Python {python} on PATH or in PYENV_ROOT"
        marks = [pytest.mark.skip(reason=reason)] if interpreter(python) is None else []
        found.append(pytest.param(version, python, id=version, marks=marks))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    """Files, and what every numpy must say of them."""
    folder = tmp_path_factory.mktemp("built")
    told = {}
    for name, count, arrays in _every_case():
        path = folder / f"{name}.npy"
        path.write_bytes(build_update(count, arrays))
        told[path] = _expected(count, arrays)
    return told


def _expected(count: int, arrays: list[Any]) -> dict[str, Any]:
    wanted = [
        (array.astype(array.dtype.newbyteorder("<")), array.dtype.newbyteorder("<"))
        for array in arrays
    ]
    return {
        "outer": ["ndarray", "object", [2]],
        "count": ["int", repr(count)],
        "list": "list",
        "arrays": [
            ["ndarray", dtype.str, True, list(array.shape), True, _digest(array.tobytes())]
            for array, dtype in wanted
        ],
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("version", "python"), _old())
def test_old_numpys_load_it(built: dict[Path, dict[str, Any]], version: str, python: str) -> None:
    reader = environment(f"numpy=={version}", python=python)
    paths = "".join(f"{path}\n" for path in built)
    said = run([str(reader), "-W", "error", str(_HERE / "reader.py")], "loading", input=paths)
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(built) > 30
    for (path, wanted), answer in zip(built.items(), answers, strict=True):
        assert answer.pop("numpy") == version
        assert answer == wanted, path.name


def test_payloads_begin_at_multiples_of_64(built: dict[Path, dict[str, Any]]) -> None:
    for path, wanted in built.items():
        data = path.read_bytes()
        layout = inspect_file(path)
        assert (layout.protocol, layout.writer, str(layout.loads_on)) == (3, "canonical", ">=1.16")
        assert len(layout.parameters) == len(wanted["arrays"])
        for array, (*_, digest) in zip(layout.parameters, wanted["arrays"], strict=True):
            assert array.offset % 64 == 0
            assert _digest(data[array.offset : array.offset + array.nbytes]) == digest
