"""What is measured, one function a group; each gives rows of the table."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from data import NUM_ARRAYS, Data, large_model, outer
from measure import Call, Row, race
from memory import peak

from bkformat import (
    build_update,
    check_file,
    check_many,
    convert_file,
    load_file,
    validate_file,
    write_update,
)
from bkformat.recall import forget  # lets no file be recognised: each is read again

__all__ = ["GROUPS"]

_MIB = 1 << 20
_ROUNDS = 9
_STARTS = 15
_FOLDERS = 5  # each takes seconds


def _size(nbytes: int) -> str:
    return f"{nbytes >> 30} GiB" if nbytes >= 1 << 30 else f"{nbytes >> 20} MiB"


def _structure_of(path: Path) -> Call:
    report = check_file(path, values=False)
    if not report.valid:
        raise SystemExit(f"{path.name}: {report.summary()}")
    return partial(check_file, path, values=False)


def _load(path: Path) -> Any:
    return np.load(path, allow_pickle=True)


# --- structure -------------------------------------------------------------------------------


def structure(data: Data) -> Iterator[Row]:
    """The structure of a large file, against loading it; and that its size does not matter."""
    for nbytes in (data.large, data.medium):
        path = data.of_size(nbytes)
        times = race({"ours": _structure_of(path), "load": partial(_load, path)}, rounds=_ROUNDS)
        large = nbytes == data.large
        yield Row(
            f"structure of {_size(nbytes)} in {NUM_ARRAYS} arrays",
            "np.load", "faster", times["ours"], times["load"],
            wanted=200 if large else None,
            memory=peak("structure", data.tiny(), path),
            peer_memory=peak("np.load", data.tiny(), path),
            memory_bound=10,
        )  # fmt: skip
    paths = {"large": data.of_size(data.large), "medium": data.of_size(data.medium)}
    times = race({name: _structure_of(path) for name, path in paths.items()}, rounds=_ROUNDS)
    peer = f"the same of {_size(data.medium)}"
    yield Row(
        f"structure of {_size(data.large)}", peer, "time", times["large"], times["medium"]
    )  # fmt: skip


# --- values ----------------------------------------------------------------------------------


def _pread_through(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        offset = 0
        while block := os.pread(fd, _MIB, offset):
            offset += len(block)
    finally:
        os.close(fd)


def _preadv_through(path: Path, each: Callable[[memoryview], object] | None = None) -> None:
    """Read the file into one aligned buffer again and again."""
    raw = np.empty(_MIB + 4096, np.uint8)
    start = -raw.__array_interface__["data"][0] % 4096
    buffer = raw[start : start + _MIB].data
    fd = os.open(path, os.O_RDONLY)
    try:
        offset = 0
        while count := os.preadv(fd, [buffer], offset):
            offset += count
            if each is not None:
                each(buffer[:count])
    finally:
        os.close(fd)


def values(data: Data) -> Iterator[Row]:
    """Structure and every value, against reading the file and looking at nothing."""
    nbytes = data.large
    yield from _values_of(data, data.of_size(nbytes), f"{_size(nbytes)} of float32")
    yield from _values_of(data, data.aligned(nbytes), f"{_size(nbytes)} of float32, aligned")
    for dtype in ("float64", "float16"):
        yield from _values_of(data, data.of_size(nbytes, dtype), f"{_size(nbytes)} of {dtype}")


def _values_of(data: Data, path: Path, what: str) -> Iterator[Row]:
    if not check_file(path).valid:
        raise SystemExit(f"{path.name} is not valid")
    contestants: dict[str, Call] = {
        "one": partial(check_file, path),
        "preadv": partial(_preadv_through, path),
        "two": partial(check_file, path, jobs=2),
        "pread": partial(_pread_through, path),
    }
    times = race(contestants, rounds=_ROUNDS)
    memory, memory_of_two = (
        peak(call, data.tiny(), path) for call in ("values", "values, jobs=2")
    )  # fmt: skip
    yield Row(
        what, "preadv loop", "share", times["one"], times["preadv"],
        wanted=0.8, memory=memory, memory_bound=32,
    )  # fmt: skip
    yield Row(what, "pread loop", "share", times["one"], times["pread"])
    yield Row(
        f"{what}, jobs=2", "preadv loop", "share", times["two"], times["preadv"],
        memory=memory_of_two, memory_bound=32,
    )  # fmt: skip


# --- many small arrays -----------------------------------------------------------------------

_FORMS = {
    "numpy": f"written by numpy {np.__version__}",
    "old": "as numpy 1.19 to 1.26 writes",
    "canonical": "canonical",
}


def arrays(data: Data) -> Iterator[Row]:
    """Thousands of small arrays in one file, read anew each time, against loading them."""
    count = f"{data.num_small_arrays:,}"
    for form, writer in _FORMS.items():
        yield _anew(data, data.same_arrays(form), f"{count} arrays (8, 4), {writer}")
        yield _anew(data, data.random_arrays(form), f"{count} arrays of random shapes, {writer}")
    path = data.same_arrays("numpy")
    times = race({"ours": _structure_of(path), "load": partial(_load, path)}, rounds=_ROUNDS)
    what = f"{count} arrays (8, 4), the second time"
    yield Row(what, "np.load", "time", times["ours"], times["load"])


def _anew(data: Data, path: Path, what: str) -> Row:
    _load(path)  # fails if numpy can't read what we made
    contestants: dict[str, Call] = {"ours": _structure_of(path), "load": partial(_load, path)}
    times = race(contestants, rounds=_ROUNDS, before=forget)
    return Row(
        what, "np.load", "time", times["ours"], times["load"],
        wanted=2,
        memory=peak("structure", data.tiny(), path),
        peer_memory=peak("np.load", data.tiny(), path),
    )  # fmt: skip


# --- start -----------------------------------------------------------------------------------


def _run(*command: str) -> Call:
    """A process, which may keep what it compiles, as installing does; that it fails is told."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL, env=environment)


