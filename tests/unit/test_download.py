"""An aggregate comes in: from where it may come, what is kept, and what is left where it fails."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tenacity.nap

from bkformat import UpdateSchema, infer_schema, load_file, validate_bytes
from bktransport.download import Downloader, DownloadRules
from bktransport.errors import (
    AuthenticationError,
    BkTransportError,
    DeadlineError,
    InvalidAggregateError,
    InvalidMessageError,
    NoResponseError,
    ResponseError,
)

from ..hostile_http import (
    Behaviour,
    HostileServer,
    bomb,
    chunked,
    drip,
    early,
    endless,
    raw,
    redirect,
    reply,
    stall,
    told,
    truncated,
)
from .files import aggregate, zeros
from .transport import AGGREGATE, LOGIN, UPDATE, connector, deadline, located

_FILE = "/signed/file.npy?X-Signature=s3cret"
_LIMIT = 1 << 20
_OLD = b"the old file"


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are not slept through."""
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", Mock(sleep=pauses.append))
    return pauses


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """There is a file already."""
    path = tmp_path / "out" / "aggregate.npy"
    path.parent.mkdir()
    path.write_bytes(_OLD)
    return path


def _download(
    server: HostileServer,
    path: Path,
    *,
    seconds: float = 40.0,
    schema: UpdateSchema | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    file_id: str = "file-1",
    rules: DownloadRules | None = None,
    **options: Any,
) -> None:
    rules = rules or DownloadRules(_LIMIT)
    downloader = Downloader(connector(**options), server.url, LOGIN, rules, schema)
    downloader.download(file_id, path, deadline(seconds), progress)


def _refused(server: HostileServer, path: Path, error: type[Exception], **options: Any) -> Any:
    """The error of a download that leaves the old file and nothing else."""
    with pytest.raises(error) as caught:
        _download(server, path, **options)
    assert path.read_bytes() == _OLD
    assert os.listdir(path.parent) == [path.name]
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def files() -> Iterator[HostileServer]:
    with HostileServer(reply(200, AGGREGATE)) as server:
        yield server


@pytest.fixture
def service(files: HostileServer) -> Iterator[HostileServer]:
    with HostileServer(located(files.url + _FILE)) as server:
        yield server


# --- what comes ------------------------------------------------------------------------------


