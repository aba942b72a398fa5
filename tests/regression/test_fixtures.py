"""The conformance suite: every file gives exactly the verdict that the manifest says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bkformat import RULES, UpdateSchema, check_file
from bkformat.rules import ERROR

_FIXTURES = Path(__file__).parents[2] / "fixtures"
_MANIFEST: dict[str, Any] = json.loads((_FIXTURES / "manifest.json").read_text("utf-8"))
_ENTRIES: list[dict[str, Any]] = _MANIFEST["files"]
_LARGEST = 3_000_000
_KEYS = ["path", "kind", "schema", "origin", "sha256", "valid", "codes"]


def _schema(entry: dict[str, Any]) -> UpdateSchema | None:
    if entry["schema"] is None:
        return None
    return UpdateSchema.model_validate_json((_FIXTURES / entry["schema"]).read_bytes())


@pytest.mark.parametrize("entry", _ENTRIES, ids=[entry["path"] for entry in _ENTRIES])
def test_file_gives_its_verdict(entry: dict[str, Any]) -> None:
    path = _FIXTURES / entry["path"]
    report = check_file(path, kind=entry["kind"], schema=_schema(entry))
    assert sorted({found.code for found in report.findings}) == entry["codes"]
    assert report.valid is entry["valid"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("entry", _ENTRIES, ids=[entry["path"] for entry in _ENTRIES])
def test_findings_have_coordinates_inside_the_file(entry: dict[str, Any]) -> None:
    report = check_file(_FIXTURES / entry["path"], kind=entry["kind"], schema=_schema(entry))
    for found in report.findings:
        rule = RULES[found.code]
        assert (found.name, found.severity) == (rule.name, rule.severity)
        assert found.offset is None or 0 <= found.offset <= report.nbytes
        assert found.message.isprintable()
        # What the schema says of the whole file or its count lies at no byte.
        assert found.offset is not None or found.code in {"BK501", "BK504", "BK507"}


def test_manifest_has_the_form_that_the_readme_promises() -> None:
    assert list(_MANIFEST) == ["version", "files"]
    assert _MANIFEST["version"] == 1
    assert all(list(entry) == _KEYS for entry in _ENTRIES)
    paths = [entry["path"] for entry in _ENTRIES]
    assert paths == sorted(set(paths))


def test_names_are_verdicts() -> None:
    for entry in _ENTRIES:
        folder, name = entry["path"].split("/")
        assert entry["codes"] == re.findall("BK[0-9]{3}", name), entry["path"]
        errors = [code for code in entry["codes"] if RULES[code].severity == ERROR]
        expected = {"invalid": not errors, "valid": entry["codes"], "warning": errors}
        assert not expected.get(folder), entry["path"]
        assert entry["valid"] is (not errors), entry["path"]
        assert (folder == "schema") is (entry["schema"] is not None), entry["path"]


def test_every_rule_has_a_file_that_breaks_it_alone() -> None:
    shown = {entry["codes"][0] for entry in _ENTRIES if len(entry["codes"]) == 1}
    assert shown == set(RULES)


def test_real_writers_are_in_the_suite() -> None:
    origins = {entry["origin"] for entry in _ENTRIES}
    assert {
        "assembled",
        "numpy 1.16.6, Python 2.7",
        "numpy 1.16.6, Python 3.6",
        "numpy 1.17.5, Python 3.6",
        "numpy 1.26.4, Python 3.11",
        "numpy 2.4.6, Python 3.11",
    } <= origins


@pytest.mark.parametrize(
    ("assembled", "written"),
    [
        ("numpy1.17-base", "base-numpy-1.17.5-python-3.6"),
        ("numpy1.26-base", "base-numpy-1.26.4-python-3.11"),
        ("numpy2-base", "base-numpy-2.4.6-python-3.11"),
    ],
)
def test_assembler_writes_what_numpy_writes(assembled: str, written: str) -> None:
    folder = _FIXTURES / "valid"
    assert (folder / f"{assembled}.npy").read_bytes() == (folder / f"{written}.npy").read_bytes()


def test_suite_is_as_make_would_write_it() -> None:
    make = [sys.executable, "-B", str(_FIXTURES / "make.py"), "--check"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_suite_stays_small() -> None:
    files = [path for path in _FIXTURES.rglob("*") if path.suffix in {".npy", ".json"}]
    assert sum(path.stat().st_size for path in files) < _LARGEST
