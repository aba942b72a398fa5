"""bktransport.events and amqp: nothing but `close` ends notifications, and no secret leaves."""

import contextlib
import copy
import io
import logging
import pickle
import random
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pika
import pytest
import trustme
from pika import spec
from pika.frame import Method
from pydantic import SecretStr

from bktransport.amqp import Session
from bktransport.errors import BrokerError, StateError
from bktransport.events import BrokerAddress, Consumer
from bktransport.sandbox.broker import EmbeddedBroker

CANARY = "canary-7f3a9c"
WAIT = 60.0  # seconds; generous: what is waited for comes at once, or never


def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens on another thread."""
    tick = threading.Event()
    for _ in range(int(WAIT / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    pytest.fail(f"never happened within {WAIT:g} s: {condition}")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        broker.add_leaf("tree", "leaf", CANARY)
        yield broker


class Receiver:
    """A consumer with what it received, closed at the end of the test."""

    def __init__(self, port: int, *, ssl_context: ssl.SSLContext | None = None, **other: str):
        self.got: list[bytes] = []
        self.trouble: Exception | None = None
        names = {"virtual_host": "tree", "user": "leaf", "queue": "leaf", "password": CANARY}
        names.update(other)
        password = SecretStr(names.pop("password"))
        self.address = BrokerAddress("127.0.0.1", port, password=password, **names)
        self.consumer = Consumer(
            self.address, self.receive, ssl_context=ssl_context, longest_pause=0.3
        )

    def receive(self, body: bytes, redelivered: bool) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.got.append(body)


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    with contextlib.ExitStack() as stack:

        def make(port: int, **other: object) -> Receiver:
            made = Receiver(port, **other)  # type: ignore[arg-type]
            stack.callback(made.consumer.close)
            made.consumer.start()
            return made

        yield make


def test_tls_with_a_private_authority(receiver: Callable[..., Receiver]) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with EmbeddedBroker(ssl_context=server) as broker:
        broker.add_leaf("tree", "leaf", CANARY)
        broker.publish("tree", "leaf", b"hello")
        good = receiver(broker.port, ssl_context=trusting)
        assert good.consumer.wait_connected(WAIT)
        until(lambda: good.got == [b"hello"])
        wary = receiver(broker.port, ssl_context=ssl.create_default_context())
        with pytest.raises(BrokerError, match=r"TLS: .*certificate"):
            wary.consumer.wait_connected(WAIT)
        plain = receiver(broker.port)
        until(lambda: "does it want TLS" in str(plain.consumer.error))


def test_tls_to_a_plain_broker_is_refused(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver]
) -> None:
    with pytest.raises(BrokerError, match="TLS"):
        receiver(broker.port, ssl_context=ssl.create_default_context()).consumer.wait_connected(
            WAIT
        )


def test_it_is_there_as_soon_as_the_broker_is(receiver: Callable[..., Receiver]) -> None:
    with EmbeddedBroker() as broker:
        broker.add_leaf("tree", "leaf", CANARY)
        broker.stop()
        early = receiver(broker.port)
        until(lambda: "ConnectionRefusedError" in str(early.consumer.error))
        assert not early.consumer.wait_connected(0.01)
        broker.restart()
        assert early.consumer.wait_connected(WAIT)
        assert early.consumer.error is None


@pytest.mark.parametrize(
    "trouble", [StateError("no room"), OSError(28, "full"), KeyError("x"), RecursionError()]
)
def test_what_can_t_be_kept_is_held_and_told_and_kept_later(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver], trouble: Exception
) -> None:
    receiving = receiver(broker.port)
    receiving.trouble = trouble
    for number in range(3):
        broker.publish("tree", "leaf", b"%d" % number)
    until(lambda: "can't be kept" in str(receiving.consumer.error))
    assert broker.depth("tree", "leaf") == (2, 1), "nothing was acknowledged"
    receiving.trouble = None
    until(lambda: broker.depth("tree", "leaf") == (0, 0))
    assert receiving.got == [b"0", b"1", b"2"]
    assert receiving.consumer.error is None


def test_a_refusal_is_not_hammered_at_and_close_does_not_wait_for_the_next_try(
    broker: EmbeddedBroker,
) -> None:
    address = BrokerAddress("127.0.0.1", broker.port, "tree", "leaf", SecretStr("wrong"), "leaf")
    with _captured() as records:
        consumer = Consumer(address, lambda *_: None, longest_pause=10_000)
        consumer.start()
        with pytest.raises(BrokerError):
            consumer.wait_connected(WAIT)
        threading.Event().wait(1.0)  # other losses are tried again within 0.2 s
        consumer.close(timeout=WAIT)
    assert not consumer._thread.is_alive()
    assert len([r for r in records if r.getMessage() == "refused a login"]) == 1


def test_a_queue_that_goes_away_is_told_and_found_again(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver]
) -> None:
    receiving = receiver(broker.port)
    assert receiving.consumer.wait_connected(WAIT)
    broker.remove_queue("tree", "leaf")
    until(lambda: "refused" in str(receiving.consumer.error))
    broker.add_leaf("tree", "leaf", CANARY)
    broker.publish("tree", "leaf", b"x")
    until(lambda: receiving.got == [b"x"])


def test_nothing_is_handled_after_close(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver]
) -> None:
    receiving = receiver(broker.port)
    receiving.trouble = StateError("no room")
    broker.publish("tree", "leaf", b"x")
    until(lambda: receiving.consumer.error is not None)
    receiving.consumer.close()
    receiving.trouble = None
    broker.publish("tree", "leaf", b"y")
    until(lambda: broker.depth("tree", "leaf") == (2, 0))
    assert receiving.got == []
    assert not receiving.consumer.wait_connected(0)


def _accept_and_keep(server: socket.socket, kept: list[socket.socket], say: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            kept.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(say)


@contextlib.contextmanager
def hostile(say: bytes) -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that says this to everybody, and nothing more."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []
    thread = threading.Thread(target=_accept_and_keep, args=(server, kept, say))
    thread.start()
    try:
        yield server.getsockname()[1], kept
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for connection in kept:
            connection.close()


_START = Method(0, spec.Connection.Start(0, 9, {}, b"PLAIN", b"en_US")).marshal()


@pytest.mark.parametrize("say", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 999, _START])
def test_close_is_quick_whatever_the_other_side_is(
    receiver: Callable[..., Receiver], say: bytes
) -> None:
    with hostile(say) as (port, kept):
        receiving = receiver(port)
        until(lambda: kept)
        receiving.consumer.close(timeout=WAIT)
        assert not receiving.consumer._thread.is_alive()


def test_no_bytes_of_a_stranger_end_it(receiver: Callable[..., Receiver]) -> None:
    chance = random.Random(3)
    for _ in range(15):
        junk = bytearray(_START + chance.randbytes(chance.randrange(60)))
        junk[chance.randrange(len(junk))] = chance.randrange(256)
        with hostile(bytes(junk) + b"\xce" * 9) as (port, kept):
            receiving = receiver(port)
            until(lambda: kept)
            for connection in list(kept):
                connection.shutdown(socket.SHUT_RDWR)
            until(lambda: len(kept) > 1)  # it came again
            receiving.consumer.close(timeout=WAIT)
            assert not receiving.consumer._thread.is_alive()


@pytest.mark.parametrize("pikas_level", [logging.NOTSET, logging.DEBUG])
def test_no_secret_is_in_logs_errors_or_reprs(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver], pikas_level: int
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    handler.setLevel(logging.DEBUG if pikas_level else logging.INFO)
    root, pika_logger = logging.getLogger(), logging.getLogger("pika")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    pika_logger.setLevel(pikas_level)
    try:
        wrong = receiver(broker.port, password=CANARY + "-wrong")
        with pytest.raises(BrokerError) as caught:
            wrong.consumer.wait_connected(WAIT)
        good = receiver(broker.port)
        assert good.consumer.wait_connected(WAIT)
        broker.publish("tree", "leaf", b"SIGNED-URL-in-a-body")
        until(lambda: good.got)
        broker.close_connections()
        until(lambda: good.consumer.error is not None or good.consumer.wait_connected(0))
        for one in (wrong, good):
            one.consumer.close()
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        pika_logger.setLevel(logging.NOTSET)
    shown = [written.getvalue(), repr(wrong.address), str(wrong.address), repr(wrong.consumer)]
    error: BaseException | None = caught.value
    shown += traceback.format_exception(caught.value)
    assert error is not None
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "notifications: connected" in shown[0]
    assert not [text for text in shown if CANARY in text]
    assert pickle.loads(pickle.dumps(error)).args == error.args
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't be pickled"):
            copying(wrong.address)
    if pikas_level == logging.NOTSET:
        assert "SIGNED-URL" not in shown[0]
        assert not [line for line in shown[0].splitlines() if line.startswith("pika")]


def test_each_thing_that_happens_is_logged_once(
    broker: EmbeddedBroker, receiver: Callable[..., Receiver]
) -> None:
    with _captured() as records:
        good = receiver(broker.port)
        assert good.consumer.wait_connected(WAIT)
        broker.stop()
        until(lambda: "ConnectionRefused" in str(good.consumer.error))
        broker.restart()
        assert good.consumer.wait_connected(WAIT)
        good.consumer.close()
    ours = [r for r in records if r.name != "bktransport.sandbox"]
    assert {r.name for r in ours} == {"bktransport"}
    assert [r.levelname for r in ours] == ["INFO", "WARNING", "WARNING", "INFO"]


def test_pika_of_the_application_is_not_silenced(broker: EmbeddedBroker) -> None:
    with _captured() as records:
        pika.BlockingConnection(
            pika.ConnectionParameters(
                "127.0.0.1", broker.port, "tree", pika.PlainCredentials("leaf", CANARY)
            )
        ).close()
    assert [r for r in records if r.name.startswith("pika")]


@contextlib.contextmanager
def _captured() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def test_a_broker_that_says_the_password_back_is_redacted() -> None:
    address = BrokerAddress("127.0.0.1", 1, "tree", "leaf", SecretStr(CANARY), "leaf")
    session = Session(address, lambda *_: None, lambda: None)
    assert session._shown(f"no {CANARY}!") == "'no ***!'"
    session.stop()
    session.run()


@pytest.mark.parametrize("why", ["closed", "stopped", "open"])
def test_nothing_is_kept_on_a_closed_channel_or_after_stop(why: str) -> None:
    calls: list[object] = []
    address = BrokerAddress("127.0.0.1", 1, "tree", "leaf", SecretStr(CANARY), "leaf")
    session = Session(address, lambda *message: calls.append(message), lambda: None)
    if why == "stopped":
        session.stop()
    channel = SimpleNamespace(is_open=why != "closed", basic_ack=calls.append)
    method = SimpleNamespace(redelivered=True, delivery_tag=7)
    session._received(channel, method, None, b"x")
    assert calls == ([(b"x", True), 7] if why == "open" else [])
    session.stop()
    session.run()


@pytest.mark.parametrize("bad", [{"heartbeat": 0}, {"heartbeat": 65536}, {"longest_pause": 0}])
def test_wrong_arguments_raise(bad: dict[str, int]) -> None:
    address = BrokerAddress("127.0.0.1", 1, "tree", "leaf", SecretStr(CANARY), "leaf")
    with pytest.raises(ValueError, match=next(iter(bad))):
        Consumer(address, lambda *_: None, **bad)  # type: ignore[arg-type]
