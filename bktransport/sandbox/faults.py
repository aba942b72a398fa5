"""Faults for rehearsal, each a number of times."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bktransport.text import quoted

__all__ = ["BUSY", "DROP", "LOST_REPLY", "NAMES", "POISON", "POISONS", "TRUNCATE", "Faults"]

LOST_REPLY, BUSY, TRUNCATE, DROP, POISON = "lost-reply", "busy", "truncate", "drop", "poison"
NAMES = (LOST_REPLY, BUSY, TRUNCATE, DROP, POISON)

_MOST = 1_000_000

POISONS = (
    b"",
    b"\xff\xfe no text",
    b"{not JSON",
    b"[1, 2]",
    b'{"message_type": "aggregation_status"}',
    b'{"message_type": "aggregation_status", "body": {"aggregation_id": 7}}',
    b'{"message_type": "aggregation_status", "body": {"aggregation_id": "../../escaped"}}',
    b'{"message_type": "run_status", "body": {"run_status": "sideways"}}',
    b'{"message_type": "weather_status", "body": {"sun": true}}',
)
"""Messages that no client can make anything of: malformed ones, and one of an unknown type."""


class Faults:
    """How often each fault is still to happen; safe to ask from any thread.

    Args:
        wanted: names such as "busy", or "busy:3" for three times.

    Raises:
        ValueError: an unknown name, or no count from 1 to a million.
    """

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._left = dict.fromkeys(NAMES, 0)
        for text in wanted:
            name, colon, count = text.partition(":")
            if name not in NAMES:
                raise ValueError(f"fault {quoted(name)} is none of {', '.join(NAMES)}")
            self._left[name] += _counted(count, text) if colon else 1

    def take(self, name: str) -> bool:
        """Whether this fault happens now."""
        with self._lock:
            happens = self._left[name] > 0
            self._left[name] -= happens
        return happens


def _counted(text: str, given: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    if not 1 <= count <= _MOST:
        raise ValueError(f"fault {quoted(given)}: after the colon stands how often, from 1 on")
    return count
