"""One exchange with the service: its bounds, its proxies, its certificates."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from bktransport.api import Connector, Reply, refusal, retry_after
from bktransport.attempt import LastingError, NotSentError
from bktransport.errors import DeadlineError, InvalidMessageError, NoResponseError, ResponseError

from ..hostile_http import (
    Exchange,
    HostileServer,
    bomb,
    chunked,
    endless,
    redirect,
    reply,
    reset,
    stall,
    truncated,
)
from .transport import LOGIN, TOKEN, connector, deadline

_GOOD = reply(200, b"good", X_Name="value")


def _get(url: str, *, seconds: float = 20.0, **options: Any) -> Reply:
    return connector(**options).exchange("GET", url + "/x", LOGIN, deadline(seconds))


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(_GOOD) as server:
        yield server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# --- replies -----------------------------------------------------------------------------------


def test_a_whole_reply(server: HostileServer) -> None:
    got = _get(server.url)
    assert (got.status, got.body, got.headers["x-name"]) == (200, b"good", "value")
    assert str(got.peer) == "127.0.0.1"
    (request,) = server.requests
    assert request.headers["user-agent"] == "bktransport"
    assert "cookie" not in request.headers


def test_any_status_is_a_reply(server: HostileServer) -> None:
    for status in (201, 204, 302, 404, 500, 599):
        server.then(reply(status))
        assert _get(server.url).status == status


def test_nothing_is_remembered(server: HostileServer) -> None:
    server.then(reply(200, Set_Cookie="a=b"), redirect(307, "/y"), _GOOD)
    shared = connector()
    for _ in range(3):
        shared.exchange("GET", server.url, LOGIN, deadline())
    assert all("cookie" not in request.headers for request in server.settle())
    assert server.num_connections == 3


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (truncated(200, b"cut"), NoResponseError),
        (chunked(200, b"cut", cut=5), NoResponseError),
        (reset(0), NoResponseError),
        (bomb(200, 100 << 20), InvalidMessageError),
        (endless(), InvalidMessageError),
        (endless(chunks=True), InvalidMessageError),
        (reply(200, b"x" * ((1 << 20) + 1)), InvalidMessageError),
    ],
)
def test_no_whole_reply(server: HostileServer, behaviour: Any, error: type[Exception]) -> None:
    server.then(behaviour)
    with pytest.raises(error) as caught:
        _get(server.url)
    assert not isinstance(caught.value, LastingError | NotSentError | DeadlineError)
    assert "\n" not in str(caught.value)


def test_netrc_is_not_read(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    _get(server.url)
    (request,) = server.requests
    assert request.headers["authorization"].startswith("Basic bGVhZi0x")  # leaf-1


@pytest.mark.parametrize(
    "host", ["name.invalid", "a..b", "x" * 64 + ".example", "xn--a", "\N{SNOWMAN}"]
)
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises((LastingError, NotSentError), match="the host name is not known"):
        _get(f"http://{host}")


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: end.wait(60))
    try:
        with pytest.raises(DeadlineError):
            _get("http://slow.example", seconds=0.3)
        with pytest.raises(NotSentError, match=r"no answer within 0\.2 s"):
            _get("http://slow.example", timeout=0.2)
    finally:
        end.set()


def test_a_host_that_takes_no_connection() -> None:
    """Its queue is full, so that no handshake of TCP is answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(NoResponseError):
            _get(url, timeout=0.3)
        with pytest.raises(DeadlineError):
            _get(url, seconds=0.3)


def test_infinite_times(server: HostileServer) -> None:
    assert _get(server.url, seconds=float("inf"), timeout=float("inf")).body == b"good"
    assert _get(server.url, seconds=1e300).body == b"good"