def _bkformat(*arguments: str) -> Call:
    script = Path(sys.executable).with_name("bkformat")
    command = (str(script),) if script.exists() else (sys.executable, "-m", "bkformat")
    return _run(*command, *arguments)


def start(data: Data) -> Iterator[Row]:
    """The command line on one small file, from the shell, against starting Python with numpy."""
    small = str(data.tiny())
    peer = 'python -c "import numpy"'
    commands = {
        "bkformat inspect": _bkformat("inspect", small),
        "bkformat validate --no-values": _bkformat("validate", "--no-values", small),
        "bkformat validate": _bkformat("validate", small),
    }
    numpy = _run(sys.executable, "-c", "import numpy")
    times = race({**commands, peer: numpy}, rounds=_STARTS)
    for name in commands:
        wanted = None if name == "bkformat validate" else 1  # values take numpy itself
        yield Row(f"{name} SMALL", peer, "time", times[name], times[peer], wanted=wanted)


# --- many small files ------------------------------------------------------------------------


_FLOATS = frozenset(map(np.dtype, ("float16", "float32", "float64")))


def _check_all(paths: Iterable[Path], executor: Executor | None = None) -> None:
    deque(check_many(paths, executor=executor), maxlen=0)


def _load_and_check(path: Path) -> bool:
    """What a careful script does with np.load."""
    num_samples, parameters = np.load(path, allow_pickle=True)
    return (
        type(num_samples) is int
        and 1 <= num_samples <= 2**53
        and type(parameters) is list
        and all(
            type(array) is np.ndarray and array.dtype in _FLOATS and np.isfinite(array).all()
            for array in parameters
        )
    )


def _load_all(paths: Iterable[Path], executor: Executor | None = None) -> None:
    good: Iterator[bool] = map(_load_and_check, paths)
    if executor is not None:
        good = executor.map(_load_and_check, paths, chunksize=64)
    if not all(good):
        raise SystemExit("np.load reads a bad file")


