"""One AMQP channel of a leaf: what it reads, what it owes an acknowledgement for.

A leaf may consume from, get from and passively declare its own queue, and nothing else: permission
for reading alone, which is how the service is understood to run. Errors are `Fault`s; the session
tells them to the client.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from pika import spec

from bktransport.sandbox.amqp_frames import Fault, Outlet
from bktransport.sandbox.amqp_queues import Directory, LeafQueue, Message

__all__ = ["Channel", "Leaf"]

_MAX_CONSUMERS = 100  # a channel's; RabbitMQ has no limit unless told


class Leaf(NamedTuple):
    """Whose connection it is."""

    directory: Directory
    tree_id: str
    leaf_id: str


class _Delivery(NamedTuple):
    """A message that waits for its acknowledgement."""

    message: Message
    queue: LeafQueue
    consumer: _Consumer | None  # None: fetched by Basic.Get
    since: float  # seconds of the monotonic clock


class _Consumer:
    """A subscription."""

    def __init__(
        self, channel: Channel, tag: str, queue: LeafQueue, *, no_ack: bool, prefetch: int
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.queue = queue
        self.no_ack = no_ack
        self.prefetch = prefetch
        self.unacknowledged = 0

    def wants(self) -> bool:
        if not self.channel.outlet.has_room():
            return False
        if self.no_ack:
            return True
        return (self.prefetch == 0 or self.unacknowledged < self.prefetch) and (
            self.channel.prefetch_all == 0 or self.channel.consumed < self.channel.prefetch_all
        )

    def take(self, message: Message) -> None:
        self.channel.deliver(self, message)

    def cancelled(self) -> None:
        self.channel.cancelled(self)


class Channel:
    """An open channel.

    Attributes:
        closing: Channel.Close was sent; until the answer all else is ignored.
        consumed: unacknowledged deliveries of consumers.
    """

    def __init__(self, number: int, leaf: Leaf, outlet: Outlet, clock: Callable[[], float]) -> None:
        self.number = number
        self.outlet = outlet
        self.closing = False
        self.consumed = 0
        self.prefetch_all = 0
        self._leaf = leaf
        self._declared = ""  # the queue declared last
        self._clock = clock
        self._prefetch = 0  # of consumers to come
        self._consumers: dict[str, _Consumer] = {}
        self._unacknowledged: dict[int, _Delivery] = {}  # by delivery tag, oldest first
        self._tags = itertools.count(1)
        self._names = itertools.count(1)

    def handle(self, method: Any) -> None:
        """Does what a method asks for.

        Raises:
            Fault: what is not allowed, not known or not there.
        """
        handler = _HANDLERS.get(method.INDEX)
        if handler is None:
            code = spec.NOT_IMPLEMENTED
            if method.INDEX >> 16 == spec.Connection.INDEX:  # these belong on channel 0
                code = spec.COMMAND_INVALID
            raise Fault(code, f"unimplemented method {method.NAME}")
        handler(self, method)

    def detach(self) -> None:
        """Takes its consumers off their queues."""
        for consumer in self._consumers.values():
            consumer.queue.leave(consumer)

    def give_back(self) -> set[LeafQueue]:
        """Puts back what is unacknowledged, for the caller to pump: other channels may go first."""
        queues = {consumer.queue for consumer in self._consumers.values()}
        for delivery in self._unacknowledged.values():
            delivery.queue.put_back([delivery.message])
            queues.add(delivery.queue)
        self._unacknowledged.clear()
        return queues

    def pump(self) -> None:
        """There may be room again: delivers what can be."""
        for queue in {consumer.queue for consumer in self._consumers.values()}:
            queue.pump()

    def oldest(self) -> float | None:
        """When the delivery was made that waits longest for its acknowledgement."""
        for delivery in self._unacknowledged.values():
            return delivery.since
        return None

    def deliver(self, consumer: _Consumer, message: Message) -> None:
        """Sends a message to a consumer."""
        tag = next(self._tags)
        if consumer.no_ack:
            consumer.queue.settle()
        else:
            self._unacknowledged[tag] = _Delivery(message, consumer.queue, consumer, self._clock())
            consumer.unacknowledged += 1
            self.consumed += 1
        deliver = spec.Basic.Deliver(
            consumer.tag, tag, message.redelivered, exchange="", routing_key=consumer.queue.name
        )
        self.outlet.content(self.number, deliver, message.body)

    def cancelled(self, consumer: _Consumer) -> None:
        """Tells the client that a queue is gone, as RabbitMQ does for consumer_cancel_notify."""
        self._consumers.pop(consumer.tag, None)
        self._send(spec.Basic.Cancel(consumer.tag, nowait=True))

    def _send(self, method: Any) -> None:
        self.outlet.method(self.number, method)

    def _own_queue(self, name: Any) -> LeafQueue:
        """The queue that may be read; no name means the one declared last."""
        directory, tree_id, leaf_id = self._leaf
        name = name or self._declared
        if not name:
            raise Fault(spec.NOT_FOUND, "no previously declared queue")
        if name != leaf_id:
            raise self._denied("queue", name)
        if not directory.has_queue(tree_id, leaf_id):
            raise _no_queue(name, tree_id)
        return directory.queue(tree_id, leaf_id)

    def _denied(self, kind: str, name: Any) -> Fault:
        _, tree_id, leaf_id = self._leaf
        where = f"{kind} {name!a:.82} in vhost {tree_id!a:.82}"
        return Fault(spec.ACCESS_REFUSED, f"access to {where} refused for user {leaf_id!a:.82}")

    def _open(self, _method: Any) -> None:
        raise Fault(spec.CHANNEL_ERROR, "second 'channel.open' seen")

    def _flow(self, method: Any) -> None:
        if not method.active:
            raise Fault(spec.NOT_IMPLEMENTED, "active=false")
        self._send(spec.Channel.FlowOk(active=True))

    def _qos(self, method: Any) -> None:
        if method.prefetch_size:
            raise Fault(spec.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_qos:
            self.prefetch_all = method.prefetch_count
        else:
            self._prefetch = method.prefetch_count
        self._send(spec.Basic.QosOk())
        self.pump()

    def _declare(self, method: Any) -> None:
        directory, tree_id, _ = self._leaf
        name = method.queue or self._declared
        if not method.passive:
            raise self._denied("queue", name)
        if name and not directory.has_queue(tree_id, name):
            raise _no_queue(name, tree_id)
        queue = self._own_queue(name)  # RabbitMQ would let it look at others
        self._declared = queue.name
        if not method.nowait:
            self._send(spec.Queue.DeclareOk(queue.name, queue.ready, queue.consumers))

    def _refused(self, method: Any) -> None:
        queue = getattr(method, "queue", None)
        if queue is not None:
            raise self._denied("queue", queue)
        raise self._denied("exchange", getattr(method, "exchange", None) or "amq.default")

    def _confirm(self, method: Any) -> None:
        """There will be nothing to confirm, but clients may ask before they are refused."""
        if not method.nowait:
            self._send(spec.Confirm.SelectOk())

    def _consume(self, method: Any) -> None:
        queue = self._own_queue(method.queue)
        tag = method.consumer_tag or f"amq.ctag-{self.number}-{next(self._names)}"
        if not isinstance(tag, str):
            raise Fault(spec.SYNTAX_ERROR, "consumer tag is not UTF-8")
        if tag in self._consumers:
            raise Fault(spec.NOT_ALLOWED, f"attempt to reuse consumer tag {tag!a:.82}")
        if len(self._consumers) >= _MAX_CONSUMERS:
            raise Fault(spec.NOT_ALLOWED, f"more than {_MAX_CONSUMERS} consumers on a channel")
        if queue.exclusive or (method.exclusive and queue.consumers):
            where = f"queue {queue.name!a:.82} in vhost {self._leaf.tree_id!a:.82}"
            raise Fault(spec.ACCESS_REFUSED, f"{where} in exclusive use")
        queue.exclusive = method.exclusive
        consumer = _Consumer(
            self, tag, queue, no_ack=method.no_ack, prefetch=self._prefetch
        )  # fmt: skip
        self._consumers[tag] = consumer
        if not method.nowait:
            self._send(spec.Basic.ConsumeOk(tag))
        queue.join(consumer)
        queue.pump()

    def _cancel(self, method: Any) -> None:
        consumer = self._consumers.pop(method.consumer_tag, None)
        if consumer is not None:
            consumer.queue.leave(consumer)
        if not method.nowait:
            self._send(spec.Basic.CancelOk(method.consumer_tag))

    def _cancel_ok(self, _method: Any) -> None:
        """The answer to a Basic.Cancel without nowait, which is never sent; harmless."""

    def _get(self, method: Any) -> None:
        queue = self._own_queue(method.queue)
        message = queue.get()
        if message is None:
            self._send(spec.Basic.GetEmpty())
            return
        tag = next(self._tags)
        if method.no_ack:
            queue.settle()
        else:
            self._unacknowledged[tag] = _Delivery(message, queue, None, self._clock())
        self.outlet.content(
            self.number,
            spec.Basic.GetOk(tag, message.redelivered, "", queue.name, queue.ready),
            message.body,
        )

    def _ack(self, method: Any) -> None:
        self._settle(method.delivery_tag, multiple=method.multiple, requeue=False)

    def _nack(self, method: Any) -> None:
        self._settle(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)

    def _reject(self, method: Any) -> None:
        self._settle(method.delivery_tag, multiple=False, requeue=method.requeue)

    def _recover(self, method: Any) -> None:
        if not method.requeue:
            raise Fault(spec.NOT_IMPLEMENTED, "requeue=false")
        self._settle(0, multiple=True, requeue=True)
        if method.INDEX == spec.Basic.Recover.INDEX:
            self._send(spec.Basic.RecoverOk())

    def _settle(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Ends deliveries: this one, or all up to it; 0 with multiple is all there are."""
        if multiple and tag == 0:
            tags = list(self._unacknowledged)
        elif tag not in self._unacknowledged:
            raise Fault(spec.PRECONDITION_FAILED, f"unknown delivery tag {tag}")
        elif multiple:
            tags = list(itertools.takewhile(lambda one: one <= tag, self._unacknowledged))
        else:
            tags = [tag]
        queues = set()
        for one in tags:
            delivery = self._unacknowledged.pop(one)
            if delivery.consumer is not None:
                delivery.consumer.unacknowledged -= 1
                self.consumed -= 1
            if requeue:
                delivery.queue.put_back([delivery.message])
            else:
                delivery.queue.settle()
            queues.add(delivery.queue)
        for queue in queues:
            queue.pump()


