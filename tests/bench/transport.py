"""How fast bktransport moves a file, and how much memory it takes, beside curl.

    python tests/bench/transport.py                   1 GiB, 9 rounds
    python tests/bench/transport.py --mib 64          a smaller file
    python tests/bench/transport.py --memory          memory alone, as JSON

Both talk to the same plain server (sink.py) on loopback, in turn, so that what else the machine
does touches both alike. An upload is the transfer alone, the digest that holds its end back
included; a download includes the validation and waits for the disk, which curl does not. What
validation takes is printed beside it. Memory is the peak above a transfer of a small file, in a
process of its own. Nothing is asserted: what misses its mark is marked with "!".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from measure import Memory, Row, race
from memory import resident, traced
from pydantic import SecretStr

from bkformat import check_file, validate_file, write_update
from bkformat.recall import forget
from bktransport.api import Connector, Login
from bktransport.attempt import Deadline
from bktransport.download import Downloader, DownloadRules
from bktransport.redaction import Redactor
from bktransport.upload import Uploader

_MIB = 1 << 20
_ARRAYS = 8
_SECONDS = 600.0
_BOUND = 32
_SHARE = 0.8
_LOGIN = Login("leaf-1", SecretStr("token"))


def _connector() -> Connector:
    return Connector(timeout=60.0, proxies={}, verify=True, redactor=Redactor())


@contextlib.contextmanager
def _sink(path: Path) -> Iterator[str]:
    """URL of a server that serves this file."""
    script = Path(__file__).with_name("sink.py")
    command = [sys.executable, str(script), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        child.stdin.close()


def _write(path: Path, nbytes: int) -> Path:
    random = np.random.default_rng(20240229)
    arrays = [random.random(nbytes // _ARRAYS // 4, "f4") for _ in range(_ARRAYS)]
    write_update(path, 7, arrays, fsync=False).close()
    return path


# --- ours --------------------------------------------------------------------------------------


def _upload(url: str, path: Path) -> Callable[[], object]:
    """The transfer alone: the file is judged before."""
    update = validate_file(path)
    uploader = Uploader(_connector(), url, _LOGIN, "site 1")
    return lambda: uploader.upload(update, Deadline(_SECONDS))


def _download(url: str, path: Path) -> None:
    forget()
    rules = DownloadRules(1 << 40)
    target = path.with_name("downloaded.npy")
    Downloader(_connector(), url, _LOGIN, rules, None).download(
        "file-1", target, Deadline(_SECONDS)
    )


# --- curl --------------------------------------------------------------------------------------


def _curl(*arguments: str) -> None:
    command = ["curl", "--silent", "--fail", "--noproxy", "*", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _curl_upload(url: str, path: Path) -> None:
    _curl("-H", "Expect:", "-F", "data={}", "-F", f"file=@{path}", url + "/v1/file/upload")


def _curl_download(url: str, path: Path) -> None:
    _curl("-o", str(path.with_name("by-curl.npy")), url + "/file")


# --- memory --------------------------------------------------------------------------------------


def _run(what: str, path: Path) -> None:
    with _sink(path) as url:
        if what == "upload":
            _upload(url, path)()
        else:
            _download(url, path)


def _measure(what: str, small: str, large: str) -> None:
    """Runs in a process of its own."""
    _run(what, Path(small))
    call = partial(_run, what)
    print(json.dumps([resident(call, Path(large)), traced(call, Path(large))]))


def _memory(what: str, small: Path, large: Path) -> Memory:
    command = [sys.executable, __file__, "--measure", what, str(small), str(large)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Memory(*(nbytes / _MIB for nbytes in json.loads(out)))


# --- all of it -----------------------------------------------------------------------------------


def _rows(large: Path, rounds: int, memory: dict[str, Memory]) -> Iterator[Row]:
    with _sink(large) as url:
        times = race(
            {"ours": _upload(url, large), "curl": partial(_curl_upload, url, large)}, rounds=rounds
        )
        yield Row(
            "upload", "curl -F", "share", times["ours"], times["curl"],
            wanted=_SHARE, memory=memory["upload"], memory_bound=_BOUND,
        )  # fmt: skip
        times = race(
            {"ours": partial(_download, url, large), "curl": partial(_curl_download, url, large)},
            rounds=rounds,
        )
        yield Row(
            "download, with validation", "curl -o", "share", times["ours"], times["curl"],
            memory=memory["download"], memory_bound=_BOUND,
        )  # fmt: skip


def _validation(path: Path) -> float:
    """Seconds, the median of three."""

    def once() -> None:
        forget()
        check_file(path, sha256=True)

    return median(race({"": once}, rounds=3)[""])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed beside curl, and memory.")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="memory alone, as JSON")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def _main() -> None:
    given = _arguments()
    if given.measure:
        _measure(*given.measure)
        return
    with tempfile.TemporaryDirectory(prefix="bktransport-bench-") as name:
        folder = Path(name)
        small, large = (
            _write(folder / "small.npy", _MIB),
            _write(folder / "large.npy", given.mib * _MIB),
        )
        memory = {what: _memory(what, small, large) for what in ("upload", "download")}
        if given.memory:
            print(json.dumps({what: max(found) for what, found in memory.items()}))
            return
        print(f"{given.mib} MiB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for row in _rows(large, given.rounds, memory):
            mark = "! " if row.missed else ""
            print(
                f"{row.what} / {row.peer}: {mark}{row.result} ({row.spread}); wanted: {row.target}"
            )
            print(f"    {row.times}; {row.memory_text(both=True)}")
        print(f"validation with its digest: {_validation(large):.3g} s")


if __name__ == "__main__":
    _main()
