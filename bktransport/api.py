"""The HTTP service, one exchange at a time, by requests.

Every exchange has a connection of its own (a kept one may be dead, and then nobody can tell whether
a request was read), follows no redirect, takes no credentials from netrc, and bounds its time and
the size of the reply.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr
from requests.auth import HTTPBasicAuth
from requests.utils import get_environ_proxies, select_proxy

from bktransport.addresses import PUBLIC, Address, named_address, nearness
from bktransport.attempt import Attempt, AttemptAdapter, Deadline, LastingError
from bktransport.errors import (
    AuthenticationError,
    InvalidMessageError,
    NoResponseError,
    ResponseError,
)
from bktransport.messages import read_error
from bktransport.redaction import Redactor, muted_urllib3
from bktransport.text import origin, quoted

__all__ = ["Connector", "Login", "Progress", "Reply", "refusal"]

_LOG = logging.getLogger("bktransport")

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with bytes done, and bytes in all or None; what it raises ends the transfer."""

_MAX_REPLY_NBYTES = 1 << 20
_PIECE_NBYTES = 1 << 18
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Login(NamedTuple):
    """User and password of Basic authentication."""

    user: str
    password: SecretStr


class Reply(NamedTuple):
    """A whole reply of the service.

    Attributes:
        status: HTTP status code.
        headers: of the reply.
        body: at most 1 MiB.
        peer: the address it came from; None through a proxy.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    peer: Address | None


class Connector:
    """How to reach HTTP services: timeouts, proxies, certificates. Holds no connection.

    Attributes:
        timeout: seconds that one step may take: connecting, sending a piece, waiting for one.
        proxies: URL of the proxy by scheme; None takes those of the environment, {} takes none.
        verify: whether certificates are checked, or the path of a private CA's; True takes the CAs
            that `REQUESTS_CA_BUNDLE` names, if it is set.
        redactor: for what the service says.
    """

    def __init__(
        self,
        *,
        timeout: float,
        proxies: Mapping[str, str] | None,
        verify: bool | str,
        redactor: Redactor,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout!r}: give seconds, more than 0")
        if any(urlsplit(url).scheme not in ("http", "https") for url in (proxies or {}).values()):
            raise ValueError("proxies: only http:// and https:// proxies are supported")
        if isinstance(verify, str):
            _check_ca(verify)
        self.timeout = timeout
        self.proxies = proxies
        self.verify = verify
        self.redactor = redactor

    def proxy_of(self, url: str) -> str | None:
        """The proxy that a URL is fetched through, if any."""
        chosen = get_environ_proxies(url) if self.proxies is None else dict(self.proxies)
        return select_proxy(url, chosen)

    def _trusted(self) -> bool | str:
        """As requests has it: the environment may name the CAs, where the caller named none."""
        if self.verify is not True:
            return self.verify
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True

    def exchange(
        self,
        method: str,
        url: str,
        login: Login,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes | memoryview] | None = None,
    ) -> Reply:
        """One request of the service and its whole reply, whatever its status.

        Raises:
            NoResponseError: no whole reply came; `DeadlineError` where the time was over.
            InvalidMessageError: the reply is larger than any that the protocol knows.
        """
        auth = HTTPBasicAuth(login.user.encode(), login.password.get_secret_value().encode())
        attempt = Attempt(origin(url), deadline, self.timeout)
        with attempt, self._response(
            attempt, method, url, auth=auth, data=body, headers={**_HEADERS, **(headers or {})}
        ) as response:  # fmt: skip
            try:
                content = _whole(attempt, response)
            except (NoResponseError, InvalidMessageError):
                # A refusal stands, even where what it says can't be read.
                if response.status_code < 300:
                    raise
                content = b""
            peer = None if self.proxy_of(url) else attempt.peer
            return Reply(response.status_code, response.headers, content, peer)

    @contextlib.contextmanager
    def fetch(self, url: str, attempt: Attempt) -> Iterator[requests.Response]:
        """The reply to a GET without credentials, its body not yet read.

        Raises:
            NoResponseError: as for `exchange`.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        with attempt, self._response(attempt, "GET", url, headers=headers) as response:
            yield response

    @contextlib.contextmanager
    def _response(
        self, attempt: Attempt, method: str, url: str, **options: Any
    ) -> Iterator[requests.Response]:
        proxy = self.proxy_of(url)
        if proxy and "://" in proxy and urlsplit(proxy).scheme not in ("http", "https"):
            raise LastingError(f"{origin(url)}: only http:// and https:// proxies are supported")
        trusted = self._trusted()
        if isinstance(trusted, str) and not os.path.exists(trusted):
            raise LastingError(f"{origin(url)}: no file {quoted(trusted)} with CA certificates")
        with muted_urllib3(), _Session() as session:
            session.trust_env = False  # no netrc; what else it means is done here
            session.headers["User-Agent"] = "bktransport"
            adapter = AttemptAdapter(attempt)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            response = attempt.run(
                lambda: session.request(
                    method,
                    url,
                    stream=True,
                    allow_redirects=False,
                    timeout=(attempt.step(), attempt.step()),
                    proxies={urlsplit(url).scheme: proxy} if proxy else None,
                    verify=trusted,
                    **options,
                )
            )
            _LOG.debug("%s %s: HTTP %d", method, origin(url), response.status_code)
            with response:
                attempt.check()
                yield response


