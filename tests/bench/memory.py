"""Peak memory of one call, above the imports: measured in a child process that does nothing else.

    python tests/bench/memory.py CALL WARM_UP PATH

The child imports, makes the call once on a small file, notes its peak, makes the call on PATH, and
prints how far the peak rose. On Linux the peak comes from /proc and is set back in between, since
ru_maxrss begins at what the parent held when it started the child, and the imports' own peak could
hide a smaller one.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Memory

from bkformat import check_file, check_many, convert_file, load_file, validate_file, write_update

__all__ = ["peak", "resident", "traced"]

_MIB = 1 << 20


def _prove(path: Path) -> None:
    validate_file(path).close()


def _check_folder(path: Path) -> None:
    files = path.glob("*.npy") if path.is_dir() else [path]
    deque(check_many(files), maxlen=0)


def _copies(path: Path) -> tuple[Path, list[np.ndarray]]:
    """The arrays of a file in memory of their own, so that they do not count."""
    return path.with_suffix(".written.npy"), load_file(path, mmap=False).parameters


def _write(prepared: tuple[Path, list[np.ndarray]]) -> None:
    path, arrays = prepared
    write_update(path, 7, arrays, fsync=False).close()
    path.unlink()


def _convert(suffix: str, path: Path) -> None:
    out = path.with_suffix(suffix)
    convert_file(path, out, fsync=False)
    out.unlink()


_PREPARATIONS: dict[str, Callable[[Path], Any]] = {"write": _copies}
"""What is made of the path before anything is measured."""

_CALLS: dict[str, Callable[[Any], object]] = {
    "write": _write,
    "load": lambda path: load_file(path, values=False),
    "to safetensors": partial(_convert, ".converted.safetensors"),
    "from safetensors": partial(_convert, ".converted.npy"),
    "structure": lambda path: check_file(path, values=False),
    "values": check_file,
    "values, jobs=2": lambda path: check_file(path, jobs=2),
    "np.load": lambda path: np.load(path, allow_pickle=True),
    "proof": _prove,
    "folder": _check_folder,
}


def peak(call: str, warm_up: Path, path: Path) -> Memory:
    """What the call takes at most."""
    command = [sys.executable, __file__, call, str(warm_up), str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    resident, traced = json.loads(out)
    return Memory(resident / _MIB, traced / _MIB)


def _high_water() -> int:
    """Bytes that were resident at most."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident(call: Callable[[Any], object], subject: Any) -> int:
    """Bytes by which the peak of the process rises."""
    _forget_peak()
    before = _high_water()
    call(subject)
    return _high_water() - before


def traced(call: Callable[[Any], object], subject: Any) -> int:
    """Bytes that Python and numpy allocate at most."""
    tracemalloc.start()
    call(subject)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def _main(name: str, warm_up: str, path: str) -> None:
    call, prepare = _CALLS[name], _PREPARATIONS.get(name, Path)
    call(prepare(Path(warm_up)))
    subject = prepare(Path(path))
    print(json.dumps([resident(call, subject), traced(call, subject)]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
