"""A service of the 2.4.2 dialect that behaves, but where a test tells it otherwise."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from bktransport.sandbox.broker import EmbeddedBroker

__all__ = ["Answer", "Asked", "Exchange", "OddService"]

_KEPT = 1 << 23
TREE, BRANCH, TOKEN = "tree-1", "branch-1", "canary-token-5d1e"


@dataclass
class Asked:
    """One request.

    Attributes:
        body: its first 8 MiB.
        nbytes: of the whole body, as far as it came.
        whole: whether all of it came.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    nbytes: int = 0
    whole: bool = False


class Exchange(BaseHTTPRequestHandler):
    """One request and what is to become of it."""

    protocol_version = "HTTP/1.1"
    server: _Server
    asked: Asked

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.server.owner.asked.append(self.asked)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.server.owner.answer_to(self)(self)
        self.close_connection = True

    def receive(self) -> None:
        """Read the body."""
        left = int(self.headers.get("Content-Length", 0))
        while left and (block := self.rfile.read(min(left, 1 << 18))):
            left -= len(block)
            self.asked.nbytes += len(block)
            if len(self.asked.body) < _KEPT:
                self.asked.body += block
        self.asked.whole = not left

    def reply(
        self, status: int, body: bytes | Any = b"", *, length: int | None = None, **headers: str
    ) -> None:
        """Send a reply, a JSON one unless it is bytes; `length` -1 leaves Content-Length out."""
        self.receive()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def stall(self) -> None:
        """Take the request and say nothing until the service is closed."""
        self.receive()
        self.server.owner.closing.wait()

    def log_message(self, format: str, *args: Any) -> None:
        pass


Answer = Callable[[Exchange], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # joined by server_close
    owner: OddService

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hung up is none of ours
            self.owner.failed = True


@dataclass
class OddService:
    """The service, its broker and its leaves; use it in a `with` statement.

    Attributes:
        broker: knows all leaves; closed by whoever made it.
        leaves: how many.
        ssl_context: serve HTTPS with it.
        answers: by "METHOD /path", of which the longest that begins a request decides.
        asked: all requests, in order.
        files: what is served below /files/, by id.
        closing: set when the service ends, for answers that wait.
    """

    broker: EmbeddedBroker
    leaves: int = 1
    ssl_context: ssl.SSLContext | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    def __enter__(self) -> OddService:
        self._server = _Server((self.broker.host, 0), Exchange)
        self._server.owner = self
        if self.ssl_context:
            self._server.socket = self.ssl_context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self.url = f"{'https' if self.ssl_context else 'http'}://{self.broker.host}:{self.port}"
        for leaf in range(self.leaves):
            self.broker.add_leaf(TREE, f"leaf-{leaf}", TOKEN)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        assert not self.failed, "an answer of the service failed"

    def credentials(self, leaf: int = 0) -> dict[str, Any]:
        """As the service hands them out."""
        return {
            "leaf_name": f"name-{leaf}", "leaf_id": f"leaf-{leaf}", "leaf_session_token": TOKEN,
            "performance_analyser_username": "analyser",
            "performance_analyser_password": "canary-analyser-77",
            "response_host": self.broker.host, "port": self.broker.port,
        }  # fmt: skip

    def answer_to(self, exchange: Exchange) -> Answer:
        line = f"{exchange.command} {exchange.path}"
        fitting = [start for start in self.answers if line.startswith(start)]
        return self.answers[max(fitting, key=len)] if fitting else self._usual

    def _usual(self, exchange: Exchange) -> None:
        last = exchange.path.partition("?")[0].rpartition("/")[2]
        if exchange.path == "/v1/leaf/authenticate":
            exchange.reply(200, {"data": {"tree_id": TREE, "branch_id": BRANCH}})
        elif exchange.path == "/v1/file/upload":
            exchange.reply(201, {"data": {"file_id": "file-1"}})
        elif exchange.path == "/v1/performance/analysis":
            exchange.reply(201, {"data": {}})
        elif exchange.path.startswith("/v1/file/download/"):
            exchange.reply(200, {"data": {"download_url": f"{self.url}/files/{last}?signature=s3"}})
        elif last in self.files:
            exchange.reply(200, self.files[last])
        else:
            exchange.reply(404, {"error": "no such thing"})

    def requests_for(self, start: str) -> list[Asked]:
        """Those whose "METHOD /path" begins so."""
        return [asked for asked in self.asked if f"{asked.method} {asked.path}".startswith(start)]

    def publish(self, *messages: object, leaf: int = 0) -> None:
        """Messages for a leaf: an id of an aggregate, or bytes as they are."""
        for message in messages:
            ready = {"message_type": "aggregation_status", "body": {"aggregation_id": message}}
            body = message if isinstance(message, bytes) else json.dumps(ready).encode()
            self.broker.publish(TREE, f"leaf-{leaf}", body)

    def depth(self, leaf: int = 0) -> tuple[int, int]:
        """Messages that wait, and that are delivered but not acknowledged."""
        return self.broker.depth(TREE, f"leaf-{leaf}")

    @contextlib.contextmanager
    def answering(self, start: str, answer: Answer) -> Iterator[None]:
        """Answer so for a while."""
        self.answers[start] = answer
        yield
        del self.answers[start]


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait for a thing to happen, generously."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)
    return found
