"""Judging a file imports, runs and opens nothing, whatever the file says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .files import FIXTURES, asm

_FORBIDDEN = [
    "import", "exec", "compile", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.putenv", "os.chmod", "shutil.",
    "subprocess.", "socket.", "ctypes.", "pickle.", "marshal.", "mmap.", "glob.", "tempfile.",
    "urllib.", "webbrowser.", "sqlite3.", "code.", "function.", "object.__setattr__",
]  # fmt: skip

_WATCH = """
import json, os, sys
import bkformat
from bkformat import comparison, layout, load, values

judged, schema, paths, forbidden = None, None, json.loads(sys.argv[1]), json.loads(sys.argv[2])
warm = paths.pop(0)
if "values" in sys.argv[3]:
    schema = bkformat.UpdateSchema.model_validate(
        {"version": 1, "max_abs": 1e9, "dtypes": ["float32"], "parameters": [{"shape": [3, 4]}]}
    )
for path in (warm, warm):
    bkformat.check_file(path, schema=schema, sha256=True)
    bkformat.check_file(path, kind="aggregate")
seen = []

def watch(event, arguments):
    if judged is None:
        return
    if event == "open":
        if os.fspath(arguments[0]) != judged:
            seen.append((judged, event, str(arguments[0])))
    elif event.startswith(tuple(forbidden)):
        seen.append((judged, event, repr(arguments)[:100]))

sys.addaudithook(watch)
verdicts, modules = [], set(sys.modules)
for path in paths:
    judged = path
    report = bkformat.check_file(path, schema=schema, sha256=True)
    again = bkformat.check_file(path, kind="aggregate")
    judged = None
    verdicts.append([report.valid, again.valid])
new = sorted(set(sys.modules) - modules)
judged = "the hook itself"
compile("0", "hook", "eval")
judged = None
print(json.dumps({"seen": seen, "verdicts": verdicts, "new": new}))
"""


def _hostile(folder: Path) -> list[Path]:
    """Streams that make a folder where they are loaded, each by another way."""
    marker = folder / "marker"
    text = asm.unicode32(str(marker))
    calls = {
        "reduce": [asm.global_line("os", "mkdir"), text, asm.TUPLE1, asm.REDUCE],
        "posix": [asm.global_line("posix", "mkdir"), text, asm.TUPLE1, asm.REDUCE],
        "inst": [asm.MARK, text, asm.inst_line("os", "mkdir")],
        "obj": [asm.MARK, asm.global_line("os", "mkdir"), text, asm.OBJ],
        "newobj": [asm.global_line("os", "mkdir"), text, asm.TUPLE1, asm.NEWOBJ],
        "stack-global": [asm.unicode32("os"), asm.unicode32("mkdir"), asm.STACK_GLOBAL, text,
                         asm.TUPLE1, asm.REDUCE],
        "exec": [asm.global_line("builtins", "exec"), asm.unicode32("import os"), asm.TUPLE1,
                 asm.REDUCE],
        "import": [asm.global_line("antigravity", "geohash")],
        "dotted": [asm.global_line("numpy", "dtype.__init__")],
        "runstring": [asm.global_line("numpy.testing._private.utils", "runstring")],
    }  # fmt: skip
    paths = []
    for form in (asm.D, asm.E):
        for name, call in calls.items():
            path = folder / f"{name}-{form.protocol}.npy"
            path.write_bytes(form.file(form.update(num_samples=call)).data)
            paths.append(path)
    header = folder / "header.npy"
    header.write_bytes(asm.npy_header(text="__import__('os').mkdir('marker')") + b".")
    return [*paths, header]


def _watched(paths: list[Path], mode: str) -> dict[str, Any]:
    warm = FIXTURES / "valid" / "form-e.npy"
    arguments = [json.dumps([str(path) for path in (warm, *paths)]), json.dumps(_FORBIDDEN), mode]
    run = subprocess.run(
        [sys.executable, "-c", _WATCH, *arguments],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    # The watch sees what it should: without this, an empty list would say nothing.
    assert told["seen"].pop()[:2] == ["the hook itself", "compile"]
    return told


@pytest.mark.parametrize("mode", ["plain", "values and schema"])
@pytest.mark.parametrize("folder", ["invalid", "valid", "warning"])
def test_fixtures(folder: str, mode: str) -> None:
    paths = sorted((FIXTURES / folder).glob("*.npy"))
    assert len(paths) > 5
    told = _watched(paths, mode)
    assert told["seen"] == []
    assert told["new"] == []
    if mode == "plain":
        # Bare aggregates are no updates; every update is an aggregate too.
        verdicts = [
            update if folder == "invalid" else either for update, either in told["verdicts"]
        ]
        assert set(verdicts) == {folder != "invalid"}


@pytest.mark.parametrize("mode", ["plain", "values and schema"])
def test_hostile_files(tmp_path: Path, mode: str) -> None:
    paths = _hostile(tmp_path)
    told = _watched(paths, mode)
    assert told["seen"] == []
    assert told["new"] == []
    assert not any(map(any, told["verdicts"]))
    assert sorted(tmp_path.iterdir()) == sorted(paths)


_WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "pydantic", "click", "pickle", "_pickle"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import bkformat
for path in sys.argv[1:]:
    verdicts = [bkformat.check_file(path, values=False).valid for _ in range(2)]
    print(*verdicts)
    try:
        print(bkformat.inspect_file(path).num_samples)
    except bkformat.InvalidUpdateError as exc:
        print(exc.report.findings[0].code)
list(bkformat.check_many(sys.argv[1:], values=False))
try:
    bkformat.check_file(sys.argv[1])
except ImportError as exc:
    print(exc)
"""


def test_structure_is_judged_without_numpy_and_pydantic() -> None:
    paths = [FIXTURES / "valid" / "form-d.npy", FIXTURES / "invalid" / "BK101-empty.npy"]
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *map(str, paths)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "True True", "1329", "False False", "BK101", "numpy is blocked",
    ]  # fmt: skip
