"""How fast bkformat is, and how much memory it takes: ratios against peers of the same run.

    python tests/bench/bench.py                       everything: 4 GiB of files, some minutes
    python tests/bench/bench.py --quick               64 MiB for 1 GiB, 1,000 files for 10,000
    python tests/bench/bench.py --only values         one group; may be given again
    python tests/bench/bench.py --markdown            the table of the README
    python tests/bench/bench.py --data FOLDER         keep the files there, and use them again

bkformat must be installed, best with `pip install -e .`. Contestants run in turn, so that what else
the machine does touches all alike: a result is the median of the ratios of neighbours in time, its
spread their middle half. Files are in the page cache. Memory is the peak above the imports: of the
process, and as tracemalloc counts it; the README's table has the larger one. Nothing is asserted:
what misses its mark is marked with "!".
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pydantic
from data import Data
from groups import GROUPS
from measure import Row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ratios of speed, and memory, against peers.")
    parser.add_argument("--quick", action="store_true", help="64 MiB and 1,000 files")
    parser.add_argument("--only", action="append", choices=list(GROUPS), help="one group")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep and reuse the files")
    return parser.parse_args()


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="bkformat-bench-") as folder:
        yield Path(folder)


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _facts() -> str:
    return (
        f"Python {platform.python_version()}, numpy {np.__version__}, "
        f"pydantic {pydantic.VERSION}, click {_version_of_click()}, "
        f"{platform.system()} {platform.machine()}, {_cores()} cores"
    )


def _version_of_click() -> str:
    from importlib.metadata import version

    return version(click.__name__)


def _measured(data: Data, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        yield from GROUPS[name](data)


_TEXT = ("what", "peer", "result", "spread", "wanted", "each / peer's", "memory")
_MARKDOWN = ("what", "peer", "result", "wanted", "memory")


def _text_cells(row: Row) -> tuple[str, ...]:
    mark = "! " if row.missed else ""
    memory = row.memory_text(both=True)
    return row.what, row.peer, mark + row.result, row.spread, row.target, row.times, memory


def _markdown_cells(row: Row) -> tuple[str, ...]:
    what, peer = (text.replace("|", "\\|") for text in (row.what, row.peer))
    return what, peer, row.result, row.target, row.memory_text(both=False)


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _print(rows: Sequence[Row], markdown: bool) -> None:
    if not markdown:
        print(*_aligned([_TEXT, *map(_text_cells, rows)]), sep="\n")
        return
    for cells in (_MARKDOWN, ("---",) * len(_MARKDOWN), *map(_markdown_cells, rows)):
        print(f"| {' | '.join(cells)} |")


def _main() -> None:
    arguments = _arguments()
    print(_facts(), end="\n\n", flush=True)
    with _folder(arguments.data) as folder:
        data = Data(folder, arguments.quick)
        rows = list(_measured(data, arguments.only or list(GROUPS)))
    _print(rows, arguments.markdown)


if __name__ == "__main__":
    _main()
