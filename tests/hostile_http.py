"""An HTTP server on raw sockets that does, per connection, what it is told: good or bad.

    with HostileServer(reset(1000), reply(201, b"...")) as server:
        ...                   # the first connection is reset, later ones get a reply
        server.requests       # what came, whole or not

Each connection carries one request. The last behaviour stays for whatever comes after it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias

__all__ = [
    "Behaviour", "Exchange", "HostileServer", "Request", "bomb", "chunked", "drip", "early",
    "endless", "lost_reply", "raw", "redirect", "reply", "reset", "sleeper", "stall", "told",
    "truncated",
]  # fmt: skip

_PATIENCE = 60.0
"""Seconds that anything may take before a test is taken to hang."""


class _ClosedError(Exception):
    """The server is being closed, or the client went away."""


@dataclass
class Request:
    """What came.

    Attributes:
        complete: whether the whole body came, as Content-Length said.
    """

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


class Exchange:
    """One connection, as a behaviour sees it."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self.request = Request()
        self._connection = connection
        self._closing = closing
        self._waiting = bytearray()

    def _read(self) -> bytes:
        while not self._closing.is_set():
            pending = isinstance(self._connection, ssl.SSLSocket) and self._connection.pending()
            if pending or select.select([self._connection], [], [], 0.05)[0]:
                return self._connection.recv(1 << 16)
        raise _ClosedError

    def read_head(self) -> bool:
        """False where the client went away."""
        while b"\r\n\r\n" not in self._waiting:
            if not (data := self._read()):
                return False
            self._waiting += data
            if self._waiting.startswith(b"\x16\x03"):
                return False  # the client speaks TLS
        head, _, rest = bytes(self._waiting).partition(b"\r\n\r\n")
        self._waiting = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.request.method, self.request.target, _ = first.split(" ", 2)
        for line in lines:
            name, _, value = line.partition(":")
            self.request.headers[name.lower()] = value.strip()
        return True

    def read_body(self, nbytes: int | None = None) -> None:
        """The body, or so many bytes of it."""
        whole = int(self.request.headers.get("content-length", "0"))
        wanted = whole if nbytes is None else min(nbytes, whole)
        body = self.request.body
        body += self._waiting
        self._waiting.clear()
        while len(body) < wanted:
            if not (data := self._read()):
                raise _ClosedError
            body += data
        self.request.complete = len(body) >= whole

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._closing.is_set():
                raise _ClosedError
            if select.select([], [self._connection], [], 0.05)[1]:
                view = view[self._connection.send(view[: 1 << 16]) :]

    def wait(self, seconds: float = _PATIENCE) -> None:
        """Do nothing, until the client or the server goes away."""
        end = threading.Event()
        for _ in range(max(1, int(seconds / 0.05))):
            if self._closing.is_set() or self._is_left():
                raise _ClosedError
            end.wait(min(0.05, seconds))

    def _is_left(self) -> bool:
        """Whether the client closed: nothing else comes after a whole body."""
        if not select.select([self._connection], [], [], 0)[0]:
            return False
        plain = not isinstance(self._connection, ssl.SSLSocket)
        return plain and not self._connection.recv(1, socket.MSG_PEEK)

    def reset(self) -> None:
        """End the connection by an RST."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise _ClosedError


Behaviour: TypeAlias = Callable[[Exchange], None]


class HostileServer:
    """Listens from the start; use it in a `with` statement.

    Args:
        behaviours: one for each connection; the last one for all that follow.
        host: address to listen on.
        ssl_context: speak TLS.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        host: str = "127.0.0.1",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.num_connections = 0
        self._behaviours = list(behaviours)
        self._ssl_context = ssl_context
        self._closing = threading.Event()
        self._accepting = threading.Lock()
        self._listener = socket.create_server((host, 0), backlog=64)
        self.host, self.port = self._listener.getsockname()[:2]
        self.url = f"{'https' if ssl_context else 'http'}://{host}:{self.port}"
        self._workers: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def then(self, *behaviours: Behaviour) -> None:
        """What connections from now on meet."""
        self._behaviours = list(behaviours)

    def close(self) -> None:
        """End all threads and connections."""
        self._closing.set()
        self._acceptor.join(_PATIENCE)
        self._listener.close()
        for worker in self._workers:
            worker.join(_PATIENCE)
            assert not worker.is_alive()

    def settle(self) -> list[Request]:
        """The requests, after all connections so far have ended."""
        while select.select([self._listener], [], [], 0)[0]:
            self._closing.wait(0.01)  # one is there that was not accepted yet
        with self._accepting:
            workers = list(self._workers)
        for worker in workers:
            worker.join(_PATIENCE)
        return self.requests

    def _accept(self) -> None:
        while not self._closing.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            with self._accepting:
                connection, _ = self._listener.accept()
                self.num_connections += 1
                behaviour = self._behaviours[0]
                if len(self._behaviours) > 1:
                    del self._behaviours[0]
                worker = threading.Thread(target=self._serve, args=(connection, behaviour))
                self._workers.append(worker)
                worker.start()

    def _serve(self, connection: socket.socket, behaviour: Behaviour) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            stack.enter_context(contextlib.suppress(_ClosedError, OSError))
            connection.settimeout(_PATIENCE)
            if self._ssl_context is not None:
                connection = self._ssl_context.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
            exchange = Exchange(connection, self._closing)
            if exchange.read_head():
                self.requests.append(exchange.request)
                behaviour(exchange)


