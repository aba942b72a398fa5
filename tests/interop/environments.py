"""Environments with other packages, made with pip the first time and kept under .venv-interop."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_CACHE = ROOT / ".venv-interop"
_OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def run(command: list[str], what: str, **options: Any) -> str:
    """What a command prints; a test that needs it fails where it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        pytest.fail(f"{what} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}", pytrace=False)
    return done.stdout


def environment(*requirements: str, python: str = _OURS) -> Path:
    """The interpreter of an environment with these packages, wheels alone.

    Args:
        requirements: what pip is asked for.
        python: the version of Python, such as "3.8"; `interpreter` must have found it.
    """
    _CACHE.mkdir(exist_ok=True)
    (_CACHE / ".gitignore").write_text("*\n", "utf-8")
    name = "-".join(requirement.replace("==", "-") for requirement in requirements)
    place = _CACHE / f"python-{python}-{name}"
    made_python = place / "bin" / "python"
    made = place / "made"  # written last: a half-made environment is made again
    if not made.exists():
        venv = [str(interpreter(python)), "-m", "venv", "--clear", str(place)]
        run(venv, "making an environment", timeout=200)
        pip = [str(made_python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wheels = ["--only-binary", ":all:", *requirements]
        run([*pip, *wheels], f"pip install {' '.join(requirements)}", timeout=250)
        made.touch()
    return made_python


@functools.cache
def interpreter(version: str) -> Path | None:
    """A Python of this version: the one that runs the tests, on PATH, or of pyenv."""
    for path in _candidates(version):
        ask = [
            str(path),
            "-c",
            "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])",
        ]
        try:
            done = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        if done.stdout.strip() == version:  # a shim may name a version that is not active
            return path
    return None


def _candidates(version: str) -> Iterator[Path]:
    if version == _OURS:
        yield Path(sys.executable)
    found = shutil.which(f"python{version}")
    if found is not None:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted((pyenv / "versions").glob(f"{version}.*/bin/python"))
