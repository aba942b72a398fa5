"""The queues of leaves and who may read them: state alone, neither bytes nor sockets.

A message keeps its number for life. What is ready is a heap over these numbers, so that a message
that comes back, in whatever order, stands where it stood: RabbitMQ does the same where it can.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

__all__ = ["Consumer", "Directory", "LeafQueue", "Message"]


class Message(NamedTuple):
    """One message; `number` is its own in its queue, so that comparing never gets past it."""

    number: int
    body: bytes
    redelivered: bool


class Consumer(Protocol):
    """Whoever messages are handed to."""

    def wants(self) -> bool:
        """Whether it can take one more now."""

    def take(self, message: Message) -> None:
        """Takes it; the queue has counted it as unacknowledged."""

    def cancelled(self) -> None:
        """The queue is gone."""


class LeafQueue:
    """A durable queue with its messages.

    Attributes:
        name: the leaf's id.
        unacknowledged: messages handed out and not settled.
        exclusive: the only consumer wants no other beside it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.unacknowledged = 0
        self.exclusive = False
        self._ready: list[Message] = []
        self._numbers = 0
        self._consumers: deque[Consumer] = deque()

    @property
    def ready(self) -> int:
        """Messages that wait for a consumer."""
        return len(self._ready)

    @property
    def consumers(self) -> int:
        """How many there are."""
        return len(self._consumers)

    def publish(self, body: bytes) -> None:
        """Appends a message and hands out what can be."""
        self._numbers += 1
        heappush(self._ready, Message(self._numbers, body, redelivered=False))
        self.pump()

    def get(self) -> Message | None:
        """The first message, counted as unacknowledged."""
        if not self._ready:
            return None
        self.unacknowledged += 1
        return heappop(self._ready)

    def settle(self, count: int = 1) -> None:
        """So many messages are done with."""
        self.unacknowledged -= count

    def put_back(self, messages: Iterable[Message]) -> None:
        """Messages stand again where they stood; `pump` hands them out."""
        for message in messages:
            self.unacknowledged -= 1
            heappush(self._ready, message._replace(redelivered=True))

    def join(self, consumer: Consumer) -> None:
        """Adds a consumer, the last in turn."""
        self._consumers.append(consumer)

    def leave(self, consumer: Consumer) -> None:
        """Removes a consumer; what it has not settled stays with its channel."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        self.exclusive = self.exclusive and bool(self._consumers)

    def pump(self) -> None:
        """Hands ready messages to consumers in turn, as long as one wants one."""
        while self._ready:
            for _ in range(len(self._consumers)):
                consumer = self._consumers[0]
                self._consumers.rotate(-1)
                if consumer.wants():
                    self.unacknowledged += 1
                    consumer.take(heappop(self._ready))
                    break
            else:
                return

    def delete(self) -> None:
        """Tells every consumer that the queue is gone, and forgets the messages."""
        self._ready.clear()
        for consumer in list(self._consumers):
            consumer.cancelled()
        self._consumers.clear()


class Directory:
    """Virtual hosts (trees), users (leaves) and their queues. Keeps digests of the passwords."""

    def __init__(self) -> None:
        self._trees: dict[str, str] = {}  # of each leaf
        self._digests: dict[str, bytes] = {}
        self._queues: dict[tuple[str, str], LeafQueue] = {}

    def add_leaf(self, tree_id: str, leaf_id: str, password: str) -> None:
        """Adds a user with its queue, or changes the password of one.

        Raises:
            ValueError: an id that AMQP can't carry, or a leaf of another tree.
        """
        for what, value in (("tree_id", tree_id), ("leaf_id", leaf_id)):
            if not 0 < len(value.encode("utf-8")) <= 255 or "\0" in value:
                raise ValueError(f"{what} {value[:80]!a} is not of 1 to 255 bytes without NUL")
        if self._trees.setdefault(leaf_id, tree_id) != tree_id:
            raise ValueError(f"leaf {leaf_id[:80]!a} belongs to another tree")
        self._digests[leaf_id] = _digest(password.encode("utf-8"))
        self._queues.setdefault((tree_id, leaf_id), LeafQueue(leaf_id))

    def remove_queue(self, tree_id: str, leaf_id: str) -> None:
        """Deletes a queue with its messages; the user stays. KeyError for no such queue."""
        self._queues.pop((tree_id, leaf_id)).delete()

    def authenticate(self, user: bytes, password: bytes) -> str | None:
        """The leaf's id, or None."""
        leaf_id = user.decode("utf-8", "replace")
        known = self._digests.get(leaf_id, b"")
        return leaf_id if hmac.compare_digest(known, _digest(password)) else None

    def has_tree(self, tree_id: str) -> bool:
        """Whether there is such a virtual host."""
        return tree_id in self._trees.values()

    def may_enter(self, leaf_id: str, tree_id: str) -> bool:
        """Whether the user may use the virtual host."""
        return self._trees.get(leaf_id) == tree_id

    def queue(self, tree_id: str, leaf_id: str) -> LeafQueue:
        """The queue. KeyError for none."""
        return self._queues[tree_id, leaf_id]

    def has_queue(self, tree_id: str, leaf_id: str) -> bool:
        """Whether there is such a queue."""
        return (tree_id, leaf_id) in self._queues


def _digest(password: bytes) -> bytes:
    """Keeps passwords out of tracebacks and debuggers; salt would add nothing here."""
    return hashlib.sha256(password).digest()