class _Session(requests.Session):
    """Follows no redirect, nor reads the whole of its body as requests does all the same."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _check_ca(path: str) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "verify: " + os.strerror(errno.ENOENT), path)
    if os.path.isdir(path):
        return
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"verify: no CA certificate in {quoted(path)}") from None


def _whole(attempt: Attempt, response: requests.Response) -> bytes:
    content = bytearray()
    for piece in pieces(attempt, response):
        content += piece
        if len(content) > _MAX_REPLY_NBYTES:
            raise InvalidMessageError(f"{origin(response.url)}: the reply never ends")
    return bytes(content)


def pieces(attempt: Attempt, response: requests.Response) -> Iterator[bytes]:
    """The body as it comes, at most 256 KiB at a time.

    Raises:
        NoResponseError: it ended early, or the time was over.
        InvalidMessageError: it is compressed although that was not asked for: a small reply could
            become a huge file.
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise InvalidMessageError("the reply is compressed, which was not asked for")
    received = 0
    while piece := attempt.run(lambda: response.raw.read1(_PIECE_NBYTES, decode_content=False)):
        received += len(piece)
        yield piece
    attempt.check()
    expected = response.headers.get("Content-Length", "")
    if expected.isdecimal() and received < int(expected) and response.raw.length_remaining != 0:
        raise NoResponseError(f"the reply ended after {received} of {int(expected)} bytes")


def refusal(reply: Reply, what: str, redactor: Redactor) -> ResponseError:
    """The typed error for a reply that is not the one hoped for."""
    said = read_error(reply.body)
    text = f"{what} refused by the service: HTTP {reply.status}"
    if 300 <= reply.status < 400:
        text += ", a redirect, which is not followed"
    if said:
        text += f": {redactor.shown(said)}"
    if reply.status in (401, 403):
        return AuthenticationError(text, reply.status)
    pause = retry_after(reply.headers)
    if pause is not None:
        text += f"; try again in {pause:.0f} s"
    return ResponseError(text, reply.status, pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, of a Retry-After header in either form; None where there is none."""
    given = headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdecimal():
        return float(given)
    try:
        when = parsedate_to_datetime(given)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def near(reply: Reply, url: str) -> int:
    """How far inside the service lies that gave this reply; see `nearness`."""
    address = reply.peer or named_address(urlsplit(url).hostname or "")
    return PUBLIC if address is None else nearness(address)
