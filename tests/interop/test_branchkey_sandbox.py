"""The published client 2.4.2, unmodified, does its whole job against the sandbox."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import build_update, load_file, write_update
from bktransport.sandbox import Sandbox

from .environments import environment

_LEAF = str(Path(__file__).parent / "branchkey_leaf.py")
# As in the other tests of this client: numpy 1 has no wheels for Python 3.13.
_NUMPY = "2.1.3" if sys.version_info >= (3, 13) else "1.26.4"


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("branchkey==2.4.2", f"numpy=={_NUMPY}")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """It dials port 5672 whatever the credentials say: an address is taken where that is free."""
    with _at_port_5672() as running:
        yield running


def _at_port_5672() -> Sandbox:
    for number in range(1, 255):
        with contextlib.suppress(OSError):  # taken, or no address of this machine, as on macOS
            return Sandbox(leaves=2, quorum=2, bind=f"127.0.0.{number}", amqp_port=5672)
    raise AssertionError("no loopback address with a free port 5672")


def test_the_published_usage(python: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    paths = sandbox.write_credentials(tmp_path / "credentials")
    leaves = []
    for number, path in enumerate(paths, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        arrays = [np.full((4, 5), number, "f4"), np.full(3, -number, "f8")]
        write_update(folder / "update.npy", number, arrays).close()
        command = [str(python), _LEAF, "branchkey.client", str(path), "update.npy"]
        leaves.append(
            subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    _start_when_told(sandbox)
    for leaf in leaves:
        said, _ = leaf.communicate(timeout=120)
        assert leaf.returncode == 0, said
    _compare(sandbox, tmp_path)


def _start_when_told(sandbox: Sandbox) -> None:
    """After the metrics: the published client never acknowledges the status of the run."""
    until = time.monotonic() + 90
    while len(sandbox.state()["metrics"]) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    sandbox.set_run("start")


def _compare(sandbox: Sandbox, folder: Path) -> None:
    state = sandbox.state()
    ended = state["rounds"][0]
    assert ended["status"] == "done"
    # (1 * 1 + 2 * 2) / 3, rounded once
    mean = [np.full((4, 5), 5 / 3, "f4"), np.full(3, -5 / 3, "f8")]
    for number, leaf in enumerate(state["leaves"], 1):
        said: dict[str, Any] = json.loads((folder / str(number) / "said.json").read_text())
        uploads = [one for one in state["uploads"] if one["leaf_id"] == leaf["leaf_id"]]
        assert said == {
            "before": "pause", "authenticated": True, "file_id": uploads[0]["file_id"],
            "aggregation_id": ended["aggregation_id"], "metrics": True, "after": "start",
        }  # fmt: skip
        path = folder / str(number) / "aggregated_output" / f"{ended['aggregation_id']}.npy"
        assert path.read_bytes() == build_update(3, mean)
        assert load_file(path).num_samples == 3
    assert [(one["mode"], one["data"]) for one in state["metrics"]] == [
        ("test", '{"loss": 0.5}')
    ] * 2


def test_what_is_refused_is_told(python: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    """Its own check lets NaN pass; the sandbox's answer is the text of its exception."""
    path = sandbox.write_credentials(tmp_path)[0]
    data = bytearray(build_update(1, [np.ones(8, "f4")]))
    at = data.index(np.ones(8, "f4").tobytes())
    data[at : at + 4] = np.float32("nan").tobytes()
    (tmp_path / "update.npy").write_bytes(data)
    command = [str(python), _LEAF, "branchkey.client", str(path), "update.npy"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "invalid update: BK401" in done.stderr
    assert sandbox.state()["uploads"] == []
