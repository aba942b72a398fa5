"""Many files, in the order they were given, alone or through an executor."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from bkformat.findings import Report
from bkformat.layout import Kind
from bkformat.validate import check_options, judge_file

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from bkformat.schema import UpdateSchema

__all__ = ["Outcome", "check_many"]

Path = str | os.PathLike[str]
Outcome = Report | OSError

_CHUNK = 64
"""Files for one task: enough to make handing it over cheap, few enough to share the work."""

_LARGE = 64 << 20
"""Bytes from which the threads of one file do more than files side by side."""

_IN_FLIGHT = 16
"""Tasks that are handed over before the first is waited for."""


def check_many(
    paths: Iterable[Path],
    *,
    executor: Executor | None = None,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    strict: bool = False,
    sha256: bool = False,
    jobs: int = 1,
    max_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[Path, Outcome]]:
    """Judge files one after another, or by the workers of an executor.

    Args:
        paths: the files; taken as they are needed, so a generator will do.
        executor: a `ProcessPoolExecutor` for many small files, a `ThreadPoolExecutor` for few large
            ones; the caller shuts it down. None judges in this process.
        schema: as for `check_file`.
        kind: as for `check_file`.
        values: as for `check_file`.
        strict: as for `check_file`.
        sha256: as for `check_file`.
        jobs: with more than 1, files of 64 MiB and more are judged in this process, by so many
            threads each; the executor takes the others.
        max_size: as for `check_file`.
        progress: as for `check_file`, for the files that are judged in this process.

    Yields:
        (path, report) in the order of the input, or (path, OSError) for a file that could not be
        judged. One bad file never ends the iteration.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError("paths are several; check_file takes one")
    check_options(schema=schema, kind=kind, jobs=jobs, max_size=max_size)
    options = {
        "schema": schema, "kind": kind, "values": values, "strict": strict, "sha256": sha256,
        "max_size": max_size,
    }  # fmt: skip
    here = {**options, "jobs": jobs, "progress": progress}
    if executor is None:
        return ((path, _outcome(path, here)) for path in paths)
    return _through(executor, paths, options, here)


def _through(
    executor: Executor, paths: Iterable[Path], options: dict[str, Any], here: dict[str, Any]
) -> Iterator[tuple[Path, Outcome]]:
    """Hand out chunks ahead of need; large files wait for their turn and are judged here."""
    waiting: deque[tuple[list[Path], Future[list[Outcome]] | None]] = deque()
    chunks = _chunks(paths, here["jobs"])
    try:
        while True:
            for chunk, large in islice(chunks, _IN_FLIGHT - len(waiting)):
                waiting.append((chunk, None if large else _submit(executor, chunk, options)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            if future is None:
                yield chunk[0], _outcome(chunk[0], here)
            else:
                yield from zip(chunk, _result(future, len(chunk)), strict=True)
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()


def _chunks(paths: Iterable[Path], jobs: int) -> Iterator[tuple[list[Path], bool]]:
    """The paths in chunks, a large file alone in one that is marked so."""
    chunk: list[Path] = []
    for path in paths:
        large = jobs > 1 and _is_large(path)
        if chunk and (large or len(chunk) == _CHUNK):
            yield chunk, False
            chunk = []
        if large:
            yield [path], True
        else:
            chunk.append(path)
    if chunk:
        yield chunk, False


def _is_large(path: Path) -> bool:
    try:
        return os.stat(path).st_size >= _LARGE
    except (OSError, ValueError):  # judging it will say what is wrong
        return False


def _submit(
    executor: Executor, chunk: list[Path], options: dict[str, Any]
) -> Future[list[Outcome]]:
    from concurrent.futures import BrokenExecutor, Future

    try:
        return executor.submit(_outcomes, chunk, options)
    except BrokenExecutor as exc:
        broken: Future[list[Outcome]] = Future()
        broken.set_exception(exc)
        return broken


def _result(future: Future[list[Outcome]], count: int) -> list[Outcome]:
    from concurrent.futures import BrokenExecutor

    try:
        return future.result()
    except BrokenExecutor as exc:
        return [OSError(errno.EIO, f"a worker process died: {exc}")] * count


def _outcomes(paths: list[Path], options: dict[str, Any]) -> list[Outcome]:
    return [_outcome(path, options) for path in paths]


def _outcome(path: Path, options: dict[str, Any]) -> Outcome:
    try:
        return judge_file(path, **options)
    except OSError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001  (our own fault must not end a run over thousands)
        return OSError(errno.EIO, f"internal error: {type(exc).__name__}: {exc}")
