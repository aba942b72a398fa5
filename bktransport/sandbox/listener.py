"""werkzeug's threaded server, made fit to be closed at once and to keep secrets out of logs."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from bktransport.text import quoted

__all__ = ["Listener"]

_log = logging.getLogger("bktransport.sandbox")

_MOST_CONNECTIONS = 256


class Listener:
    """Serves a WSGI application from a thread of its own, each connection from another.

    Args:
        address: host and port; port 0 picks a free one.
        ssl_context: for HTTPS.

    Raises:
        OSError: the address is in use, or none of this machine's.
    """

    def __init__(self, address: tuple[str, int], ssl_context: ssl.SSLContext | None) -> None:
        # Bound here: where that fails, werkzeug prints and ends the process.
        with socket.create_server(address, backlog=128) as listening:
            self._server = _Server(listening, ssl_context)
        self.port: int = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="sandbox-http", daemon=True
        )

    def start(self, application: Callable[..., Any]) -> None:
        """Begin to answer; connections were accepted by the system before."""
        self._server.app = application
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Cut all connections; wait at most so many seconds for the threads behind them."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.cut(timeout)


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds that a client may be silent

    def run_wsgi(self) -> None:
        try:
            urlsplit(self.path)
        except ValueError:
            self.send_error(400)
            return
        super().run_wsgi()

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        # By us too, where a reply is to be lost; else the next request would be waited for.
        self.close_connection = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # The path alone: queries of signed URLs are secrets.
        path = getattr(self, "path", "").partition("?")[0]
        _log.info("%s %s %s", quoted(self.command)[1:-1], quoted(path)[1:-1], int(code))

    def log_error(self, format: str, *args: Any) -> None:
        # Without the arguments, which hold what the client sent.
        _log.info("a malformed request from %s", self.client_address[0])

    def log(self, type: str, message: str, *args: Any) -> None:
        self.log_error(message)


class _Server(ThreadedWSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, ssl_context: ssl.SSLContext | None) -> None:
        self._open: dict[threading.Thread, socket.socket] = {}
        self._guard = threading.Lock()
        host, port = listening.getsockname()[:2]
        super().__init__(host, port, _nothing, _Handler, fd=listening.fileno())
        # Set afterwards: werkzeug would shake hands in the thread that accepts everybody.
        self.ssl_context = ssl_context

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._guard:
            return len(self._open) < _MOST_CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._guard:
            self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        me = threading.current_thread()
        try:
            if self.ssl_context is not None:
                request.settimeout(_Handler.timeout)
                request = self.ssl_context.wrap_socket(request, server_side=True)
                with self._guard:
                    self._open[me] = request
            super().process_request_thread(request, client_address)
        except OSError:
            _log.info("no TLS handshake with %s", client_address[0])
        finally:
            request.close()
            with self._guard:
                del self._open[me]

    def handle_error(self, request: Any, client_address: Any) -> None:
        kind = sys.exc_info()[0]
        _log.warning("a connection of %s ended by %s", client_address[0], kind and kind.__name__)

    def log(self, type: str, message: str, *args: Any) -> None:
        # Tracebacks of the server's own; the application logs its failures itself.
        _log.error("the HTTP server failed on a request")

    def cut(self, timeout: float) -> None:
        """End all connections and wait for their threads."""
        with self._guard:
            still_open = dict(self._open)
        for connection in still_open.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + timeout
        for thread in still_open:
            thread.join(max(0.0, until - time.monotonic()))


def _nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Length", "0")])
    return []