def test_a_good_file_takes_the_place_of_the_old(
    service: HostileServer, files: HostileServer, target: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    _download(service, target, progress=lambda *step: told.append(step))
    assert target.read_bytes() == AGGREGATE
    assert os.listdir(target.parent) == [target.name]
    assert load_file(target, kind="aggregate").parameters[0].shape == (3000,)
    assert told[-1] == (len(AGGREGATE), len(AGGREGATE))
    (asked,) = service.settle()
    assert (asked.method, asked.target) == ("GET", "/v1/file/download/file-1")
    assert "authorization" in asked.headers
    (fetched,) = files.settle()
    assert fetched.target == _FILE
    assert fetched.headers["accept-encoding"] == "identity"


def test_the_host_of_files_gets_no_credentials(
    service: HostileServer,
    files: HostileServer,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    _download(service, target)
    (fetched,) = files.settle()
    assert not {"authorization", "cookie", "proxy-authorization", "referer"} & set(fetched.headers)
    assert "from-netrc" not in repr(service.requests)


@pytest.mark.parametrize(
    "behaviour",
    [
        chunked(200, AGGREGATE),
        raw(b"HTTP/1.0 200 X\r\n\r\n" + AGGREGATE),
        raw(b"HTTP/1.1 200 X\r\nContent-Encoding: identity\r\n\r\n" + AGGREGATE),
        reply(200, UPDATE),  # an aggregate with a count
    ],
)
def test_a_file_of_unknown_length_is_a_file(
    service: HostileServer, files: HostileServer, target: Path, behaviour: Behaviour
) -> None:
    files.then(behaviour)
    _download(service, target)
    assert target.read_bytes() in (AGGREGATE, UPDATE)


_HTML = b"<html>404 not found</html>"
_CONTENT: dict[str, tuple[Behaviour, type[Exception]]] = {
    "a page": (reply(200, _HTML), InvalidAggregateError),
    "nothing": (reply(200), InvalidAggregateError),
    "a pickle": (reply(200, b"cos\nsystem\n(S'true'\ntR."), InvalidAggregateError),
    "a cut file of no length": (
        raw(b"HTTP/1.1 200 X\r\n\r\n" + AGGREGATE[:-1]),
        InvalidAggregateError,
    ),
    "a cut file": (truncated(200, AGGREGATE[:-1]), NoResponseError),
    "a cut file in chunks": (chunked(200, AGGREGATE, cut=100), NoResponseError),
    "no last chunk": (chunked(200, AGGREGATE, cut=5), NoResponseError),
    "404 with a good body": (reply(404, AGGREGATE), ResponseError),
    "204 with a good body": (reply(204, AGGREGATE), ResponseError),
    "206": (reply(206, AGGREGATE), ResponseError),
    "307": (redirect(307, "http://127.0.0.1:1/x?s3cret"), ResponseError),
    "302": (redirect(302, "http://127.0.0.1:1/x?s3cret"), ResponseError),
    "gzip": (bomb(200, 1 << 30), InvalidMessageError),
    "endless": (endless(), ResponseError),
    "endless in chunks": (endless(chunks=True), ResponseError),
    "too large": (reply(200, bytes(_LIMIT + 1)), ResponseError),
    "said to be too large": (
        raw(b"HTTP/1.1 200 X\r\nContent-Length: 999999999999\r\n\r\n"),
        ResponseError,
    ),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9\r\n"), NoResponseError),
    "headers that never end": (raw(b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 5000), NoResponseError),
    "503": (reply(503), ResponseError),
}


@pytest.mark.parametrize("name", _CONTENT)
def test_a_bad_file_is_not_kept(
    service: HostileServer, files: HostileServer, target: Path, name: str
) -> None:
    behaviour, error = _CONTENT[name]
    files.then(behaviour)
    found = _refused(service, target, error)
    if isinstance(found, InvalidAggregateError):
        assert found.report is not None
        assert not found.report.valid


def test_a_file_of_another_model_is_not_kept(
    service: HostileServer, files: HostileServer, target: Path
) -> None:
    with validate_bytes(AGGREGATE, kind="aggregate") as good:
        schema = infer_schema(good.layout)
    _download(service, target, schema=schema)
    assert target.read_bytes() == AGGREGATE
    target.write_bytes(_OLD)
    files.then(reply(200, aggregate(*zeros((3, 4)))))
    assert _refused(service, target, InvalidAggregateError, schema=schema).report.findings
    files.then(reply(200, aggregate(np.array([np.nan], "f4"))))
    _refused(service, target, InvalidAggregateError)


def test_a_failed_file_is_fetched_again(
    service: HostileServer, files: HostileServer, target: Path, slept: list[float]
) -> None:
    files.then(truncated(200, AGGREGATE[:-9]), reply(503, Retry_After="3"), reply(200, AGGREGATE))
    _download(service, target)
    assert target.read_bytes() == AGGREGATE
    assert slept[1] == 3.0
    # A signed URL expires: each attempt asks for a new one.
    assert len(service.settle()) == len(files.settle()) == 3


# --- what the service says -------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404, 410, 307, 204, 201])
def test_a_refusal_of_the_service(files: HostileServer, target: Path, status: int) -> None:
    body = {"data": {"download_url": files.url + _FILE}, "error": "no"}
    with HostileServer(reply(status, body)) as server:
        error = _refused(server, target, ResponseError)
        assert len(server.settle()) == 1
    assert error.status_code == status
    assert isinstance(error, AuthenticationError) == (status == 401)
    assert files.num_connections == 0


@pytest.mark.parametrize(
    "file_id", ["../../x", "", ".", "..", "a/b", "a b", "x\n", "x" * 129, 7, None]
)
def test_an_id_is_a_name(service: HostileServer, target: Path, file_id: Any) -> None:
    _refused(service, target, ValueError, file_id=file_id)
    assert service.num_connections == 0


_NOWHERE: dict[str, Any] = {
    "none": {"data": {}},
    "a number": {"data": {"download_url": 7}},
    "empty": {"data": {"download_url": ""}},
    **{
        url: {"data": {"download_url": url}}
        for url in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "gopher://127.0.0.1/x",
            "data:text/plain,x",
            "/relative?s3cret",
            "http:///x",
            "http://",
            "http://user@127.0.0.1/x",
            "http://user:s3cret@127.0.0.1/x",
            "http://@127.0.0.1/",
            "http://127.0.0.1:port/x?s3cret",
            "http://127.0.0.1:99999/x?s3cret",
            "http://[::1/x?s3cret",
            "http://127.0.0.1\\@evil.example/x",
            "http://127.0.0.1/x\r\nHost: evil",
            "http://127.0.0.1/\x00",
            " http://127.0.0.1/",
            "http://127.0.0.1/ ",
            "http://127.0.0.1%2f@evil/",
            "http://127.0.0.1%00.evil.example/",
            "http://ex\N{LATIN SMALL LETTER A WITH DIAERESIS}mple.org/",
            "http://[fe80::1%25eth0]/",
            "http://a;b/",
            "http://a,b/",
        )
    },
}


@pytest.mark.parametrize("name", _NOWHERE)
def test_a_url_that_is_not_fetched(files: HostileServer, target: Path, name: str) -> None:
    with HostileServer(reply(200, _NOWHERE[name])) as server:
        _refused(server, target, InvalidMessageError)
        assert len(server.settle()) == 1


@pytest.mark.parametrize("service", ["https://api.example", "HTTPS://api.example", "https://[::1]"])
def test_no_step_down_from_https(service: str) -> None:
    rules = DownloadRules(_LIMIT)
    with pytest.raises(InvalidMessageError, match="http, and the service's is https"):
        rules.check_url("http://files.example/x", service)
    rules.check_url("HTTPS://files.example/x", service)


def test_hosts_narrow_further(service: HostileServer, files: HostileServer, target: Path) -> None:
    _refused(service, target, InvalidMessageError, rules=DownloadRules(_LIMIT, ["files.example"]))
    assert files.num_connections == 0
    _download(service, target, rules=DownloadRules(_LIMIT, ["files.example", "127.0.0.1"]))


@pytest.mark.parametrize(
    ("host", "is_good"),
    [
        ("files.example", True), ("FILES.example.", True), ("a.b.cdn.example", True),
        ("cdn.example", False), ("evilfiles.example", False), ("files.example.evil", False),
        ("xcdn.example", False), ("files.example.evil.", False),
    ],
)  # fmt: skip
def test_names_of_hosts(host: str, is_good: bool) -> None:
    rules = DownloadRules(_LIMIT, ["Files.example", ".cdn.example"])
    if is_good:
        rules.check_url(f"https://{host}/x", "https://api.example")
        return
    with pytest.raises(InvalidMessageError, match="none of the download_hosts"):
        rules.check_url(f"https://{host}/x", "https://api.example")


# --- addresses -------------------------------------------------------------------------------


def _resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """Names that the system's look-up would not know."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        found = []
        for address in names.get(host, [host]):
            found += real(address, port, *args, **options)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    """A service at what is taken for a public address."""
    monkeypatch.setattr("bktransport.download.near", lambda reply, url: 0)
    with HostileServer(stall()) as server:
        yield server


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "localhost", "inside.example", "0.0.0.0", "0", "2130706433",  # noqa: S104
     "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "[::]", "10.1.2.3",
     "192.168.0.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "255.255.255.255", "224.0.0.1", "a.localhost"],
)  # fmt: skip
def test_nothing_inside_is_connected_to(
    outside: HostileServer, files: HostileServer, target: Path,
    monkeypatch: pytest.MonkeyPatch, host: str,
) -> None:  # fmt: skip
    _resolving(monkeypatch, {"inside.example": ["127.0.0.1"], "a.localhost": ["127.0.0.1"]})
    connected: list[object] = []
    real = socket.socket.connect
    monkeypatch.setattr(
        "socket.socket.connect", lambda self, where: (connected.append(where), real(self, where))[1]
    )
    outside.then(located(f"http://{host}:{files.port}{_FILE}"))
    error = _refused(outside, target, InvalidMessageError)
    assert "leads inside" in str(error)
    assert connected == [(outside.host, outside.port)]
    assert files.num_connections == 0
    # The same through a proxy, which would look the names up, but for those that only it knows.
    if host != "inside.example":
        with HostileServer(stall()) as proxy:
            given = {"proxies": {f"http://{host.strip('[]')}": proxy.url, "http": proxy.url}}
            monkeypatch.setattr(
                "bktransport.api.Connector.proxy_of",
                lambda self, url: None if str(outside.port) in url else proxy.url,
            )
            assert "leads inside" in str(_refused(outside, target, InvalidMessageError, **given))
            assert proxy.num_connections == 0


def test_one_good_address_is_enough(
    files: HostileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here 127.0.0.1 is as good as public, and all other addresses of loopback lie inside."""
    monkeypatch.setattr("bktransport.download.near", lambda reply, url: 0)
    monkeypatch.setattr(
        "bktransport.download.nearness", lambda address: 0 if str(address) == "127.0.0.1" else 4
    )
    _resolving(monkeypatch, {"mixed.example": ["127.0.0.9", "127.0.0.1"],
                             "down.example": ["127.0.0.9", "127.0.0.1"]})  # fmt: skip
    with HostileServer(located(f"http://mixed.example:{files.port}{_FILE}")) as server:
        _download(server, target)
        assert target.read_bytes() == AGGREGATE
        target.write_bytes(_OLD)
        # Where the good one does not answer, that is what is told, and it is tried again.
        files.close()
        server.then(located(f"http://down.example:{files.port}{_FILE}"))
        error = _refused(server, target, NoResponseError)
        assert "Connection refused" in str(error)


def test_a_service_inside_may_name_what_lies_inside(service: HostileServer, target: Path) -> None:
    _download(service, target)
    assert target.read_bytes() == AGGREGATE


# --- time and other trouble --------------------------------------------------------------------

_HEAD = b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % len(AGGREGATE)
_SLOW: dict[str, Behaviour] = {
    "no answer": stall(),
    "drip in the headers": drip(_HEAD),
    "drip in the body": drip(_HEAD + AGGREGATE, at=len(_HEAD)),
    "drip of no length": drip(b"HTTP/1.1 200 X\r\n\r\n" + AGGREGATE, at=18),
    "stall in the body": drip(_HEAD + AGGREGATE[:100], 0.001, at=len(_HEAD)),
}


@pytest.mark.parametrize("behaviour", _SLOW.values(), ids=_SLOW)
def test_the_deadline_ends_every_wait(
    service: HostileServer, files: HostileServer, target: Path, behaviour: Behaviour
) -> None:
    files.then(behaviour)
    error = _refused(service, target, DeadlineError, seconds=0.7)
    assert "not done within 0.7 s" in str(error)
    assert files.num_connections == 1


@pytest.mark.parametrize("behaviour", _SLOW.values(), ids=_SLOW)
def test_the_deadline_ends_every_wait_for_the_service(target: Path, behaviour: Behaviour) -> None:
    with HostileServer(behaviour) as server:
        _refused(server, target, DeadlineError, seconds=0.7)


@pytest.mark.parametrize(
    "failure",
    [BrokenPipeError(32, "pipe"), ValueError("mine"), KeyboardInterrupt()],
    ids=lambda failure: type(failure).__name__,
)
def test_what_the_progress_raises_comes_out_and_nothing_is_left(
    service: HostileServer, files: HostileServer, target: Path, failure: BaseException
) -> None:
    def progress(done: int, total: int | None) -> None:
        raise failure

    with pytest.raises(type(failure)) as caught:
        _download(service, target, progress=progress)
    assert caught.value is failure
    assert target.read_bytes() == _OLD
    assert os.listdir(target.parent) == [target.name]
    assert files.num_connections == 1


def test_a_folder_that_is_not_there_costs_no_request(
    service: HostileServer, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        _download(service, tmp_path / "none" / "x.npy")
    with pytest.raises(IsADirectoryError):
        _download(service, tmp_path)
    assert service.num_connections == 0


_CHILD = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from pydantic import SecretStr
    from bktransport.api import Connector, Login
    from bktransport.attempt import Deadline
    from bktransport.download import Downloader, DownloadRules
    from bktransport.redaction import Redactor

    url, path = sys.argv[1:]
    if os.getuid() == 0 and not path.startswith("/dev/full/"):
        os.seteuid(65534)
    connector = Connector(timeout=20.0, proxies={}, verify=True, redactor=Redactor())
    login = Login("leaf-1", SecretStr("token"))
    downloader = Downloader(connector, url, login, DownloadRules(1 << 30), None)
    try:
        downloader.download("file-1", Path(path), Deadline(30.0))
    except OSError as exc:
        print(type(exc).__name__, exc.errno, exc.filename)
""")


def _in_child(service: HostileServer, path: Path) -> str:
    command = [sys.executable, "-c", _CHILD, service.url, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    return run.stdout.strip()


def _open_to_all(folder: Path) -> None:
    """The way to a folder of pytest is closed to others."""
    for parent in [folder, *folder.parents]:
        if parent.owner() == "root" and parent != Path("/tmp") and "pytest" in str(parent):  # noqa: S108
            parent.chmod(0o755)


def test_a_folder_that_can_not_be_written_costs_no_request(
    service: HostileServer, target: Path
) -> None:
    _open_to_all(target.parent)
    target.parent.chmod(0o555)
    try:
        assert _in_child(service, target) == f"PermissionError 13 {target}"
        assert target.read_bytes() == _OLD
        assert os.listdir(target.parent) == [target.name]
        assert service.num_connections == 0
    finally:
        target.parent.chmod(0o755)


def test_a_full_disk_leaves_the_old_file(
    service: HostileServer, files: HostileServer, tmp_path: Path
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT PROVEN: a full disk; root could mount one of 1 MB")
    try:
        target = tmp_path / "x.npy"
        target.write_bytes(_OLD)
        files.then(reply(200, aggregate(*zeros((1 << 20,)))))
        with pytest.raises(OSError, match="No space left") as caught:
            _download(service, target, rules=DownloadRules(1 << 30))
        assert not isinstance(caught.value, BkTransportError)
        assert caught.value.filename == str(target)
        assert target.read_bytes() == _OLD
        assert os.listdir(tmp_path) == ["x.npy"]
        assert files.num_connections == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_url_is_fetched_as_it_was_judged(files: HostileServer, target: Path) -> None:
    """Signatures are over the very bytes of a query."""
    query = "/a%2Fb/c%20d?sig=A%2BB%3D&x=~_-.!*'()"
    seen: list[str] = []
    files.then(told(lambda request: (seen.append(request.target), (200, AGGREGATE))[1]))
    with HostileServer(located(files.url + query)) as server:
        _download(server, target)
    assert seen == [query]


def test_an_early_answer_of_the_service(target: Path) -> None:
    with HostileServer(early(404, {"error": "unknown"})) as server:
        assert _refused(server, target, ResponseError).status_code == 404


def test_certificates_are_checked_at_the_host_of_files_too(target: Path) -> None:
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with (
        HostileServer(reply(200, AGGREGATE), ssl_context=context) as files,
        HostileServer(located(files.url + _FILE)) as server,
    ):
        error = _refused(server, target, NoResponseError)
        assert "certificate is not trusted" in str(error)
        assert len(server.settle()) == 1
        with authority.cert_pem.tempfile() as ca:
            _download(server, target, verify=ca)
    assert target.read_bytes() == AGGREGATE
