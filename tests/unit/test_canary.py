"""Secrets and signed URLs are looked for in everything that is shown, logged, raised or kept."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import logging
import pickle
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import tenacity.nap
import trustme

from bktransport.client import Client
from bktransport.config import Credentials, as_credentials
from bktransport.errors import BkTransportError, OutcomeUnknownError
from bktransport.upload import UploadBody

from ..hostile_http import (
    Behaviour,
    HostileServer,
    chunked,
    drip,
    endless,
    lost_reply,
    raw,
    redirect,
    reply,
    reset,
    stall,
    told,
    truncated,
)
from .transport import (
    AGGREGATE,
    CREDENTIALS,
    PASSWORD,
    STORED,
    TOKEN,
    Recording,
    located,
    texts_of,
    write_update_file,
)

_PATH = "/bucket/canary-path/file.npy"
_QUERY = "X-Signature=canary-query"
_SIGNED = f"{_PATH}?{_QUERY}"


def _coded(text: str) -> set[str]:
    found = base64.b64encode(text.encode()).decode()
    return {found.rstrip("="), base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")}


_CANARIES = {
    TOKEN, PASSWORD, "canary-token", "canary-password", "canary-path", "canary-query",
    quote(TOKEN, safe=""), *_coded(f"leaf-1:{TOKEN}"), *_coded(f"analyser:{PASSWORD}"),
    *_coded(TOKEN), *_coded(PASSWORD),
}  # fmt: skip


def _assert_clean(text: str) -> None:
    found = [canary for canary in _CANARIES if canary in text]
    assert not found, text[:2000]


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """All that is logged, by anyone, at any level; it is looked at in the end."""
    monkeypatch.setattr(tenacity.nap, "time", Mock())
    root, handler = logging.getLogger(), Recording()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.texts
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    for text in handler.texts:
        _assert_clean(text)


@contextlib.contextmanager
def _client(server: HostileServer, folder: Path, **options: Any) -> Iterator[Client]:
    given: dict[str, Any] = {"state": folder / "state", "output": folder / "out", "proxies": {},
                             "notifications": False, "timeout": 10.0, "deadline": 20.0}  # fmt: skip
    with Client(CREDENTIALS, server.url, **{**given, **options}) as client:
        yield client


_TOPOLOGY = reply(200, {"data": {"tree_id": "tree-1", "branch_id": "branch-1"}})


def _echoes() -> dict[str, Behaviour]:
    """Replies that repeat what was sent, or what must not be shown, in every place."""
    text = f"{TOKEN} {PASSWORD} http://files{_SIGNED} {_SIGNED}"

    def all_of_it(request: Any) -> str:
        seen = [f"{name}: {value}" for name, value in request.headers.items()]
        return " ".join(
            [*seen, TOKEN, PASSWORD, quote(TOKEN, safe=""), f"http://files{_SIGNED}", _SIGNED]
        )

    def short(request: Any) -> str:
        return request.headers["authorization"]

    def echo(status: int, key: str, make: Any = all_of_it) -> Behaviour:
        return told(lambda request: (status, {key: make(request)}))

    noise = text.encode()
    return {
        **{f"{status} {key}": echo(status, key)
           for status in (400, 401, 404, 500, 503) for key in ("error", "message")},
        "401 header alone": echo(401, "error", short),
        "401 token alone": reply(401, {"error": TOKEN}),
        "401 target alone": reply(401, {"error": _SIGNED}),
        "401 URL alone": reply(401, {"error": f"http://files{_SIGNED}"}),
        "file_id": told(lambda request: (201, {"data": {"file_id": all_of_it(request)}})),
        "tree_id": told(lambda request: (200, {"data": {"tree_id": all_of_it(request)}})),
        "not JSON": reply(200, noise),
        "201 not JSON": reply(201, noise),
        "no HTTP": raw(noise),
        "status line": raw(b"HTTP/1.1 " + noise + b"\r\n\r\n"),
        "reason": raw(b"HTTP/1.1 404 " + noise + b"\r\n\r\n"),
        "headers": raw(b"HTTP/1.1 404 X\r\n" + noise + b"\r\n\r\n"),
        "bad headers": raw(b"HTTP/1.1 404 X\r\n " + noise + b"\r\nA" + noise + b"\x00\r\n\r\n"),
        "chunk": raw(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + noise),
        "length": raw(b"HTTP/1.1 200 X\r\nContent-Length: " + noise + b"\r\n\r\n"),
        "lengths": raw(b"HTTP/1.1 200 X\r\nContent-Length: 1," + noise + b"\r\n\r\n"),
        "encoding": reply(200, {}, Content_Encoding=text),
        "retry": reply(503, {}, Retry_After=text),
        "location": redirect(307, f"http://files{_SIGNED}&{TOKEN}"),
        "cut": truncated(200, noise),
        "reset": reset(0),
        "lost": lost_reply(),
        "endless": endless(200, noise),
    }  # fmt: skip


@pytest.mark.parametrize("name", _echoes())
def test_what_the_service_repeats_is_not_shown(tmp_path: Path, name: str) -> None:
    path = write_update_file(tmp_path)
    with HostileServer(_echoes()[name]) as server, _client(server, tmp_path) as client:
        with contextlib.suppress(BkTransportError):
            client.authenticate()
        calls = (
            client.authenticate,
            _after_authentication(server, client, lambda: client.file_upload(path), name),
            _after_authentication(server, client, lambda: client.file_download("id-1"), name),
            _after_authentication(
                server, client, lambda: client.send_performance_metrics("id-1", "{}", "test"), name
            ),
        )
        errors = [error for error in map(_error_of, calls) if error is not None]
        assert len(errors) >= 3
        for error in errors:
            for text in texts_of(error):
                _assert_clean(text)
        _assert_clean(repr(client.uploads()))
    _assert_kept_clean(tmp_path / "state")


def _error_of(call: Any) -> BkTransportError | None:
    try:
        call()
    except BkTransportError as exc:
        return exc
    return None


def _after_authentication(server: HostileServer, client: Client, call: Any, name: str) -> Any:
    def run() -> None:
        server.then(_TOPOLOGY)
        client.authenticate()
        server.then(_echoes()[name])
        call()

    return run


def _assert_kept_clean(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _assert_clean(path.read_bytes().decode("latin-1"))


_FILES: dict[str, Behaviour] = {
    "good": reply(200, AGGREGATE),
    "no aggregate": reply(200, f"http://files{_SIGNED}".encode()),
    "404": reply(404, _SIGNED.encode()),
    "503": reply(503),
    "307": redirect(307, f"http://127.0.0.1:1{_SIGNED}"),
    "cut": truncated(200, AGGREGATE[:-1]),
    "cut chunks": chunked(200, AGGREGATE, cut=9),
    "no HTTP": raw(_SIGNED.encode()),
    "bad headers": raw(b"HTTP/1.1 200 X\r\n " + _SIGNED.encode() + b"\r\nA\r\n\r\n"),
    "reset": reset(0),
    "compressed": reply(200, AGGREGATE, Content_Encoding="gzip"),
    "endless": endless(),
    "stall": stall(),
    "drip": drip(b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 100),
}


@pytest.mark.parametrize("name", _FILES)
def test_the_signed_url_is_not_shown(tmp_path: Path, name: str) -> None:
    with HostileServer(_FILES[name]) as files, HostileServer(_TOPOLOGY) as server:
        options = {"deadline": 0.7} if name in ("stall", "drip") else {}
        with _client(server, tmp_path, max_download_nbytes=1 << 20, **options) as client:
            client.authenticate(deadline=10)
            server.then(located(files.url + _SIGNED))
            try:
                client.file_download("id-1")
            except BkTransportError as exc:
                assert name != "good"
                for text in texts_of(exc):
                    _assert_clean(text)
        assert files.num_connections >= 1


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1{_SIGNED}",
        f"https://127.0.0.1:1{_SIGNED}",
        f"http://canary.invalid{_SIGNED}",
        f"http://u:canary-query@127.0.0.1:1{_SIGNED}",
        f"ftp://127.0.0.1:1{_SIGNED}",
        f"http://127.0.0.1:x{_SIGNED}",
        f"http://127.0.0.1:99999{_SIGNED}",
        f"http://[::1{_SIGNED}",
        f"http://a..b{_SIGNED}",
        f"http://127.0.0.1:1{_SIGNED} x",
        _SIGNED,
    ],
)
def test_a_signed_url_that_can_not_be_fetched_is_not_shown(tmp_path: Path, url: str) -> None:
    with HostileServer(_TOPOLOGY) as server, _client(server, tmp_path) as client:
        client.authenticate()
        server.then(located(url))
        with pytest.raises(BkTransportError) as caught:
            client.file_download("id-1")
        for text in texts_of(caught.value):
            _assert_clean(text)


def test_an_untrusted_certificate_shows_nothing(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with (
        HostileServer(reply(200, AGGREGATE), ssl_context=context) as files,
        HostileServer(_TOPOLOGY) as server,
        _client(server, tmp_path) as client,
    ):
        client.authenticate()
        server.then(located(files.url + _SIGNED))
        with pytest.raises(BkTransportError) as caught:
            client.file_download("id-1")
        for text in texts_of(caught.value):
            _assert_clean(text)


def test_successes_show_nothing_but_where_they_went(tmp_path: Path, log: list[str]) -> None:
    path = write_update_file(tmp_path)
    with HostileServer(reply(200, AGGREGATE)) as files, HostileServer(_TOPOLOGY) as server:
        with _client(server, tmp_path) as client:
            client.authenticate()
            server.then(STORED)
            client.file_upload(path)
            client.send_performance_metrics("id-1", {"loss": 0.5}, "test")
            server.then(located(files.url + _SIGNED))
            client.file_download("id-1")
            for shown in (client, client.session_token, client.uploads(), client.__dict__):
                _assert_clean(repr(shown))
            for value in vars(client).values():
                _assert_clean(f"{value!r} {getattr(value, '__dict__', '')!r}")
        _assert_kept_clean(tmp_path / "state")
        assert any(files.url in text and "HTTP 200" in text for text in log)


def test_secrets_are_not_pickled(tmp_path: Path) -> None:
    credentials = as_credentials(CREDENTIALS)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(credentials, protocol)
    for shown in (repr(credentials), str(credentials), credentials.model_dump_json(),
                  repr(credentials.model_dump())):  # fmt: skip
        _assert_clean(shown)
    _assert_clean(repr(Credentials.model_construct(**credentials.model_dump())))
    with HostileServer(_TOPOLOGY) as server, _client(server, tmp_path) as client:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="can't be"):
                copied(client)


def test_wrong_credentials_are_not_shown() -> None:
    for wrong in (
        {**CREDENTIALS, "leaf_id": TOKEN}, {**CREDENTIALS, "leaf_session_token": TOKEN + "\n"},
        {**CREDENTIALS, "port": TOKEN}, {**CREDENTIALS, "response_host": PASSWORD},
        {**CREDENTIALS, "leaf_session_token": [TOKEN]}, {"leaf_session_token": TOKEN},
        {**CREDENTIALS, "leaf_name": TOKEN + "\x00"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="credentials: ") as caught:
            as_credentials(wrong)
        for text in texts_of(caught.value):
            _assert_clean(text)


def test_an_error_survives_its_pickle() -> None:
    error = OutcomeUnknownError("words", "ab" * 32, 5, 9, 500)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is OutcomeUnknownError
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_a_body_shows_nothing() -> None:
    _assert_clean(repr(UploadBody({"data": json.dumps(TOKEN)}, Mock(nbytes=1), None)))
