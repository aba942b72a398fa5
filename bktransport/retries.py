"""When a call is tried again, and how long to wait before it.

A repeat is harmless where nothing was changed: a connection that never came about, an explicit 429
or 503, and anything that only reads. The service may ask for a pause by Retry-After; one that is
longer than `LONGEST_PAUSE`, or than the time left, is not slept through: the error says how long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina

from bktransport.attempt import Deadline, LastingError, NotSentError
from bktransport.errors import DeadlineError, NoResponseError, ResponseError

__all__ = ["ATTEMPTS", "BUSY", "LONGEST_PAUSE", "retried"]

_T = TypeVar("_T")

ATTEMPTS = 5
LONGEST_PAUSE = 60.0
"""Seconds."""

BUSY = frozenset({429, 503})
_PASSING = BUSY | {500, 502, 504}
_JITTER = 0.5


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
    pause = 0.0

    def on_failure(exc: Exception) -> bool | float:
        """Whether to go on, or seconds to wait first."""
        left = deadline.left()
        if isinstance(exc, DeadlineError | LastingError):
            return False
        if isinstance(exc, ResponseError):
            if exc.status_code not in (_PASSING if reads_only else BUSY):
                return False
            if exc.retry_after is not None:
                return exc.retry_after if exc.retry_after <= min(LONGEST_PAUSE, left) else False
        elif not isinstance(exc, NoResponseError if reads_only else NotSentError):
            return False
        return pause < left

    for attempt in stamina.retry_context(
        on=on_failure, attempts=ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=5.0,
        wait_jitter=_JITTER,
    ):  # fmt: skip
        pause = attempt.next_wait + _JITTER
        with attempt:
            return action()
    raise AssertionError("stamina gives the last exception")  # pragma: no cover
