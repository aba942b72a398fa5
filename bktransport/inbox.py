"""The inbox: what the broker told, kept before the broker may forget it.

    body ──> commit ──> aggregation ids in order of arrival, each until it is done
                        the newest run_status
                        aside: what is no message we know

Each aggregation_id is kept once, however often it is told, also after it is done and after a
restart. A run_status is never a duplicate: "start" may be told again after "stop".
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from bktransport.database import Database, moment, now
from bktransport.errors import InvalidMessageError, StateError
from bktransport.messages import (
    AggregationReady,
    Event,
    RunStatus,
    RunStatusChanged,
    checked_id,
    read_event,
)
from bktransport.state import StateFolder
from bktransport.text import quoted

__all__ = ["AggregationQueue", "Inbox", "KeptAside"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS aggregations (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        aggregation_id TEXT NOT NULL UNIQUE,
        received INTEGER NOT NULL,
        done INTEGER
    )""",
    "CREATE INDEX IF NOT EXISTS waiting ON aggregations (arrival) WHERE done IS NULL",
    """CREATE TABLE IF NOT EXISTS run (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        status TEXT NOT NULL,
        received INTEGER NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS aside (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        received INTEGER NOT NULL,
        nbytes INTEGER NOT NULL,
        body BLOB NOT NULL,
        why TEXT NOT NULL
    )""",
)
_LOG = logging.getLogger("bktransport")

_LONGEST = 1 << 16  # bytes; messages of the protocol have some hundred
_MOST_ASIDE = 1000
_MOST_DONE = 100_000  # done ids that are still known when they are told again
_LOOK = 0.5  # seconds until a blocked `get` sees what another process committed


@dataclass(frozen=True)
class KeptAside:
    """A message that is none of the protocol.

    Attributes:
        received: when, UTC.
        nbytes: of the whole body.
        body: its first 64 KiB, as a stranger wrote them.
        why: one line.
    """

    received: datetime
    nbytes: int
    body: bytes
    why: str


class Inbox:
    """The messages kept in one state folder.

    Any thread may use it, and other processes may mark ids as done.

    Raises:
        StateError: here and in every method: the inbox can't be read or written.
    """

    def __init__(self, folder: StateFolder) -> None:
        self._database = Database(folder, "inbox.sqlite3", _SCHEMA, version=1)

    def commit(self, body: bytes, *, redelivered: bool = False) -> Event | None:
        """Keep a message; it survives the loss of power once this returns.

        Returns:
            What it says; None for an aggregation_id that is known already, and for a message that
            was kept aside since it is none of the protocol.

        Raises:
            StateError: it was not kept, so it must not be acknowledged.
        """
        try:
            if len(body) > _LONGEST:
                raise InvalidMessageError(f"longer than {_LONGEST} bytes")
            event = read_event(body)
        except InvalidMessageError as exc:
            self._put_aside(body, str(exc))
            return None
        if isinstance(event, RunStatusChanged):
            self._keep_status(event)
            return event
        return event if self._keep_aggregation(event) else None

    def waiting(self) -> list[str]:
        """The aggregation ids that are not done, in order of arrival."""
        rows = self._database.rows(
            "SELECT aggregation_id FROM aggregations WHERE done IS NULL ORDER BY arrival"
        )
        return [aggregation_id for (aggregation_id,) in rows]

    def first_waiting(self, after: int = 0) -> tuple[int, str] | None:
        """Arrival number and id of the first one not done that arrived later than `after`."""
        rows = self._database.rows(
            "SELECT arrival, aggregation_id FROM aggregations "
            "WHERE done IS NULL AND arrival > ? ORDER BY arrival LIMIT 1",
            after,
        )
        return (int(rows[0][0]), str(rows[0][1])) if rows else None

    def count_waiting(self, after: int = 0) -> int:
        """How many are not done and arrived later than `after`."""
        rows = self._database.rows(
            "SELECT count(*) FROM aggregations WHERE done IS NULL AND arrival > ?", after
        )
        return int(rows[0][0])

    def knows(self, aggregation_id: str) -> bool:
        """Whether it was ever told, done or not."""
        return bool(
            self._database.rows(
                "SELECT 1 FROM aggregations WHERE aggregation_id = ?", aggregation_id
            )
        )

    def mark_done(self, aggregation_id: str) -> bool:
        """Never offer it again; False if it is unknown or was done before."""
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE aggregations SET done = ? WHERE aggregation_id = ? AND done IS NULL",
                (now(), aggregation_id),
            )
            return changed.rowcount == 1

    def last_run_status(self) -> RunStatus | None:
        """The newest run_status, or None if none was ever told."""
        rows = self._database.rows("SELECT status FROM run")
        return cast(RunStatus, rows[0][0]) if rows else None

    def kept_aside(self) -> list[KeptAside]:
        """The newest 1000 messages that are none of the protocol, oldest first."""
        rows = self._database.rows("SELECT received, nbytes, body, why FROM aside ORDER BY arrival")
        return [KeptAside(moment(received), *rest) for received, *rest in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _keep_aggregation(self, event: AggregationReady) -> bool:
        with self._database.transaction() as connection:
            added = connection.execute(
                "INSERT INTO aggregations (aggregation_id, received) VALUES (?, ?) "
                "ON CONFLICT (aggregation_id) DO NOTHING",
                (event.aggregation_id, now()),
            )
            if added.rowcount != 1:
                return False
            connection.execute(
                "DELETE FROM aggregations WHERE done IS NOT NULL AND arrival <= ?",
                ((added.lastrowid or 0) - _MOST_DONE,),
            )
            return True

    def _keep_status(self, event: RunStatusChanged) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO run (one, status, received) VALUES (1, ?, ?)",
                (event.run_status, now()),
            )

    def _put_aside(self, body: bytes, why: str) -> None:
        _LOG.warning("a message of the broker was kept aside: %s", why)
        with self._database.transaction() as connection:
            added = connection.execute(
                "INSERT INTO aside (received, nbytes, body, why) VALUES (?, ?, ?, ?)",
                (now(), len(body), bytes(body[:_LONGEST]), why),
            )
            connection.execute(
                "DELETE FROM aside WHERE arrival <= ?", ((added.lastrowid or 0) - _MOST_ASIDE,)
            )


