"""The command: one ready line, credentials, a clean end; trouble is one line and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from bktransport.cli_sandbox import sandbox
from bktransport.sandbox.faults import NAMES

from .sandbox_calls import TIMEOUT, an_update, multipart, wait_until

_ROOT = Path(__file__).parents[2]
_COMMAND = [
    sys.executable, "-W", "error", "-c", "from bktransport.cli_sandbox import sandbox; sandbox()",
]  # fmt: skip
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_ROOT)}


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command, once it is ready."""
    with subprocess.Popen(
        [*_COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=_ENVIRONMENT,
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()


def refused(*arguments: str) -> str:
    """What it says where it can't be started."""
    done = CliRunner().invoke(sandbox, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_it_is_told(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "credentials"
    with started("--leaves", "3", "--quorum", "1", "--credentials", str(folder)) as (child, ready):
        assert sorted(ready) == ["amqp", "http"]
        host, _, port = ready["amqp"].partition(":")
        with socket.create_connection((host, int(port)), TIMEOUT):
            pass
        assert sorted(os.listdir(folder)) == ["leaf-1.json", "leaf-2.json", "leaf-3.json"]
        given = json.loads((folder / "leaf-2.json").read_text())
        assert stat.S_IMODE((folder / "leaf-2.json").stat().st_mode) == 0o600
        assert given["host"] == ready["http"]
        answer = requests.post(
            given["host"] + "/v1/file/upload", timeout=TIMEOUT,
            auth=(given["leaf_id"], given["leaf_session_token"]),
            data=b"".join(multipart(an_update())),
            headers={"Content-Type": "multipart/form-data; boundary=xyz"},
        )  # fmt: skip
        assert answer.status_code == 201
        child.send_signal(number)
        out, err = child.communicate(timeout=TIMEOUT)
        assert (child.returncode, out, err) == (0, "", "")
    with pytest.raises(requests.ConnectionError):
        requests.get(ready["http"] + "/sandbox/state", timeout=TIMEOUT)


def test_options_reach_the_sandbox() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started("--http-port", str(port), "--fail", "busy", "--fail", "drop:2") as (child, ready):
        assert ready["http"] == f"http://127.0.0.1:{port}"
        state = requests.get(ready["http"] + "/sandbox/state", timeout=TIMEOUT).json()
        assert len(state["leaves"]) == 2
        child.terminate()
        wait_until(lambda: child.poll() is not None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail", "bus"], ", ".join(NAMES)),
        (["--fail", "busy:x"], "how often"),
        (["--bind", "10.0.0.1"], "loopback"),
        (["--bind", "no\nwhere"], "loopback"),
        (["--quorum", "3"], "quorum is 3"),
        (["--leaves", "0"], "--leaves"),
        (["--http-port", "70000"], "--http-port"),
        (["--amqp-url", "http://127.0.0.1/"], "URL"),
    ],
)
def test_bad_usage(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--http-port", "--amqp-port"):
            said = refused(option, str(port))
            assert "already in use" in said
            assert str(port) in said


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused("--credentials", str(tmp_path / "file" / "folder"))
    assert "Not a directory" in said
    assert "file/folder" in said


def test_signals_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    refused("--fail", "bus")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_without_werkzeug(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the extra."""
    import bktransport.sandbox as package

    monkeypatch.delitem(vars(package), "Sandbox", raising=False)
    missing: Any = None
    monkeypatch.setitem(sys.modules, "werkzeug", missing)
    assert 'pip install "bkformat[sandbox]"' in refused()


def test_help_says_what_is_guessed() -> None:
    done = CliRunner().invoke(sandbox, ["--help"])
    assert done.exit_code == 0
    assert "branchkey 2.4.2" in done.stdout
    assert "guesses" in done.stdout
    for name in NAMES:
        assert name in done.stdout
