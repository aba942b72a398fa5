"""Notifications on real brokers: each message is handled at least once, and offered once.

Every test runs on each broker of the `peer` fixture; faults of the network come from a proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bktransport.errors import BrokerError, StateError
from bktransport.events import BrokerAddress, Consumer
from bktransport.inbox import AggregationQueue, Inbox
from bktransport.messages import AggregationReady, RunStatusChanged, write_event
from bktransport.sandbox.broker import EmbeddedBroker
from bktransport.sandbox.rabbitmq import RabbitBroker
from bktransport.state import StateFolder

from ..proxy import TcpProxy
from .rabbitmq import RabbitNode

PASSWORD = "canary-5d21e8"  # noqa: S105  of a broker that lives as long as the test
WAIT = 120.0  # seconds; generous: what is waited for comes soon, or never
BOTH = ["embedded", "rabbitmq"]
TIMEOUT = 3.0  # seconds of the consumer timeout where there is one


def until(condition: Callable[[], object]) -> None:
    tick = threading.Event()
    for _ in range(int(WAIT / 0.02)):
        if condition():
            return
        tick.wait(0.02)
    pytest.fail(f"never happened within {WAIT:g} s")


class Peer:
    """A broker with one leaf, behind a proxy."""

    def __init__(self, broker: Any, stop: Callable[[], None], restart: Callable[[], None]) -> None:
        self.broker = broker
        self.stop, self.restart = stop, restart
        self.tree, self.leaf = f"tree-{uuid.uuid4()}", f"leaf-{uuid.uuid4()}"
        broker.add_leaf(self.tree, self.leaf, PASSWORD)
        self.proxy = TcpProxy(broker.host, broker.port)

    def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            self.broker.publish(self.tree, self.leaf, body)

    def depth(self) -> tuple[int, int]:
        depth: tuple[int, int] = self.broker.depth(self.tree, self.leaf)
        return depth

    def address(self, **other: str) -> BrokerAddress:
        names = {"virtual_host": self.tree, "user": self.leaf, "queue": self.leaf, **other}
        password = SecretStr(names.pop("password", PASSWORD))
        return BrokerAddress("127.0.0.1", self.proxy.port, password=password, **names)


@contextlib.contextmanager
def _rabbit(node: RabbitNode) -> Iterator[Peer]:
    with RabbitBroker(node.amqp_url) as broker:
        peer = Peer(broker, node.kill, node.start)
        with peer.proxy:
            yield peer


@contextlib.contextmanager
def _embedded(consumer_timeout: float | None = None) -> Iterator[Peer]:
    with EmbeddedBroker(consumer_timeout=consumer_timeout) as broker:
        peer = Peer(broker, broker.stop, broker.restart)
        with peer.proxy:
            yield peer


@pytest.fixture(params=BOTH)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    if request.param == "embedded":
        with _embedded() as peer:
            yield peer
    else:
        with _rabbit(request.getfixturevalue("rabbit")) as peer:
            yield peer


@pytest.fixture(params=BOTH)
def own_peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """One that the test may kill; it also has a consumer timeout."""
    if request.param == "embedded":
        with _embedded(TIMEOUT) as peer:
            yield peer
    else:
        request.getfixturevalue("rabbit_installed")
        with RabbitNode(consumer_timeout=TIMEOUT) as node, _rabbit(node) as peer:
            yield peer


class Site:
    """State folder, inbox, queue and consumer, put together as a client does."""

    def __init__(self, address: BrokerAddress, state: Path, heartbeat: int = 30) -> None:
        self.folder = StateFolder(state)
        self.inbox = Inbox(self.folder)
        self.queue = AggregationQueue(self.inbox)
        self.handled: list[tuple[bytes, bool]] = []
        self.events: list[Any] = []
        self.before_return: Callable[[], object] = lambda: None
        self.consumer = Consumer(address, self._receive, heartbeat=heartbeat, longest_pause=0.5)
        self.consumer.start()

    def _receive(self, body: bytes, redelivered: bool) -> None:
        event = self.inbox.commit(body, redelivered=redelivered)
        self.handled.append((body, redelivered))
        self.events.append(event)
        self.queue.arrived()
        self.before_return()

    def take_all(self) -> list[str]:
        taken = []
        while not self.queue.empty():
            taken.append(self.queue.get(block=False))
        return taken

    def close(self) -> None:
        self.consumer.close(timeout=WAIT)
        self.queue.close()
        self.inbox.close()
        self.folder.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites, by default on one state folder; closes them at the end."""
    with contextlib.ExitStack() as stack:

        def make(peer: Peer, state: Path = tmp_path / "state", **other: Any) -> Site:
            made = Site(peer.address(), state, **other)
            stack.callback(made.close)
            return made

        yield make


