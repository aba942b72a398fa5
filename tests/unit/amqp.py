"""Clients for the broker's tests: pika's, and one that says what it likes byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import trustme
from pika import frame, spec

from bktransport.sandbox.broker import EmbeddedBroker

TREE, LEAF, PASSWORD = "tree-1", "leaf-1", "canary-4f1c"
HEADER = b"AMQP\x00\x00\x09\x01"
LIMIT = 20.0  # seconds: long, for a slow machine; nothing waits for it to pass


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a broker at 127.0.0.1, and for a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@contextlib.contextmanager
def broker(**options: Any) -> Iterator[EmbeddedBroker]:
    """A broker with one leaf."""
    with EmbeddedBroker(**options) as made:
        made.add_leaf(TREE, LEAF, PASSWORD)
        yield made


@contextlib.contextmanager
def connection(
    made: EmbeddedBroker, user: str = LEAF, password: str = PASSWORD, tree: str = TREE, **more: Any
) -> Iterator[Any]:
    """A blocking client of pika's, connected."""
    credentials = pika.PlainCredentials(user, password)
    parameters = pika.ConnectionParameters(
        made.host, made.port, tree, credentials, blocked_connection_timeout=LIMIT, **more
    )
    opened = pika.BlockingConnection(parameters)
    try:
        yield opened
    finally:
        if opened.is_open:
            opened.close()


def eventually(happens: Callable[[], object], opened: Any = None) -> None:
    """Waits for something to become true; a pika connection goes on meanwhile."""
    until = time.monotonic() + LIMIT
    while not happens():
        assert time.monotonic() < until, "it never happened"
        if opened is None:
            time.sleep(0.01)
        else:
            opened.process_data_events(0.01)


def get(channel: Any, **options: Any) -> tuple[Any, bytes]:
    """The next message by Basic.Get, and its method."""
    method, _, body = channel.basic_get(LEAF, **options)
    assert method is not None
    return method, body


def method(channel: int, what: Any) -> bytes:
    """A method frame."""
    encoded: bytes = frame.Method(channel, what).marshal()
    return encoded


def login(password: str = PASSWORD, *, told: bool = True, mechanism: str = "PLAIN") -> bytes:
    """Connection.StartOk."""
    properties = {"capabilities": {"authentication_failure_close": told}}
    response = f"\0{LEAF}\0{password}"
    return method(0, spec.Connection.StartOk(properties, mechanism, response))


def tune(channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> bytes:
    """Connection.TuneOk."""
    return method(0, spec.Connection.TuneOk(channel_max, frame_max, heartbeat))


OPEN = method(0, spec.Connection.Open(TREE))
CHANNEL = method(1, spec.Channel.Open())
START = HEADER + login() + tune() + OPEN + CHANNEL


class Raw:
    """A client that sends what it is told and decodes what comes."""

    def __init__(
        self, made: EmbeddedBroker, sent: bytes = b"", tls: ssl.SSLContext | None = None
    ) -> None:
        self.sock = socket.create_connection((made.host, made.port), timeout=LIMIT)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self._buffer = b""
        self.send(sent)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Sends, whether or not anybody still listens."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def frames(self) -> Iterator[Any]:
        """Frames as they come, up to the end of the connection."""
        while True:
            used, got = frame.decode_frame(self._buffer)
            if used:
                self._buffer = self._buffer[used:]
                yield got
                continue
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                return
            if not data:
                return
            self._buffer += data

    def until(self, what: Any) -> Any:
        """The next method of this kind; others are passed over."""
        for got in self.frames():
            if isinstance(getattr(got, "method", None), what):
                return got.method
        raise AssertionError(f"the connection ended before {what.NAME}")

    def rest(self) -> list[str]:
        """The names of all that comes until the connection ends."""
        return [getattr(got, "method", got).NAME for got in self.frames()]