# --- behaviours ------------------------------------------------------------------------------


def _head(status: int, headers: Mapping[str, object]) -> bytes:
    lines = [f"HTTP/1.1 {status} Text", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def reply(status: int, body: bytes | object = b"", **headers: object) -> Behaviour:
    """A whole reply to a whole request; anything but bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(_head(status, {"Content-Length": len(content), **named}) + content)

    return behave


def told(make: Callable[[Request], tuple[int, Any]]) -> Behaviour:
    """A whole reply that depends on the request."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        reply(*make(exchange.request))(exchange)

    return behave


def raw(data: bytes) -> Behaviour:
    """Anything at all, after the whole request."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(data)

    return behave


def reset(nbytes: int) -> Behaviour:
    """An RST when so many bytes of the body have come."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body(nbytes)
        exchange.reset()

    return behave


def lost_reply() -> Behaviour:
    """The whole request is taken, and the connection closed."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()

    return behave


def stall(*, read: bool = True) -> Behaviour:
    """No answer; `read=False` does not even read the body."""

    def behave(exchange: Exchange) -> None:
        if read:
            exchange.read_body()
        exchange.wait()

    return behave


def sleeper(nbytes: int, seconds: float) -> Behaviour:
    """Reads the body so slowly, and never answers."""

    def behave(exchange: Exchange) -> None:
        read = 0
        while not exchange.request.complete:
            read += nbytes
            exchange.read_body(read)
            threading.Event().wait(seconds)
        exchange.wait()

    return behave


def drip(data: bytes, seconds: float = 0.05, at: int = 0) -> Behaviour:
    """Bytes one after another, those before `at` at once."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(data[:at])
        for offset in range(at, len(data)):
            exchange.send(data[offset : offset + 1])
            exchange.wait(seconds)
        exchange.wait()

    return behave


def truncated(status: int, body: bytes, missing: int = 1) -> Behaviour:
    """A body that ends before its Content-Length."""
    return raw(_head(status, {"Content-Length": len(body) + missing}) + body)


def endless(status: int = 200, piece: bytes = b"x" * 65536, *, chunks: bool = False) -> Behaviour:
    """A body that never ends, of no length or in chunks."""

    def behave(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(_head(status, {"Transfer-Encoding": "chunked"} if chunks else {}))
        while True:
            exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)

    return behave


def _in_chunks(body: bytes, nbytes: int) -> Iterator[bytes]:
    for start in range(0, len(body), nbytes):
        piece = body[start : start + nbytes]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


def chunked(status: int, body: bytes, *, cut: int = 0, nbytes: int = 1000) -> Behaviour:
    """A body in chunks, its last `cut` bytes missing; the end mark is 5 of them."""
    data = b"".join(_in_chunks(body, nbytes)) + b"0\r\n\r\n"
    return raw(_head(status, {"Transfer-Encoding": "chunked"}) + data[: len(data) - cut])


def bomb(status: int, nbytes: int) -> Behaviour:
    """Zeros, as gzip."""
    body = gzip.compress(bytes(nbytes))
    return raw(_head(status, {"Content-Length": len(body), "Content-Encoding": "gzip"}) + body)


def early(status: int, body: object, *, read: int = 0, reset: bool = False) -> Behaviour:
    """A reply while the client still sends, and the connection closed."""
    content = json.dumps(body).encode()

    def behave(exchange: Exchange) -> None:
        exchange.read_body(read)
        exchange.send(_head(status, {"Content-Length": len(content)}) + content)
        if reset:
            exchange.reset()

    return behave


def redirect(status: int, location: str) -> Behaviour:
    """To somewhere else."""
    return reply(status, b"", Location=location)
