"""Faults of notifications: each message is handled, and offered once."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import fault_paths  # noqa: F401
from fault_peers import Ours, Peer, broker, peer, until
from fault_tally import NotProvenError, Run, Scenario, Tally
from interop.rabbitmq import RabbitNode, find
from proxy import TcpProxy

from bktransport.errors import BrokerError
from bktransport.inbox import Inbox
from bktransport.messages import AggregationReady, RunStatusChanged, write_event
from bktransport.sandbox import Sandbox
from bktransport.sandbox.faults import POISONS
from bktransport.state import StateFolder

__all__ = ["SCENARIOS", "Mail"]

_PATIENCE = 60.0
"""Seconds in which a message must come to us."""

_STARTS_PAY = 5
"""Runs for which a RabbitMQ is started where the embedded broker would do."""

_SHORT = 1.5
"""Seconds that the published client is waited for; what has not come then never does."""


class Mail:
    """The messages of one leaf: what was sent, and what its client was offered.

    Args:
        run: whose it is.
        sandbox: whose broker sends.
    """

    def __init__(self, run: Run, sandbox: Sandbox) -> None:
        self.tally = Tally()
        self.sent: list[str] = []
        self.offered: Counter[str] = Counter()
        self._run = run
        self._sandbox = sandbox
        self._leaf = sandbox.credentials[0]["leaf_id"]
        self._tree = sandbox._service.accounts.topology.tree_id

    def publish(self, body: bytes) -> None:
        self._sandbox.broker.publish(self._tree, self._leaf, body)

    def send(self) -> str:
        """A new aggregation id; it counts as sent once the broker has it."""
        aggregation_id = f"aggregate-{self._run.rng.getrandbits(64):016x}"
        self.publish(write_event(AggregationReady(aggregation_id)))
        self.sent.append(aggregation_id)
        return aggregation_id

    def take(self, client: Peer, seconds: float = 0.1) -> bool:
        """Note the next id that the client offers; whether there was one."""
        aggregation_id = client.get(seconds)
        if aggregation_id is not None:
            self.offered[aggregation_id] += 1
        return aggregation_id is not None

    def take_all(self, client: Peer) -> None:
        """Until everything sent was offered, or nothing comes any more."""
        patience = _SHORT if self._run.published else _PATIENCE
        end = time.monotonic() + patience
        while time.monotonic() < end and not self.offered.keys() >= set(self.sent):
            if self.take(client, min(patience, 1.0)):
                end = time.monotonic() + patience

    def result(self, client: Peer) -> Tally:
        """The counts, after one more look for what is offered too often."""
        self.take_all(client)
        while self.take(client, 0.2):
            pass
        tally = self.tally
        tally.runs = self._run.played
        handled = self.offered.keys() & set(self.sent)
        tally.add("sent", len(self.sent))
        tally.add("handled", len(handled))
        missing = "lost" if isinstance(client, Ours) else "not seen, the consumer has ended"
        tally.add(missing, len(self.sent) - len(handled))
        tally.add("offered twice", sum(count > 1 for count in self.offered.values()))
        if isinstance(client, Ours):
            left = self.left()
            tally.add("left at the broker", left)
            if left or len(handled) < len(self.sent):
                tally.note(f"broker_error: {client.client.broker_error}")
        return tally

    def left(self) -> int:
        """Messages that the broker still has; an acknowledgement takes a moment."""
        depth = self._sandbox.broker.depth
        until(lambda: depth(self._tree, self._leaf) == (0, 0), 5)
        return sum(depth(self._tree, self._leaf))


@contextlib.contextmanager
def _site(
    run: Run, *, proxy: bool = False, heartbeat: int = 30, **options: Any
) -> Iterator[tuple[Mail, Peer, Any, TcpProxy | None]]:
    """A sandbox of one leaf and its client; the options are the broker's."""
    with contextlib.ExitStack() as stack:
        at = broker(run, **options)
        sandbox = stack.enter_context(Sandbox(leaves=1, bind=at.host, broker=at))
        credentials = dict(sandbox.credentials[0])
        between = stack.enter_context(TcpProxy(at.host, at.port)) if proxy else None
        if between is not None:
            credentials |= {"response_host": "127.0.0.1", "port": between.port}
        client = stack.enter_context(peer(run, credentials, sandbox.url, heartbeat=heartbeat))
        yield Mail(run, sandbox), client, at, between


def _some(run: Run, most: int = 4) -> range:
    return range(run.rng.randint(1, most))


