"""Rounds to aggregates and messages: one thread that works, one after another."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from bktransport.messages import AggregationReady, Event, RunStatus, RunStatusChanged, write_event
from bktransport.sandbox import faults
from bktransport.sandbox.faults import Faults
from bktransport.sandbox.service import Round, Service

__all__ = ["Announcer", "Broker"]

_log = logging.getLogger("bktransport.sandbox")


class Broker(Protocol):
    """What the sandbox wants of a broker; `EmbeddedBroker` and `RabbitBroker` have it.

    Attributes:
        host: where it listens.
        port: where it listens.
    """

    host: str
    port: int

    def add_leaf(self, tree_id: str, leaf_id: str, password: str) -> None:
        """Make a user and its queue."""

    def publish(self, tree_id: str, leaf_id: str, body: bytes) -> None:
        """Put a message into the queue of one leaf; from any thread."""

    def depth(self, tree_id: str, leaf_id: str) -> tuple[int, int]:
        """Messages that wait there, and those that were delivered and not acknowledged."""

    def close_connections(self) -> int:
        """Close every client's connection by force, and say how many there were."""

    def close(self) -> None:
        """End it, or what was made there."""


class Announcer:
    """Aggregates rounds, so that no request waits for it, and tells every leaf.

    Args:
        service: the state.
        broker: where to.
        given: what is to go wrong.
    """

    def __init__(self, service: Service, broker: Broker, given: Faults) -> None:
        self._service = service
        self._broker = broker
        self._faults = given
        self._publishing = threading.Lock()
        self._rounds: queue.SimpleQueue[Round | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sandbox-rounds", daemon=True)
        self._thread.start()

    def add(self, ended: Round) -> None:
        """Aggregate this round when those before it are done."""
        self._rounds.put(ended)

    def tell_run(self, status: RunStatus) -> None:
        """Publish the status of the run."""
        self._publish(RunStatusChanged(status))

    def close(self, timeout: float) -> None:
        """Give up what is under way; waits at most so many seconds."""
        self._service.end()
        self._rounds.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (ended := self._rounds.get()) is not None:
            aggregation_id = self._service.aggregate(ended)
            if aggregation_id is None:
                continue
            try:
                self._publish(AggregationReady(aggregation_id))
            except Exception as exc:  # noqa: BLE001  (a broker's trouble is shown, not died of)
                self._service.fail(ended, f"aggregated, not announced: {type(exc).__name__}")

    def _publish(self, event: Event) -> None:
        with self._publishing:
            if self._faults.take(faults.POISON):
                self._send(faults.POISONS)
            self._send([write_event(event)])
            if self._faults.take(faults.DROP):
                self._broker.close_connections()

    def _send(self, bodies: Sequence[bytes]) -> None:
        tree_id = self._service.accounts.topology.tree_id
        for leaf in self._service.accounts.leaves:
            for body in bodies:
                self._broker.publish(tree_id, leaf.leaf_id, body)
