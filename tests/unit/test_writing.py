"""What a write leaves behind when it is killed or interrupted, and how much memory it takes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from bkformat import build_update, check_file, inspect_file, load_file, write_update

_WRITER = """
import sys
import numpy as np
from bkformat import write_update
big = np.arange(3 << 20, dtype="float32")
small = [np.full((3, 4), at, "float32") for at in range(200)]
print("ready", flush=True)
count = 1
while True:
    write_update("update.npy", count % 1000 + 1, [big, *small, big.reshape(-1, 64).T], fsync=False).close()
    count += 1
"""  # noqa: E501


def _start(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_write_that_is_ended_at_any_moment(tmp_path: Path, number: signal.Signals) -> None:
    """The name has the whole old or a whole new file; only SIGKILL leaves a temporary one."""
    rng = random.Random(7)
    path = tmp_path / "update.npy"
    write_update(path, 1, [np.zeros(3)], fsync=False).close()
    litter = 0
    for _ in range(25):
        child = _start(tmp_path)
        time.sleep(rng.uniform(0, 0.25))
        child.send_signal(number)
        _, error = child.communicate(timeout=60)
        assert child.returncode == -number
        assert number == signal.SIGKILL or "KeyboardInterrupt" in error
        report = check_file(path)
        assert report.valid
        names = set(os.listdir(tmp_path)) - {"update.npy"}
        assert len(names) <= (number == signal.SIGKILL)
        for name in names:
            assert name.startswith(".bkformat-")
            assert name.endswith(".tmp")
            os.unlink(tmp_path / name)
        litter += len(names)
    assert litter > 3 or number != signal.SIGKILL  # the moments were well chosen


_TRACED = tuple(f"{os.sep}{name}.py" for name in ("output", "writing", "contextlib"))


def _interrupted(step: int, call: Callable[[], object]) -> bool:
    """Make the call with a Ctrl-C at that step of the writer; whether there was such a step."""
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        if not frame.f_code.co_filename.endswith(_TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event in ("call", "opcode")
        if steps == step:
            sys.settrace(None)
            raise KeyboardInterrupt
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return steps == step


def test_an_interrupt_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments that a signal hits once in a million writes: no litter, the old or new file."""
    # While a generator is closed, Python lets no exception out, and the write goes on.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    path, values = tmp_path / "update.npy", np.arange(3, dtype="float32")
    states = {build_update(1, [values]): 0, build_update(2, [values]): 0}
    step = 0
    again = True
    while again:
        step += 1
        path.write_bytes(next(iter(states)))
        again = _interrupted(step, lambda: write_update(path, 2, [values], fsync=False).close())
        states[path.read_bytes()] += 1
        assert os.listdir(tmp_path) == [path.name], step
    assert len(states) == 2
    assert min(states.values()) > 10


def test_payloads_past_4_gib(tmp_path: Path) -> None:
    """Of one number that is repeated, so that it takes no memory."""
    if shutil.disk_usage(tmp_path).free < 6 << 30:
        pytest.skip("no room for a file of 4 GiB: payloads past 4 GiB were not tried")
    path = tmp_path / "update.npy"
    tracemalloc.start()
    try:
        _assert_past_4_gib(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
        path.unlink(missing_ok=True)  # pytest would keep it for the next runs


def _assert_past_4_gib(path: Path) -> None:
    repeated = np.broadcast_to(np.float32(1.5), ((1 << 30) + 5,))
    with write_update(path, 7, [np.zeros(3, "f4"), repeated], fsync=False) as proof:
        assert proof.nbytes > 1 << 32
    assert check_file(path, values=False).valid
    layout = inspect_file(path)
    assert (layout.protocol, layout.writer, layout.loads_on) == (4, "canonical", ">=1.16")
    assert layout.parameters[1].aligned
    with path.open("rb") as file:
        head = file.read(2048)
    assert b"\x8e" + repeated.nbytes.to_bytes(8, "little") in head
    assert b"\x95" not in head[128:400]
    update = load_file(path, values=False)
    assert update.parameters[1].shape == repeated.shape
    assert update.parameters[1][-1] == update.parameters[1][1 << 30] == np.float32(1.5)


_PEAK = """
import resource, sys
import numpy as np
import bkformat, bkformat.writing
base = np.random.default_rng(1).random(1 << 24)          # 128 MiB
base[:] = base                                            # all of it is there
array = {array}
small = bkformat.write_update("warm.npy", 7, [base[:10]], fsync=False).close()
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
before = peak()
bkformat.write_update("update.npy", 7, [array], fsync=False, dtype={dtype}).close()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        ("base", None),
        ("base.reshape(4096, -1).T", None),
        ("base[::2]", None),
        ("base.view('>f8').view('<f8')", "float32"),
    ],
)
def test_memory_above_the_arrays(tmp_path: Path, array: str, dtype: str | None) -> None:
    """At most 16 MiB, whatever has to be turned or converted."""
    code = _PEAK.format(array=array, dtype=repr(dtype))
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(said.stdout) < 16 << 10