def _later(seconds: float, call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


# --- the connection --------------------------------------------------------------------------


def _forced_close(run: Run) -> Tally:
    """By the broker's word or by a reset, while messages are on their way."""
    with _site(run) as (mail, client, at, _):
        for _step in run.steps():
            close = run.rng.choice([at.close_connections, at.drop_connections])
            timer = _later(run.rng.uniform(0, 0.02), close)
            for _message in _some(run):
                mail.send()
            mail.take(client)
            timer.join()
            mail.take_all(client)
        return mail.result(client)


def _restart(run: Run) -> Tally:
    """The embedded broker goes without a word and comes back; it keeps its queues."""
    with _site(run) as (mail, client, at, _):
        for _step in run.steps():
            for _message in _some(run, 2):
                mail.send()
            at.stop()
            mail.send()
            time.sleep(run.rng.uniform(0, 0.2))
            at.restart()
            mail.send()
            mail.take_all(client)
        return mail.result(client)


def _rabbit_killed(run: Run) -> Tally:
    """Kill -9 of a real RabbitMQ while it is sent messages; what it confirmed must come."""
    if (found := find())[0] is None:
        raise NotProvenError(found[1])
    with (
        RabbitNode() as node,
        Sandbox(leaves=1, amqp_url=node.amqp_url, management_url=node.management_url) as sandbox,
        peer(run, sandbox.credentials[0], sandbox.url) as client,
    ):
        mail = Mail(run, sandbox)
        assert isinstance(client, Ours)
        consumer = client.client._notifications._consumer
        assert consumer is not None
        # A start takes seconds, for which pauses grow; that they do is proved elsewhere.
        consumer._longest_pause = 1.0
        for _step in run.steps():
            sender = threading.Thread(target=_send_until_refused, args=(mail,))
            sender.start()
            time.sleep(run.rng.uniform(0, 0.05))
            node.kill()
            sender.join()
            node.start()
            for _message in _some(run):
                mail.send()
            mail.take_all(client)
        return mail.result(client)


def _send_until_refused(mail: Mail) -> None:
    with contextlib.suppress(BrokerError):  # not confirmed: it may be there or not
        for _ in range(100):
            mail.send()


def _black_hole(run: Run) -> Tally:
    """Everything is swallowed, ends of connections too, until the client has noticed."""
    with _site(run, proxy=True, heartbeat=1) as (mail, client, _, between):
        assert isinstance(client, Ours)
        assert between is not None
        for _step in run.steps():
            mail.send()
            between.black_hole()
            mail.send()
            if not until(lambda: client.client.broker_error is not None):
                mail.tally.note("the black hole was not noticed")
            between.heal()
            mail.take_all(client)
        return mail.result(client)


def _frozen(run: Run) -> Tally:
    """The broker plays dead, and is there again after 90 s: twice the heartbeat and more."""
    with _site(run) as (mail, client, at, _):
        for _step in run.steps():
            mail.send()
            mail.take_all(client)
            at.freeze()
            time.sleep(90)
            at.thaw()
            mail.send()
            mail.take_all(client)
        return mail.result(client)


def _dead_broker(run: Run) -> Tally:
    return _frozen(run) if run.published else _black_hole(run)


# --- the messages ----------------------------------------------------------------------------


def _poisons(rng: Random) -> bytes:
    garbage = rng.randbytes(rng.randint(1, 3000))
    deep = b'{"message_type": ' + b"[" * 5000
    huge = b'{"message_type": "run_status", "body": "' + b"x" * (1 << 17) + b'"}'
    return rng.choice([*POISONS, garbage, deep, huge])


def _poison(run: Run) -> Tally:
    """Malformed and unknown messages before, between and after good ones."""
    with _site(run) as (mail, client, _, _):
        for _step in run.steps():
            mail.publish(_poisons(run.rng))
            mail.send()
            mail.take_all(client)
        tally = mail.result(client)
    if not run.published:
        with StateFolder(run.folder / "state") as state:
            inbox = Inbox(state)
            kept = len(inbox.kept_aside())
            inbox.close()
        tally.add("kept aside", kept)
        tally.add("not kept aside", min(1000, run.played) - kept)
    return tally


def _duplicates(run: Run) -> Tally:
    """Each told up to four times, some again after they are done; a run status among them."""
    with _site(run) as (mail, client, at, _):
        for step in run.steps():
            body = write_event(AggregationReady(mail.send()))
            for _again in range(run.rng.randint(1, 3)):
                mail.publish(body)
            mail.take_all(client)
            mail.publish(body)
            mail.publish(write_event(RunStatusChanged("start" if step % 2 else "stop")))
            if run.rng.random() < 0.1 and not run.published:
                at.drop_connections()
        return mail.result(client)


def _consumer_timeout(run: Run) -> Tally:
    """A message that can't be kept for long: the broker closes the channel of who holds it."""
    if run.published:
        return _unacknowledged(run)
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"broker": broker(run, consumer_timeout=1.0)}
        if run.runs >= _STARTS_PAY and find()[0] is not None:
            options.pop("broker").close()
            node = stack.enter_context(RabbitNode(consumer_timeout=1.0))
            options = {"amqp_url": node.amqp_url, "management_url": node.management_url}
        sandbox = stack.enter_context(Sandbox(leaves=1, **options))
        client = stack.enter_context(peer(run, sandbox.credentials[0], sandbox.url))
        mail = Mail(run, sandbox)
        for _step in run.steps():
            with _held(run.folder / "state" / "inbox.sqlite3"):
                mail.send()
                mail.send()
                time.sleep(run.rng.uniform(3, 8))
            mail.take_all(client)
        return mail.result(client)


@contextlib.contextmanager
def _held(database: Path) -> Iterator[None]:
    """As another process would that is slow with the inbox."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _unacknowledged(run: Run) -> Tally:
    """The published client never acknowledges a run status."""
    with _site(run, consumer_timeout=1.0) as (mail, client, _, _):
        for _step in run.steps():
            mail.publish(write_event(RunStatusChanged("start")))
            time.sleep(2)
            mail.send()
            mail.take_all(client)
        return mail.result(client)


SCENARIOS = (
    Scenario("close", "broker: connection closed by force", _forced_close, published=20),
    Scenario("restart", "broker: gone and back", _restart, published=20),
    Scenario(
        "kill-broker", "broker: RabbitMQ, kill -9 and start", _rabbit_killed, pace="broker",
        why_not="as before",
    ),
    Scenario("black-hole", "broker: black hole", _dead_broker, pace="slow", published=1),
    Scenario("poison", "messages: malformed or unknown", _poison, published=20),
    Scenario("duplicates", "messages: told several times", _duplicates, published=200),
    Scenario(
        "consumer-timeout", "broker: consumer timeout", _consumer_timeout, pace="slow",
        published=10,
    ),
)  # fmt: skip
