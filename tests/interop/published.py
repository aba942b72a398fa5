"""The published client and ours, each in a process of its own, running one and the same script."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bktransport.sandbox.broker import EmbeddedBroker

from .environments import ROOT, environment

__all__ = ["LATER", "NUMPY", "OURS", "Outcome", "Peer", "broker_at_5672", "published"]

# As test_branchkey.py has it, so that the same environments serve.
NUMPY, LATER = "1.26.4", ["2.9.3", "3.0.1"]
if sys.version_info >= (3, 13):
    NUMPY, LATER = "2.1.3", ["3.0.1"]

_PORT = 5672
"""The published client dials no other, whatever its credentials say."""

_BEFORE = """\
import json, os, sys, time
from {module} import Client
credentials, host = json.loads(sys.stdin.readline()), sys.argv[1]
def tell(value):
    with open("told.jsonl", "a") as file:
        print(json.dumps(value), file=file)
"""


class Outcome(NamedTuple):
    """How a script ended.

    Attributes:
        told: what it handed to `tell`.
        code: exit code, negative for a signal.
        stdout: what it printed.
        stderr: what it logged.
    """

    told: list[Any]
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Peer:
    """One of the two clients.

    Attributes:
        python: an interpreter that has it.
        module: where `Client` is imported from.
        path: for PYTHONPATH, or None.
    """

    python: Path
    module: str
    path: Path | None = None

    @contextlib.contextmanager
    def started(
        self,
        script: str,
        folder: Path,
        credentials: Mapping[str, Any],
        host: str,
        environ: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a script in a folder, which is its home too; it does not outlive the block.

        It finds `Client`, `credentials`, `host` and `tell(value)`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [str(self.python), "-c", _BEFORE.format(module=self.module) + script, host],
            cwd=folder,
            env=self._environ(folder) | dict(environ or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps(dict(credentials)) + "\n")
                process.stdin.flush()
                yield process
            except BaseException:
                process.kill()
                assert process.stderr is not None
                print(process.stderr.read())  # noqa: T201  (pytest shows it with the failure)
                raise
            finally:
                process.kill()

    def _environ(self, folder: Path) -> dict[str, str]:
        """No proxies, no netrc, no state of the user's."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        kept |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        return kept | ({"PYTHONPATH": str(self.path)} if self.path else {})

    def run(
        self,
        script: str,
        folder: Path,
        credentials: Mapping[str, Any],
        host: str,
        environ: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a script to its end, within a minute."""
        with self.started(script, folder, credentials, host, environ) as process:
            return ended(process, folder)


def ended(process: subprocess.Popen[str], folder: Path) -> Outcome:
    """Wait for a script that was started in `folder`."""
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(told(folder), process.returncode, stdout, stderr)


def told(folder: Path) -> list[Any]:
    """What a script has told so far."""
    path = folder / "told.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


OURS = Peer(Path(sys.executable), "bktransport", ROOT)


def published(version: str = "2.4.2", *also: str) -> Peer:
    """The published client, as pip installs it."""
    if version == "2.4.2" and not also:
        also = (f"numpy=={NUMPY}",)
    return Peer(environment(f"branchkey=={version}", *also), "branchkey.client")


def broker_at_5672(**options: Any) -> EmbeddedBroker:
    """A broker where the published client looks for one, on an address that has the port free."""
    for number in [*range(2, 60), 1]:  # macOS has 127.0.0.1 alone
        with contextlib.suppress(OSError):
            return EmbeddedBroker(bind=f"127.0.0.{number}", port=_PORT, **options)
    why = "port 5672 is taken on all of 127.0.0.1 to 127.0.0.59"
    if os.environ.get("CI"):
        pytest.fail(f"CI must prove the client beside branchkey==2.4.2: {why}", pytrace=False)
    pytest.skip(f"NOT PROVEN beside branchkey==2.4.2: {why}")