def ids(count: int) -> list[str]:
    return [f"aggregation-{number}" for number in range(count)]


def told(names: list[str]) -> list[bytes]:
    return [write_event(AggregationReady(name)) for name in names]


def test_a_stream_in_order(peer: Peer, site: Callable[..., Site]) -> None:
    here = site(peer)
    peer.publish(*told(ids(50)))
    until(lambda: peer.depth() == (0, 0))
    assert here.take_all() == ids(50)
    assert here.consumer.error is None


@pytest.mark.parametrize("fault", ["forced close", "reset", "lost acknowledgement"])
def test_losses_amid_a_stream_lose_nothing(
    peer: Peer, site: Callable[..., Site], fault: str
) -> None:
    names = ids(300)
    here = site(peer)
    falls = {40, 120, 121, 250}

    def fall() -> None:
        if len(here.handled) in falls and fault == "lost acknowledgement":
            peer.proxy.reset_all()  # it is committed, and the acknowledgement can't leave

    here.before_return = fall
    for number, body in enumerate(told(names)):
        peer.publish(body)
        if number in falls and fault != "lost acknowledgement":
            until(lambda number=number: len(here.handled) > number - 20)  # type: ignore[misc]
            if fault == "reset":
                peer.proxy.reset_all()
            else:
                peer.broker.close_connections()
    until(lambda: here.queue.qsize() == 300 and peer.depth() == (0, 0))
    assert here.take_all() == names
    assert {body for body, _ in here.handled} == set(told(names))
    if fault == "lost acknowledgement":
        assert sum(redelivered for _, redelivered in here.handled) >= len(falls)


def test_the_broker_dies_and_comes_back_amid_a_stream(
    own_peer: Peer, site: Callable[..., Site]
) -> None:
    here = site(own_peer)
    own_peer.publish(*told(ids(100))[:60])
    until(lambda: len(here.handled) > 10)
    own_peer.stop()
    until(lambda: here.consumer.error is not None)
    own_peer.restart()
    assert here.consumer.wait_connected(WAIT)
    own_peer.publish(*told(ids(100))[60:])
    until(lambda: here.queue.qsize() == 100 and own_peer.depth() == (0, 0))
    assert here.take_all() == ids(100)


def test_a_black_hole_is_noticed_by_the_heartbeat(peer: Peer, site: Callable[..., Site]) -> None:
    here = site(peer, heartbeat=1)
    assert here.consumer.wait_connected(WAIT)
    peer.publish(*told(ids(1)))
    until(lambda: here.handled)
    peer.proxy.black_hole()
    until(lambda: here.consumer.error is not None)
    peer.proxy.heal()
    peer.publish(*told(ids(2)))
    until(lambda: here.queue.qsize() == 2 and peer.depth() == (0, 0))
    assert here.take_all() == ids(2)


def test_closing_in_a_black_hole_ends_the_thread(peer: Peer, site: Callable[..., Site]) -> None:
    here = site(peer)
    assert here.consumer.wait_connected(WAIT)
    peer.proxy.black_hole()
    here.consumer.close(timeout=10)  # seconds; the heartbeat would take 70
    assert not here.consumer._thread.is_alive()


def test_a_channel_closed_by_the_consumer_timeout_is_opened_again(
    own_peer: Peer, site: Callable[..., Site]
) -> None:
    here = site(own_peer)
    works = threading.Event()

    def fail() -> None:
        if not works.is_set():
            raise OSError(28, "No space left on device")

    here.before_return = fail
    own_peer.publish(*told(ids(3)))
    until(lambda: any(redelivered for _, redelivered in here.handled))  # on another channel
    works.set()
    until(lambda: here.queue.qsize() == 3 and own_peer.depth() == (0, 0))
    assert here.take_all() == ids(3)
    until(lambda: here.consumer.error is None)


def test_poison_is_kept_aside_and_blocks_nothing(peer: Peer, site: Callable[..., Site]) -> None:
    here = site(peer)
    poison = [
        b"not JSON",
        b"[]",
        b'{"message_type": "aggregation_status", "body": {"aggregation_id": "../../etc"}}',
        b'{"message_type": "\xff\xfe"}',
        json.dumps({"message_type": "lunch", "body": {}}).encode(),
        b"[" * 50_000,
        b"x" * 300_000,
        b"",
    ]
    good = told(ids(len(poison)))
    for bad, fine in zip(poison, good, strict=True):
        peer.publish(bad, fine)
    until(lambda: here.queue.qsize() == len(good) and peer.depth() == (0, 0))
    assert here.take_all() == ids(len(good))
    assert [kept.nbytes for kept in here.inbox.kept_aside()] == [len(body) for body in poison]
    assert here.consumer.error is None
    here.close()
    again = site(peer)
    peer.publish(*told(["after-a-restart"]))
    until(lambda: "after-a-restart" in again.inbox.waiting())