# --- Retry-After -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7", 7.0), (" 0 ", 0.0), ("0007", 7.0), ("9" * 400, float("inf")),
        ("-5", None), ("7.5", None), ("soon", None), ("", None), ("\u0663", None), ("+7", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Fri, 31 Dec 1999 23:59:59 +9999", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None), ("Fri, 31 Foo", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0), ("1e9", None), ("\xb2", None),
    ],
)  # fmt: skip
def test_retry_after(given: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": given}) == seconds


def test_retry_after_as_a_date() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert retry_after({"Retry-After": format_datetime(when, usegmt=True)}) == pytest.approx(
        30, abs=5
    )
    assert retry_after({}) is None


def test_a_refusal_is_one_line_without_secrets() -> None:
    said = {"error": f"bad\ntoken {TOKEN} at http://files/x?sig=1 " + "x" * 500}
    error = refusal(Reply(418, {}, json.dumps(said).encode(), None), "it was", connector().redactor)
    assert type(error) is ResponseError
    assert TOKEN not in str(error)
    assert "sig" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 200


# --- proxies -----------------------------------------------------------------------------------


def _forward(exchange: Exchange) -> None:
    """A plain proxy that has every page itself."""
    exchange.read_body()
    _GOOD(exchange)


def _tunnel(url: str) -> Any:
    """CONNECT to one place, whatever is asked for."""
    parts = urlsplit(url)

    def behave(exchange: Exchange) -> None:
        near = exchange._connection
        with socket.create_connection((parts.hostname, parts.port), 20) as far:
            exchange.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            other = {near: far, far: near}
            with contextlib.suppress(OSError):
                while True:
                    for ready in select.select(list(other), [], [], 20)[0]:
                        if not (data := ready.recv(65536)):
                            return
                        other[ready].sendall(data)

    return behave


def test_proxies_of_the_environment(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer(_forward) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@{proxy.host}:{proxy.port}")
        got = _get("http://service.invalid", proxies=None)
        assert (got.body, got.peer) == (b"good", None)
        (request,) = proxy.settle()
        assert request.target == "http://service.invalid/x"
        assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        # {} takes none, and no_proxy spares hosts.
        assert _get(server.url, proxies={}).peer is not None
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert _get(server.url, proxies=None).peer is not None
        assert proxy.num_connections == 1


def test_a_tunnel_keeps_proxy_credentials_from_the_service() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("service.example").configure_cert(context)
    with HostileServer(_GOOD, ssl_context=context) as server, authority.cert_pem.tempfile() as ca:
        with HostileServer(_tunnel(server.url)) as proxy:
            given = {"https": f"http://user:pass@{proxy.host}:{proxy.port}"}
            got = _get("https://service.example", proxies=given, verify=ca)
            assert (got.body, got.peer) == (b"good", None)
        (asked,) = proxy.requests
        assert (asked.method, asked.target) == ("CONNECT", "service.example:443")
        assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        assert "authorization" not in asked.headers
        (got_there,) = server.settle()
        assert "proxy-authorization" not in got_there.headers
        assert "authorization" in got_there.headers


@pytest.mark.parametrize("status", [407, 403, 502])
def test_a_proxy_that_refuses(status: int) -> None:
    with HostileServer(reply(status, b"no")) as proxy:
        with pytest.raises(NoResponseError) as caught:
            _get(
                "https://service.example",
                proxies={"https": f"http://u:s3cret@127.0.0.1:{proxy.port}"},
            )
        assert "the proxy gave no connection" in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_proxy_that_stalls() -> None:
    with HostileServer(stall()) as proxy, pytest.raises(DeadlineError):
        _get("https://service.example", proxies={"https": proxy.url}, seconds=0.5)


def test_other_proxies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("socks5://127.0.0.1:1", "127.0.0.1:1", "ftp://x"):
        with pytest.raises(ValueError, match="only http:// and https:// proxies"):
            connector(proxies={"http": url})
    monkeypatch.setenv("http_proxy", "socks5://user:s3cret@127.0.0.1:1")
    with pytest.raises(LastingError, match="only http:// and https:// proxies") as caught:
        _get("http://service.invalid", proxies=None)
    assert "s3cret" not in str(caught.value)


# --- certificates --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def private(authority: trustme.CA) -> Iterator[HostileServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HostileServer(_GOOD, ssl_context=context) as server:
        yield server


def test_a_private_ca_is_trusted_where_it_is_named(
    private: HostileServer, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with authority.cert_pem.tempfile() as ca:
        assert _get(private.url, verify=ca).body == b"good"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca)
        assert _get(private.url).body == b"good"
        # What the caller names goes before what the environment says.
        with trustme.CA().cert_pem.tempfile() as other, pytest.raises(LastingError):
            _get(private.url, verify=other)


def test_an_unknown_certificate_is_one_clear_line(private: HostileServer) -> None:
    with pytest.raises(LastingError) as caught:
        _get(private.url)
    assert str(caught.value).startswith(f"{private.url}: the certificate is not trusted (")
    assert str(caught.value).endswith("a private CA goes into verify=")
    assert private.requests == []


def test_a_certificate_for_another_host(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    with (
        HostileServer(_GOOD, ssl_context=context) as server,
        authority.cert_pem.tempfile() as ca,
        pytest.raises(LastingError, match="the certificate is not trusted"),
    ):
        _get(server.url, verify=ca)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_given_up(private: HostileServer) -> None:
    assert _get(private.url, verify=False).body == b"good"


def test_tls_where_none_is_spoken(server: HostileServer) -> None:
    with pytest.raises(NoResponseError, match="no TLS connection could be made"):
        _get(server.url.replace("http:", "https:"))


def test_a_silent_host_at_the_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeadlineError):
        _get(f"https://127.0.0.1:{silent.getsockname()[1]}", seconds=0.4)


def test_a_ca_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        connector(verify=str(tmp_path / "none.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ValueError, match="no CA certificate in"):
        connector(verify=str(empty))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(LastingError, match="CA certificates"):
        _get("https://127.0.0.1:1")


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        connector(timeout=timeout)


def test_a_connector_shows_nothing() -> None:
    shown: Connector = connector(proxies={"http": "http://u:s3cret@127.0.0.1:1"})
    assert "s3cret" not in repr(shown)
    assert TOKEN not in repr(shown.redactor)
