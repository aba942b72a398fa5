"""When a call is tried again, and how long to wait before it.

A repeat is harmless where nothing was changed: a connection that never came about, an explicit 429
or 503, and anything that only reads. The service may ask for a pause by Retry-After; one that is
longer than `LONGEST_PAUSE`, or than the time left, is not slept through: the error says how long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import stamina

from bktransport.attempt import Deadline, LastingError, NotSentError
from bktransport.errors import DeadlineError, NoResponseError, ResponseError
from bktransport.muting import Muting

__all__ = ["ATTEMPTS", "BUSY", "LONGEST_PAUSE", "retried"]

_LOG = logging.getLogger("bktransport")
_STAMINA = Muting("stamina")
"""It logs that it tries again, but not what failed; we say both."""

_T = TypeVar("_T")

ATTEMPTS = 5
LONGEST_PAUSE = 60.0
"""Seconds."""

BUSY = frozenset({429, 503})
_PASSING = BUSY | {500, 502, 504}
_JITTER = 0.5
_LONG = 3.0  # seconds that nobody waits without wondering


def retried(action: Callable[[], _T], deadline: Deadline, *, reads_only: bool) -> _T:
    """Do something, again where that is harmless, a few times within the deadline.

    Args:
        action: one attempt. What it raises decides: `NotSentError` and 429 or 503 are tried again,
            for what only reads also other failures of the network and the server.
        deadline: of the whole call.
        reads_only: whether a repeat is harmless whatever happened.

    Raises:
        NoResponseError, ResponseError: those of the last attempt.
    """
    number, pause = 0, 0.0

    def on_failure(exc: Exception) -> bool | float:
        """Whether to go on, or seconds to wait first."""
        asked = exc.retry_after if isinstance(exc, ResponseError) else None
        longest = min(LONGEST_PAUSE, deadline.left())
        if not _is_passing(exc, reads_only) or (pause if asked is None else asked) > longest:
            return False
        if number < ATTEMPTS:
            wait = pause if asked is None else asked
            level = logging.WARNING if wait >= _LONG else logging.INFO
            _LOG.log(level, "%s; trying again in about %.0f s", exc, wait)
        return True if asked is None else asked

    with _STAMINA.on_this_thread():
        for attempt in stamina.retry_context(
            on=on_failure, attempts=ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=5.0,
            wait_jitter=_JITTER,
        ):  # fmt: skip
            number, pause = attempt.num, attempt.next_wait + _JITTER
            with attempt:
                return action()
    raise AssertionError("stamina gives the last exception")  # pragma: no cover


def _is_passing(exc: Exception, reads_only: bool) -> bool:
    """Whether a repeat does no harm, and may help."""
    if isinstance(exc, DeadlineError | LastingError):
        return False
    if isinstance(exc, ResponseError):
        return exc.status_code in (_PASSING if reads_only else BUSY)
    return isinstance(exc, NoResponseError if reads_only else NotSentError)