def files(data: Data) -> Iterator[Row]:
    """Folders of small files, alone, by two processes, and from the shell."""
    count = f"{data.num_files:,} files"
    folders = {
        f"{count} of one model": data.one_model(),
        f"{count}, each of other shapes": data.many_shapes(),
        f"{count} of 144 models in turn": data.many_models(),
    }
    for what, folder in folders.items():
        yield from _files_alone(data, folder, what)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for what, folder in folders.items():
            yield from _files_in_pool(data, folder, pool, f"{what}, 2 processes")
    for what, folder in folders.items():
        yield from _files_from_shell(data, folder, what)


def _files_alone(data: Data, folder: Path, what: str) -> Iterator[Row]:
    paths = sorted(folder.iterdir())
    if not all(getattr(report, "valid", False) for _, report in check_many(paths)):
        raise SystemExit(f"not every file of {folder.name} is valid")
    contestants = {"ours": partial(_check_all, paths), "load": partial(_load_all, paths)}
    times = race(contestants, rounds=_FOLDERS, before=forget)
    memory = peak("folder", data.tiny(), folder)
    yield Row(
        what, "np.load and the same checks", "time", times["ours"], times["load"],
        wanted=1, memory=memory, per=len(paths),
    )  # fmt: skip


def _files_in_pool(data: Data, folder: Path, pool: Executor, what: str) -> Iterator[Row]:
    paths = sorted(folder.iterdir())
    contestants = {
        "ours": partial(_check_all, paths, pool),
        "alone": partial(_check_all, paths),
        "load": partial(_load_all, paths, pool),
    }
    times = race(contestants, rounds=_FOLDERS)
    per = data.num_files
    yield Row(what, "one process", "faster", times["ours"], times["alone"], per=per)
    yield Row(what, "np.load in the same pool", "time", times["ours"], times["load"], per=per)


def _files_from_shell(data: Data, folder: Path, what: str) -> Iterator[Row]:
    times = race(
        {jobs: _bkformat("validate", "--jobs", jobs, "-q", str(folder)) for jobs in ("1", "2")},
        rounds=_FOLDERS,
    )  # fmt: skip
    what = f"bkformat validate --jobs 2 -q: {what}"
    yield Row(what, "--jobs 1", "faster", times["2"], times["1"], per=data.num_files)


# --- the proof -------------------------------------------------------------------------------


def _prove(path: Path) -> None:
    validate_file(path).close()


def _hash(path: Path) -> None:
    digest = hashlib.sha256()
    _preadv_through(path, digest.update)


def proof(data: Data) -> Iterator[Row]:
    """The proof, which needs the digest, against the digest alone."""
    path = data.of_size(data.large)
    times = race({"ours": partial(_prove, path), "hash": partial(_hash, path)}, rounds=_ROUNDS)
    memory = peak("proof", data.tiny(), path)
    what = f"validate_file, {_size(data.large)} of float32"
    yield Row(what, "hashlib.sha256", "time", times["ours"], times["hash"], memory=memory)


# --- imports ---------------------------------------------------------------------------------


def imports(_: Data) -> Iterator[Row]:
    """What an import costs, the interpreter's own start included, against importing numpy."""
    codes = [
        "pass", "import bkformat", "import bkformat.cli", "import bkformat.schema", "import numpy",
    ]  # fmt: skip
    times = race({code: _run(sys.executable, "-c", code) for code in codes}, rounds=_STARTS)
    peer = codes.pop()
    for code in codes:
        yield Row(f'python -c "{code}"', f'python -c "{peer}"', "time", times[code], times[peer])


# --- writing ---------------------------------------------------------------------------------


