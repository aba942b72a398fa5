"""Environments with other packages, made with pip the first time and kept under .venv-interop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_CACHE = ROOT / ".venv-interop"


def run(command: list[str], what: str, **options: Any) -> str:
    """What a command prints; a test that needs it fails where it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        pytest.fail(f"{what} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}", pytrace=False)
    return done.stdout


def environment(*requirements: str) -> Path:
    """The interpreter of an environment of this Python with these packages, wheels alone."""
    _CACHE.mkdir(exist_ok=True)
    (_CACHE / ".gitignore").write_text("*\n", "utf-8")
    name = "-".join(requirement.replace("==", "-") for requirement in requirements)
    place = _CACHE / f"python-{sys.version_info[0]}.{sys.version_info[1]}-{name}"
    python = place / "bin" / "python"
    made = place / "made"  # written last: a half-made environment is made again
    if not made.exists():
        venv = [sys.executable, "-m", "venv", "--clear", str(place)]
        run(venv, "making an environment", timeout=200)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wheels = ["--only-binary", ":all:", *requirements]
        run([*pip, *wheels], f"pip install {' '.join(requirements)}", timeout=250)
        made.touch()
    return python