def test_duplicates_are_offered_once_and_a_status_is_none(
    peer: Peer, site: Callable[..., Site]
) -> None:
    here = site(peer)
    statuses = [RunStatusChanged(s) for s in ("start", "stop", "start", "start", "pause")]
    for status in statuses:
        peer.publish(write_event(status), *told(["same", "same"]))
    until(lambda: peer.depth() == (0, 0) and here.queue.qsize() == 1)
    assert here.take_all() == ["same"]
    here.queue.task_done()
    assert [e for e in here.events if isinstance(e, RunStatusChanged)] == statuses
    assert here.inbox.last_run_status() == "pause"
    here.close()
    again = site(peer)
    peer.publish(*told(["same", "other"]))
    assert again.queue.get(timeout=WAIT) == "other"
    assert again.inbox.last_run_status() == "pause"


@pytest.mark.parametrize("wrong", ["password", "user", "queue", "virtual_host"])
def test_a_refusal_is_told(peer: Peer, wrong: str) -> None:
    address = peer.address(**{wrong: "wrong"})
    consumer = Consumer(address, lambda *_: None, longest_pause=0.2)
    consumer.start()
    with pytest.raises(BrokerError, match="refused") as caught:
        consumer.wait_connected(WAIT)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    seen = peer.proxy.accepted
    until(lambda: peer.proxy.accepted > seen)  # it goes on asking
    consumer.close(timeout=WAIT)


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.interop.test_notifications import PASSWORD, Site
from bktransport.events import BrokerAddress
from pydantic import SecretStr
port, tree, leaf = sys.argv[2].split(",")
address = BrokerAddress("127.0.0.1", int(port), tree, leaf, SecretStr(PASSWORD), leaf)
site = Site(address, Path(sys.argv[1]))
while True:
    taken = site.queue.get()
    print("taken", taken, flush=True)
    site.queue.task_done(taken)
    print("done", taken, flush=True)
"""


def _child(peer: Peer, state: Path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    names = f"{peer.proxy.port},{peer.tree},{peer.leaf}"
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(state), names, root],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


def test_our_process_is_killed_again_and_again_and_nothing_is_lost(
    peer: Peer, tmp_path: Path
) -> None:
    names = ids(120)
    peer.publish(*told(names))
    chance = random.Random(11)
    taken: list[str] = []
    done: list[str] = []
    kills = 0
    while len(done) < len(names):
        with _child(peer, tmp_path / "state") as child:
            assert child.stdout is not None
            lives = chance.randrange(1, 60)  # lines
            for line in child.stdout:
                what, name = line.split()
                (taken if what == "taken" else done).append(name)
                lives -= 1
                if not lives or len(done) == len(names):
                    child.send_signal(signal.SIGKILL)
                    kills += 1
                    break
            # What it still said, the dead process had done.
            for line in child.stdout.read().splitlines():
                what, _, name = line.partition(" ")
                if name in names:
                    (taken if what == "taken" else done).append(name)
        assert child.wait() == -signal.SIGKILL
    assert kills > 3
    assert set(taken) == set(names), "each was offered"
    assert sorted(set(done)) == sorted(names), "each was done"
    assert len(taken) - len(names) <= kills, "offered again only where a process died with it"
    with StateFolder(tmp_path / "state") as folder:
        inbox = Inbox(folder)
        until(lambda: inbox.waiting() == [])
        inbox.close()


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            pytest.skip(f"NOT PROVEN on a full disk: no small tmpfs can be mounted here ({exc})")
        try:
            yield Path(mounted)
        finally:
            subprocess.run(["umount", mounted], check=True)


def test_a_full_disk_loses_nothing(peer: Peer, site: Callable[..., Site]) -> None:
    with _small_disk() as disk:
        here = site(peer, disk / "state")
        assert here.consumer.wait_connected(WAIT)
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        peer.publish(*told(ids(200)))
        until(lambda: "make room on the disk" in str(here.consumer.error))
        acknowledged = 200 - sum(peer.depth())
        assert len(here.inbox.waiting()) == acknowledged, "only what is kept was acknowledged"
        filler.unlink()
        until(lambda: here.queue.qsize() == 200 and peer.depth() == (0, 0))
        assert here.take_all() == ids(200)
        assert here.consumer.error is None
        here.close()


def test_two_clients_on_one_folder(peer: Peer, site: Callable[..., Site]) -> None:
    first = site(peer)
    with pytest.raises(StateError, match=f"in use by process {os.getpid()}"):
        site(peer)
    first.close()
    second = site(peer)
    peer.publish(*told(ids(1)))
    assert second.queue.get(timeout=WAIT) == ids(1)[0]
