"""The child process that loads files, one for a whole module of tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Load = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Asks the child what every unpickler makes of a file."""
    child = subprocess.Popen(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("loader.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    def ask(path: Path) -> dict[str, Any]:
        stdin.write(f"{path}\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the child that loads files died"
        answers: dict[str, Any] = json.loads(line)
        return answers

    yield ask
    stdin.close()
    stdout.close()
    assert child.wait(30) == 0
