"""A service of the 2.4.2 dialect on the hostile HTTP server; a fault may come before any answer."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import fault_paths  # noqa: F401
from hostile_http import Behaviour, Exchange, HostileServer, Request, reply

from bktransport.sandbox.broker import EmbeddedBroker

__all__ = ["LEAF", "TREE", "Fault", "Service"]

TREE, LEAF, _TOKEN = "tree-1", "leaf-1", "token-of-no-worth"

Fault = Callable[[Request], Behaviour | None]
"""What is done in place of the usual answer, if anything; asked for each request."""


class Service:
    """Stores what is uploaded, and serves what is in `files`; use it in a `with` statement.

    Attributes:
        stored: how often each update came, whole, by digest.
        files: what is served, by id.
        fault: of the moment, or None; logins never meet it.
    """

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.stored: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.fault: Fault | None = None
        self._lock = threading.Lock()
        self._broker = broker
        broker.add_leaf(TREE, LEAF, _TOKEN)
        self._server = HostileServer(self._serve, host=broker.host)
        self.url = self._server.url

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()

    @property
    def credentials(self) -> dict[str, Any]:
        """As the service hands them out."""
        return {
            "leaf_name": "one", "leaf_id": LEAF, "leaf_session_token": _TOKEN,
            "performance_analyser_username": "analyser",
            "performance_analyser_password": "of-no-worth",
            "response_host": self._broker.host, "port": self._broker.port,
        }  # fmt: skip

    def lose_reply(self, exchange: Exchange) -> None:
        """Store an update and say nothing."""
        exchange.read_body()
        sha256 = hashlib.sha256(_file_of(exchange.request)).hexdigest()
        with self._lock:
            self.stored[sha256] += 1

    def settle(self) -> None:
        """Wait until every request is dealt with."""
        self._server.settle()

    def _serve(self, exchange: Exchange) -> None:
        self._server.requests.clear()  # they hold whole bodies
        request = exchange.request
        if request.target == "/v1/leaf/authenticate":
            reply(200, {"data": {"tree_id": TREE, "branch_id": "branch-1"}})(exchange)
            return
        with self._lock:  # a fault counts how often it was asked
            fault = self.fault(request) if self.fault is not None else None
        (fault or self._usual)(exchange)

    def _usual(self, exchange: Exchange) -> None:
        target = exchange.request.target
        last = target.partition("?")[0].rpartition("/")[2]
        if target.endswith("/v1/file/upload"):
            self.lose_reply(exchange)
            reply(201, {"data": {"file_id": f"file-{len(self.stored)}"}})(exchange)
        elif target.startswith("/api/v1/run/"):  # of later clients
            reply(200, {"data": {"run_status": "start", "run_number": 1}})(exchange)
        elif target.startswith("/v1/file/download/"):
            url = f"{self.url}/files/{last}?signature=5347"
            reply(200, {"data": {"download_url": url}})(exchange)
        elif last in self.files:
            reply(200, self.files[last])(exchange)
        else:
            reply(404, {"error": "no such thing"})(exchange)


def _file_of(request: Request) -> bytes:
    """The last part of a multipart form."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    last = bytes(request.body).split(b"--" + boundary)[-2]
    return last.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
