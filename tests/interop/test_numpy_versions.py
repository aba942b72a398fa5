"""Files of other numpys are read here, and our fixtures load in other numpys without a warning.

Each numpy has an environment of its own under .venv-interop, made with pip the first time and kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bkformat import check_bytes, check_file, inspect_file, load_file

from ..property.expected import LOADERS, expected
from .environments import ROOT, environment, run

_HERE = Path(__file__).parent
_LOADER = _HERE.parent / "property" / "loader.py"
_FIXTURES = ROOT / "fixtures"

# The last numpy 1, where this Python has wheels of it, and 2.x, old and new.
VERSIONS = {
    (3, 10): ["1.26.4", "2.0.2", "2.2.6"],
    (3, 11): ["1.26.4", "2.0.2", "2.4.6"],
    (3, 12): ["1.26.4", "2.0.2", "2.4.6"],
    (3, 13): ["2.1.3", "2.2.6", "2.4.6"],
}.get(sys.version_info[:2], ["2.3.5", "2.4.6"])


@pytest.fixture(scope="module", params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    return environment(f"numpy=={request.param}")


@pytest.fixture(scope="module")
def written(python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of files by another numpy, and what it says is in them."""
    folder = tmp_path_factory.mktemp("written")
    told = run([str(python), "-W", "error", str(_HERE / "writer.py"), str(folder)], "np.save")
    return folder, json.loads(told)


def loaded(python: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """What another numpy makes of these files, any warning being an error."""
    answers = run(
        [str(python), "-W", "error", str(_LOADER)],
        "loading",
        input="".join(f"{path}\n" for path in paths),
    )
    return [json.loads(line) for line in answers.splitlines()]


def test_the_versions_are_those_asked_for(
    written: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    version = written[1]["version"]
    assert version in VERSIONS
    assert version in request.node.name


def test_what_other_numpys_write_is_valid(written: tuple[Path, dict[str, Any]]) -> None:
    folder, told = written
    old = told["version"].startswith("1.")
    assert len(told["files"]) > 25
    for name, (count, arrays) in told["files"].items():
        report = check_file(folder / f"{name}.npy")
        assert report.valid, (name, report.summary())
        assert {found.code for found in report.findings} <= {"BK601", "BK602", "BK603"}
        layout = inspect_file(folder / f"{name}.npy")
        assert (layout.protocol, layout.writer) == ((3, "D") if old else (4, "E"))
        assert layout.num_samples == count
        assert len(layout.parameters) == len(arrays)


@pytest.mark.parametrize("mmap", [True, False])
def test_what_other_numpys_write_is_loaded(
    written: tuple[Path, dict[str, Any]], mmap: bool
) -> None:
    folder, told = written
    for name, (count, arrays) in told["files"].items():
        update = load_file(folder / f"{name}.npy", mmap=mmap)
        assert update.num_samples == count
        found = [
            [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
            for array in update.parameters
        ]
        assert found == arrays, name


def test_they_load_to_what_we_report(
    python: Path, written: tuple[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """Files of any numpy, in the numpy that runs these tests and in their own."""
    folder, told = written
    paths = [folder / f"{name}.npy" for name in told["files"]]
    for interpreter in (python, Path(sys.executable)):
        _assert_loads(interpreter, paths)


@pytest.mark.parametrize("folder", ["valid", "warning"])
def test_fixtures_load_to_what_we_report(python: Path, folder: str) -> None:
    paths = sorted((_FIXTURES / folder).glob("*.npy"))
    assert len(paths) > 10
    _assert_loads(python, paths)


def _assert_loads(python: Path, paths: list[Path]) -> None:
    answers = loaded(python, paths)
    assert len(answers) == len(paths)
    for path, answer in zip(paths, answers, strict=True):
        data = path.read_bytes()
        report = check_bytes(data, kind="aggregate")
        assert report.layout is not None
        assert report.valid
        told = expected(data, report.layout)
        assert list(answer) == LOADERS
        for name, said in answer.items():
            assert said == told, (path.name, name)