def _no_queue(name: Any, tree_id: str) -> Fault:
    return Fault(spec.NOT_FOUND, f"no queue {name!a:.82} in vhost {tree_id!a:.82}")


_HANDLERS: dict[int, Callable[[Channel, Any], None]] = {
    spec.Channel.Open.INDEX: Channel._open,
    spec.Channel.Flow.INDEX: Channel._flow,
    spec.Basic.Qos.INDEX: Channel._qos,
    spec.Basic.Consume.INDEX: Channel._consume,
    spec.Basic.Cancel.INDEX: Channel._cancel,
    spec.Basic.CancelOk.INDEX: Channel._cancel_ok,
    spec.Basic.Get.INDEX: Channel._get,
    spec.Basic.Ack.INDEX: Channel._ack,
    spec.Basic.Nack.INDEX: Channel._nack,
    spec.Basic.Reject.INDEX: Channel._reject,
    spec.Basic.Recover.INDEX: Channel._recover,
    spec.Basic.RecoverAsync.INDEX: Channel._recover,
    spec.Basic.Publish.INDEX: Channel._refused,
    spec.Confirm.Select.INDEX: Channel._confirm,
    spec.Queue.Declare.INDEX: Channel._declare,
    spec.Queue.Bind.INDEX: Channel._refused,
    spec.Queue.Unbind.INDEX: Channel._refused,
    spec.Queue.Delete.INDEX: Channel._refused,
    spec.Queue.Purge.INDEX: Channel._refused,
    spec.Exchange.Declare.INDEX: Channel._refused,
    spec.Exchange.Delete.INDEX: Channel._refused,
    spec.Exchange.Bind.INDEX: Channel._refused,
    spec.Exchange.Unbind.INDEX: Channel._refused,
}
