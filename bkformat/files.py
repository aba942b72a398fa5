"""Paths from a command line to files: folders walked, standard input spooled, each file judged."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bkformat.inspection import Inspected
from bkformat.render import Entry
from bkformat.source import FileSource, open_file, too_large
from bkformat.validate import judge

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from bkformat.findings import Report
    from bkformat.layout import Kind
    from bkformat.schema import UpdateSchema
    from bkformat.stats import ArrayStats

__all__ = ["expand", "inspect_paths", "judge_paths", "measure", "source_at"]

STDIN = "-"
_LINK = "a link, which is not followed in a folder; name it to judge it"
_SPOOL_BLOCK = 1 << 20


def expand(
    paths: Iterable[str], skipped: Callable[[str], None] = lambda _: None
) -> Iterator[str | Entry]:
    """Each path, a folder as every .npy file below it; trouble on the way as an entry.

    Links inside folders are not followed: one named .npy is trouble; `skipped` is told of folders.
    """
    for path in paths:
        if path != STDIN and os.path.isdir(path):
            yield from _walk(path, skipped)
        else:
            yield path


def _walk(folder: str, skipped: Callable[[str], None]) -> Iterator[str | Entry]:
    trouble: list[OSError] = []
    found = False
    for parent, folders, names in os.walk(folder, onerror=trouble.append):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not name.lower().endswith(".npy"):
                continue
            found = True
            linked = os.path.islink(path)
            yield Entry(path, OSError(errno.ELOOP, _LINK, path)) if linked else path
        for name in folders:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                skipped(path)
        while trouble:
            error = trouble.pop(0)
            found = True
            yield Entry(os.fsdecode(error.filename or parent), error)
    for error in trouble:
        found = True
        yield Entry(os.fsdecode(error.filename or folder), error)
    if not found:
        yield Entry(folder, OSError(errno.ENOENT, "no .npy file in this folder", folder))


def measure(paths: Iterable[str]) -> tuple[int, int]:
    """How many files there are, and their bytes together."""
    files = nbytes = 0
    for path in expand(paths):
        if isinstance(path, str):
            files += 1
            with contextlib.suppress(OSError, ValueError):
                nbytes += os.stat(path).st_size
    return files, nbytes


def judge_paths(
    paths: Iterable[str | Entry], *, jobs: int, options: dict[str, Any]
) -> Iterator[Entry]:
    """Judge each path, in order; entries pass through.

    Args:
        paths: as `expand` gives them.
        jobs: processes for many files, threads for a large one.
        options: as for `check_file`.
    """
    with _pool(jobs, values=bool(options.get("values", True))) as executor:
        yield from _in_order(paths, executor, jobs, options)


def _in_order(
    paths: Iterable[str | Entry],
    executor: Executor | None,
    jobs: int,
    options: dict[str, Any],
) -> Iterator[Entry]:
    """Runs of ordinary paths go to check_many; what stands between them is done here."""
    from bkformat.many import check_many

    waiting = iter(paths)
    special: list[str | Entry] = []

    def ordinary() -> Iterator[str]:
        for path in waiting:
            if isinstance(path, Entry) or path == STDIN:
                special.append(path)
                return
            yield path

    while True:
        for path, outcome in check_many(ordinary(), executor=executor, jobs=jobs, **options):
            yield Entry(os.fsdecode(path), outcome)
        if not special:
            return
        item = special.pop()
        yield item if isinstance(item, Entry) else Entry(STDIN, _judge_stdin(jobs, options))


def _judge_stdin(jobs: int, options: dict[str, Any]) -> Report | OSError:
    limit = options.get("max_size")
    rest = {name: value for name, value in options.items() if name != "max_size"}
    try:
        with spooled_stdin(limit) as source:
            return judge(source, jobs=jobs, **rest).report
    except OSError as exc:
        return exc


@contextlib.contextmanager
def spooled_stdin(max_size: int | None = None) -> Iterator[FileSource]:
    """Standard input as a file that has no name and vanishes when closed."""
    import tempfile  # not needed for files that have a name

    with tempfile.TemporaryFile(prefix="bkformat-") as spool:
        total = 0
        while block := sys.stdin.buffer.read(_SPOOL_BLOCK):
            total += len(block)
            if max_size is not None and total > max_size:
                raise too_large(total, max_size, STDIN)
            spool.write(block)
        spool.flush()
        yield FileSource(spool.fileno())


def source_at(path: str) -> contextlib.AbstractContextManager[FileSource]:
    """The file at a path, or standard input."""
    return spooled_stdin() if path == STDIN else open_file(path)


@contextlib.contextmanager
def _pool(jobs: int, *, values: bool) -> Iterator[Executor | None]:
    """Worker processes; where the system forks safely, with all they need already imported."""
    if jobs == 1:
        yield None
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    method = "spawn"
    if sys.platform == "linux" and not _numpy_has_threads():
        method = "fork"
        if values:
            import bkformat.values  # noqa: F401  (once, here, instead of in every worker)
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context(method))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _numpy_has_threads() -> bool:
    """Whether numpy runs threads of its own, or would once it is imported; they don't survive."""
    return os.environ.get("OPENBLAS_NUM_THREADS") != "1"


def inspect_paths(
    paths: Iterable[str | Entry],
    *,
    schema: UpdateSchema | None,
    kind: Kind | None,
    stats: bool,
) -> Iterator[Inspected]:
    """Describe each path, in order; values are read only for `stats`."""
    names = [spec.name for spec in schema.parameters or ()] if schema else []
    for path in paths:
        if isinstance(path, Entry):
            yield Inspected(path)
            continue
        try:
            with source_at(path) as source:
                report = judge(source, schema, kind, values=stats).report
                figures = _stats(source, report) if stats else []
        except OSError as exc:
            yield Inspected(Entry(path, exc))
        else:
            yield Inspected(Entry(path, report), names, figures)


def _stats(source: FileSource, report: Report) -> list[ArrayStats | None]:
    from bkformat.dtypes import ITEMSIZES
    from bkformat.stats import array_stats

    arrays = report.layout.parameters if report.layout else ()
    return [array_stats(source, a) if a.dtype in ITEMSIZES else None for a in arrays]
