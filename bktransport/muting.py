"""Libraries that log too much, kept silent while they work for us: on our thread alone."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

__all__ = ["Muting"]


class Muting:
    """The loggers of a library.

    Args:
        names: of the loggers; what is below one of them has to be named too.
    """

    def __init__(self, *names: str) -> None:
        self._here = threading.local()
        for name in names:
            logging.getLogger(name).addFilter(self._is_anothers)

    @contextlib.contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """While the block runs, they log nothing of the calling thread; may be nested."""
        before = self._depth()
        self._here.depth = before + 1
        try:
            yield
        finally:
            self._here.depth = before

    def _depth(self) -> int:
        return getattr(self._here, "depth", 0)

    def _is_anothers(self, _: logging.LogRecord) -> bool:
        return self._depth() == 0
