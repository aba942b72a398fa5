"""What every command that writes a file of another one refuses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from bkformat.errors import InvalidUpdateError

__all__ = ["limit_for", "refuse_same_file", "without_offsets"]

_LEAST = 256 << 20
_FACTOR = 8


def limit_for(nbytes: int) -> int:
    """Bytes that may come of an input of so many, unless the caller says otherwise.

    A megabyte of an archive can hold a gigabyte of zeros, and one array can be named a thousand
    times.
    """
    return max(_LEAST, _FACTOR * nbytes)


def refuse_same_file(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Inputs are never touched.

    Raises:
        ValueError: both are the same file.
    """
    with contextlib.suppress(OSError):
        if os.path.samefile(path, out):
            raise ValueError("input and output are the same file")


@contextlib.contextmanager
def without_offsets() -> Iterator[None]:
    """Findings about an output that is not kept: its offsets would mislead."""
    try:
        yield
    except InvalidUpdateError as exc:
        findings = tuple(replace(found, offset=None) for found in exc.report.findings)
        raise InvalidUpdateError(replace(exc.report, findings=findings)) from exc
