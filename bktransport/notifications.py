"""What the broker tells one leaf: consumer, inbox, queue and the run, tied together.

Consumer (its own thread) ──> Inbox (on the disk) ──> AggregationQueue, run status
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Collection

from bktransport.errors import BrokerError, DeadlineError, StateError
from bktransport.events import BrokerAddress, Consumer
from bktransport.inbox import AggregationQueue, Inbox, KeptAside
from bktransport.messages import RUN_STATUSES, AggregationReady, RunStatus
from bktransport.state import StateFolder

__all__ = ["Notifications"]

_LOG = logging.getLogger("bktransport")


class Notifications:
    """The notifications of one state folder.

    Attributes:
        queue: offers the ids of aggregates.
        run_status: the newest one that was told; "pause" before any was.

    Args:
        folder: where the inbox lies.
        ssl_context: speak TLS with the broker; None: plain.
        heartbeat: seconds, 1 to 65535.

    Raises:
        StateError: the inbox can't be read or written.
        ValueError: `heartbeat` is out of range.
    """

    def __init__(
        self, folder: StateFolder, ssl_context: ssl.SSLContext | None, heartbeat: int
    ) -> None:
        if not 1 <= heartbeat <= 65535:
            raise ValueError(f"heartbeat must be 1 to 65535 seconds, not {heartbeat!r}")
        self._inbox = Inbox(folder)
        try:
            self.run_status: RunStatus = self._inbox.last_run_status() or "pause"
        except BaseException:
            self._inbox.close()
            raise
        self.queue = AggregationQueue(self._inbox)
        self._ssl_context = ssl_context
        self._heartbeat = heartbeat
        self._consumer: Consumer | None = None
        self._changed = threading.Condition()  # guards run_status and what follows
        self._closed = False

    @property
    def error(self) -> BrokerError | None:
        """Why none come at the moment; None while they do, or before `listen`."""
        return self._consumer.error if self._consumer is not None else None

    def listen(self, address: BrokerAddress, seconds: float) -> None:
        """Begin to receive, and wait for the broker so many seconds at most.

        Raises:
            BrokerError: it refused.
        """
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = Consumer(
            address, self._receive, ssl_context=self._ssl_context, heartbeat=self._heartbeat
        )
        self._consumer.start()
        if not self._consumer.wait_connected(seconds):
            _LOG.warning("no notifications yet: %s", self._consumer.error or "no answer so far")

    def wait_for_run(
        self, status: RunStatus | Collection[RunStatus], timeout: float | None
    ) -> RunStatus:
        """Wait until the run has that status, or one of several; see `Client.wait_for_run`."""
        wanted = {status} if isinstance(status, str) else set(status)
        if not wanted <= set(RUN_STATUSES):
            raise ValueError(f"status is none of {', '.join(RUN_STATUSES)}")
        with self._changed:
            there = self._changed.wait_for(
                lambda: self.run_status in wanted or self._closed, timeout
            )
            if not there:
                raise DeadlineError(f"the run is still at {self.run_status!r} after {timeout:g} s")
            if self.run_status not in wanted:
                raise StateError("the client was closed while it waited for the run")
            return self.run_status

    def kept_aside(self) -> list[KeptAside]:
        """See `Inbox.kept_aside`."""
        return self._inbox.kept_aside()

    def close(self) -> None:
        """Receive no more; who waits gets a `StateError`."""
        if self._consumer is not None:
            self._consumer.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.queue.close()
        self._inbox.close()

    def _receive(self, body: bytes, redelivered: bool) -> None:
        """Runs in the consumer's thread: the message is safe when this returns."""
        event = self._inbox.commit(body, redelivered=redelivered)
        if isinstance(event, AggregationReady):
            self.queue.arrived()
        elif event is not None:
            with self._changed:
                self.run_status = event.run_status
                self._changed.notify_all()
