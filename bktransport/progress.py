"""A bar for transfers that last: on a terminal alone, on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import click

__all__ = ["TransferBar"]

_LEAST_NBYTES = 1 << 20
"""What is smaller is over before anybody can read a bar."""


class TransferBar:
    """To be given as `progress=`; in a `with` statement, so that it ends whatever happens.

    Nothing is shown where the size is not known.

    Args:
        label: what is being done, fit to be shown.
        wanted: False shows nothing.
    """

    def __init__(self, label: str, *, wanted: bool = True) -> None:
        self._label = label
        self._wanted = wanted and sys.stderr.isatty()
        self._bar: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes are done, of so many in all."""
        if not self._wanted or total is None or total < _LEAST_NBYTES:
            return
        if self._bar is not None and (done < self._bar.pos or total != self._bar.length):
            self._end()  # it begins again: another attempt
        if self._bar is None:
            self._bar = click.progressbar(
                length=total, label=self._label, file=sys.stderr, width=30, show_eta=True
            )
            self._bar.__enter__()
        self._bar.update(done - self._bar.pos)

    def __enter__(self) -> TransferBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Leave the line and give the cursor back."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(None, None, None)