def write(data: Data) -> Iterator[Row]:
    """Writing, loading and converting a large file, and building one of many small arrays.

    Nobody waits for the disk; outputs are removed before the next one is written.
    """
    arrays = large_model(data.large, "float32")
    root, named = outer(7, arrays), {f"p{at:02}": array for at, array in enumerate(arrays)}
    path = data.folder / "output.npy"
    contestants: dict[str, Call] = {
        "ours": lambda: write_update(path, 7, arrays, fsync=False).close(),
        "np.save": lambda: np.save(path, root, allow_pickle=True),
        "safetensors": lambda: safetensors.numpy.save_file(named, path),
        "hash": lambda: deque(map(hashlib.sha256().update, arrays), maxlen=0),
    }
    times = race(contestants, rounds=_ROUNDS, before=partial(path.unlink, missing_ok=True))
    path.unlink(missing_ok=True)
    what = f"write_update of {_size(data.large)}"
    memory = peak("write", data.tiny(), data.aligned(data.large))
    yield Row(
        what, "np.save", "faster", times["ours"], times["np.save"],
        wanted=2, memory=memory, memory_bound=16,
    )  # fmt: skip
    yield Row(
        what, "safetensors.numpy.save_file", "faster", times["ours"], times["safetensors"], wanted=2
    )
    yield Row(what, "hashlib.sha256 alone", "time", times["ours"], times["hash"])
    yield from _load_rows(data, named)
    yield from _conversions(data)
    yield from _built(data)


def _load_rows(data: Data, named: dict[str, Any]) -> Iterator[Row]:
    path, other = data.aligned(data.large), data.folder / "output.safetensors"
    safetensors.numpy.save_file(named, other)
    times = race(
        {
            "ours": partial(load_file, path, values=False),
            "np.load": partial(_load, path),
            "safetensors": partial(safetensors.numpy.load_file, other),
        },
        rounds=_ROUNDS,
    )
    other.unlink()
    what = f"load_file of {_size(data.large)}, values=False"
    yield Row(
        what, "np.load", "faster", times["ours"], times["np.load"],
        wanted=100, memory=peak("load", data.tiny(), path),
    )  # fmt: skip
    yield Row(
        what, "safetensors.numpy.load_file", "faster", times["ours"], times["safetensors"],
        wanted=100,
    )  # fmt: skip


def _conversions(data: Data) -> Iterator[Row]:
    source, tensors = data.aligned(data.large), data.folder / "converted.safetensors"
    small = data.folder / "small.safetensors"
    convert_file(data.tiny(), small, fsync=False)
    convert_file(source, tensors, fsync=False)
    memory = {
        "to": peak("to safetensors", data.tiny(), source),
        "from": peak("from safetensors", small, tensors),
    }
    for name, one, suffix in (("to", source, ".safetensors"), ("from", tensors, ".npy")):
        out = data.folder / f"output{suffix}"
        times = race(
            {
                "ours": partial(convert_file, one, out, fsync=False),
                "copy": partial(shutil.copyfile, one, out),
            },
            rounds=_ROUNDS,
            before=partial(out.unlink, missing_ok=True),
        )
        out.unlink()
        yield Row(
            f"convert {_size(data.large)} {name} .safetensors", "copying the file", "share",
            times["ours"], times["copy"], wanted=0.5, memory=memory[name], memory_bound=16,
        )  # fmt: skip
    tensors.unlink()
    small.unlink()


def _built(data: Data) -> Iterator[Row]:
    arrays = [np.full((8, 4), at, np.float32) for at in range(data.num_small_arrays)]
    root = outer(7, arrays)
    times = race(
        {
            "ours": partial(build_update, 7, arrays),
            "np.save": lambda: np.save(io.BytesIO(), root, allow_pickle=True),
        },
        rounds=_ROUNDS,
    )
    what = f"build_update of {data.num_small_arrays:,} arrays (8, 4)"
    yield Row(what, "np.save to memory", "time", times["ours"], times["np.save"], wanted=1)


GROUPS: dict[str, Callable[[Data], Iterator[Row]]] = {
    "structure": structure,
    "values": values,
    "arrays": arrays,
    "start": start,
    "files": files,
    "proof": proof,
    "write": write,
    "imports": imports,
}
