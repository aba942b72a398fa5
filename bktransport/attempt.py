"""One attempt at an HTTP exchange: its deadline, its connection, and what went wrong with it.

requests bounds each step, but not their sum: a server that sends a byte now and then holds a
client for ever, in the headers as in the body. So a timer shuts the connection when the time is
over. The addresses are looked at here too, just before each is connected to.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from bktransport.addresses import Address, parse_address
from bktransport.errors import DeadlineError, InvalidMessageError, NoResponseError

__all__ = [
    "Attempt",
    "AttemptAdapter",
    "Deadline",
    "LastingError",
    "NotSentError",
    "leads_inside",
]

_T = TypeVar("_T")
_MOST_CAUSES = 32
_LONGEST_STEP = 1e6
"""Seconds; sockets know no infinite ones."""


class NotSentError(NoResponseError):
    """No byte of a request left, so a repeat is harmless."""


class LastingError(NoResponseError):
    """A repeat would fail as well."""


class Deadline:
    """A point in time for a whole call, with its retries."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"deadline is {seconds!r}: give seconds, more than 0")
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left, 0 when it is over."""
        return max(0.0, self._end - time.monotonic())


class Attempt:
    """Use it in a `with` statement, around everything that touches the connection.

    Attributes:
        peer: the address that was connected to, a proxy's where there is one.
        refused: whether the host has addresses, but none that is allowed.
    """

    def __init__(
        self,
        where: str,
        deadline: Deadline,
        timeout: float,
        allowed: Callable[[Address], bool] | None = None,
    ) -> None:
        self.peer: Address | None = None
        self.refused = False
        self._where = where
        self._deadline = deadline
        self._timeout = timeout
        self._allowed = allowed
        self._guards: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Attempt:
        left = self._deadline.left()
        if not left:
            raise self._too_late()
        if left < threading.TIMEOUT_MAX:
            self._timer = threading.Timer(left, self._shut)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        for guard in self._guards:
            guard.close()

    def _shut(self) -> None:
        with self._lock:
            self._over = True
            for guard in self._guards:
                with contextlib.suppress(OSError):
                    guard.shutdown(socket.SHUT_RDWR)

    def _watch(self, connection: socket.socket) -> None:
        """A duplicate reaches the connection even when TLS has taken the original over."""
        with self._lock:
            self._guards.append(connection.dup())
            if self._over:
                raise TimeoutError("deadline")

    def step(self) -> float:
        """Seconds for the next step."""
        return max(0.001, min(self._timeout, self._deadline.left(), _LONGEST_STEP))

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address that is allowed and answers."""
        failure: OSError | None = None
        refused = False
        for family, kind, protocol, _, where in self._look_up(host, port):
            address = parse_address(str(where[0]))
            if address is None or (self._allowed is not None and not self._allowed(address)):
                refused = True
                continue
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(self.step())
                connection.connect(where)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._watch(connection)
            except OSError as exc:
                failure = exc
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            self.peer = address
            return connection
        self.refused = refused and failure is None
        raise failure or OSError("no address")

    def _look_up(self, host: str, port: int) -> list[Any]:
        """Addresses of a host; the system's look-up knows no timeout, so it may be left behind."""
        found: list[Any] = []

        def look_up() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as exc:
                found.append(exc)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(self.step())
        if not found:
            raise TimeoutError("no answer from the name server")
        if isinstance(found[0], Exception):
            raise found[0]
        return list(found[0])

    def run(self, action: Callable[[], _T]) -> _T:
        """Run something that touches the connection.

        Raises:
            DeadlineError: the time is over.
            InvalidMessageError: the host has only addresses that are not allowed.
            NoResponseError: the network failed, `NotSentError` where no connection came about and
                `LastingError` where none will; the original exception is left out
                on purpose, for it quotes URLs.
        """
        try:
            return action()
        except (
            requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException,
            OSError, ValueError,
        ) as exc:  # fmt: skip
            words = _in_words(exc, self._timeout)
            kind = LastingError if _is_lasting(exc) else NoResponseError
        if self.refused:
            raise leads_inside(self._where)
        if not self._deadline.left():
            raise self._too_late()
        self.check()
        kind = NotSentError if self.peer is None and kind is not LastingError else kind
        raise kind(f"{self._where}: {words}")

    def check(self) -> None:
        """Look whether the connection was shut: that looks like a body or headers that have ended.

        Raises:
            DeadlineError: it was, since the time is over.
        """
        if self._over:
            raise self._too_late()

    def _too_late(self) -> DeadlineError:
        return DeadlineError(f"{self._where}: not done within {self._deadline.seconds:g} s")


def leads_inside(where: str) -> InvalidMessageError:
    """The error for a download URL that is not connected to."""
    return InvalidMessageError(
        f"the download URL leads inside: {where} has a private or local address, which the service "
        "has not"
    )


def _causes(exc: BaseException) -> list[BaseException]:
    """An exception and what it was raised from or wraps."""
    found: list[BaseException] = [exc]
    for one in found:
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        new = (item for item in inner if isinstance(item, BaseException) and item not in found)
        found += new
        if len(found) > _MOST_CAUSES:
            break
    return found


_HOPELESS = (
    ssl.SSLCertVerificationError, UnicodeError, requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationParseError,
)  # fmt: skip


def _is_lasting(exc: BaseException) -> bool:
    return any(isinstance(cause, _HOPELESS) for cause in _causes(exc))


def _in_words(exc: BaseException, timeout: float) -> str:
    """What went wrong, without any URL."""
    causes = _causes(exc)

    def is_one(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if (found := is_one(ssl.SSLCertVerificationError)) is not None:
        said = getattr(found, "verify_message", "") or "verification failed"
        return f"the certificate is not trusted ({said}); a private CA goes into verify="
    if is_one(ssl.SSLError) is not None:
        return "no TLS connection could be made; does that port speak TLS (https)?"
    if is_one(socket.gaierror, *_HOPELESS[1:]) is not None:
        return "the host name is not known"
    if is_one(TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError) is not None:
        return f"no answer within {timeout:g} s"
    named = (cause for cause in causes if isinstance(cause, OSError) and cause.errno)
    if (error := next(named, None)) is not None:
        return os.strerror(error.errno or 0)
    if is_one(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError) is not None:
        return "the proxy gave no connection"
    return "the connection ended before a whole reply, or the reply is no HTTP"


class AttemptAdapter(HTTPAdapter):
    """Connections of requests, made by an `Attempt`."""

    def __init__(self, attempt: Attempt) -> None:
        self._classes = _pool_classes(attempt)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *given: Any, **options: Any) -> None:
        super().init_poolmanager(*given, **options)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._classes
        return manager


def _pool_classes(attempt: Attempt) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3 makes its own connections; only their sockets come from the attempt."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return attempt.connect(self._dns_host, self.port)

    class Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return attempt.connect(self._dns_host, self.port)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