class AggregationQueue:
    """The aggregation ids to download, each offered until it is done.

    Used like the standard library's queue. `get` takes an id out of the offer of this process, not
    out of the inbox: until it was downloaded or marked by `task_done`, it is offered again after a
    restart.

    Raises:
        StateError: in every method: the inbox can't be read or written, or the client is closed.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._changed = threading.Condition()
        self._last = 0  # arrival number of the last one taken
        self._taken: dict[str, None] = {}  # not done yet, in order
        self._closed = False

    def __repr__(self) -> str:
        return f"<AggregationQueue{' closed' if self._closed else ''}>"

    def empty(self) -> bool:
        """Whether `get` would find nothing."""
        return self.qsize() == 0

    def qsize(self) -> int:
        """How many ids `get` would give."""
        with self._changed:
            self._check_open()
            return self._inbox.count_waiting(self._last)

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        """The next aggregation id, in order of arrival.

        Args:
            block: wait for one if there is none.
            timeout: seconds to wait at most; None: for ever.

        Raises:
            queue.Empty: there is none, or none came in time.
            ValueError: `timeout` is negative.
        """
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must not be negative")
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._check_open()
                found = self._inbox.first_waiting(self._last)
                if found is not None:
                    self._last, aggregation_id = found
                    self._taken[aggregation_id] = None
                    return aggregation_id
                left = _LOOK if end is None else min(_LOOK, end - time.monotonic())
                if not block or left <= 0:
                    raise queue.Empty
                self._changed.wait(left)

    def get_nowait(self) -> str:
        """`get(block=False)`."""
        return self.get(block=False)

    def task_done(self, aggregation_id: str | None = None) -> None:
        """Never offer it again. Having downloaded it does the same.

        Args:
            aggregation_id: which; None: the oldest one that was taken here and is not done.

        Raises:
            ValueError: no such id was ever told, or none is taken and not done.
        """
        with self._changed:
            self._check_open()
            if aggregation_id is not None:
                told = checked_id(aggregation_id, "aggregation_id")
                if not self._inbox.mark_done(told) and not self._inbox.knows(told):
                    raise ValueError(f"no aggregation {quoted(told)} was ever told")
                self._taken.pop(aggregation_id, None)
                return
            for oldest in list(self._taken):
                marked = self._inbox.mark_done(oldest)  # False: another process was first
                del self._taken[oldest]
                if marked:
                    return
        raise ValueError("task_done() called where no aggregation is taken and not done")

    def downloaded(self, aggregation_id: str) -> None:
        """Mark an id as done, if it is one that was told."""
        with self._changed:
            self._check_open()
            self._inbox.mark_done(aggregation_id)
            self._taken.pop(aggregation_id, None)

    def arrived(self) -> None:
        """Wake up who waits: something was committed."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever waits or comes later gets a `StateError`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the queue is closed: its client was closed")
