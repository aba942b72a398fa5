"""Whatever is sent: nothing is stored, a JSON error at most comes back, the sandbox lives on."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bktransport.sandbox import Sandbox

from .sandbox_calls import (
    TIMEOUT,
    all_of,
    an_update,
    auth,
    error,
    get,
    multipart,
    post,
    raw,
    upload,
    wait_until,
)

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(leaves=1, max_upload_nbytes=1 << 22) as running:
        yield running
        assert upload(running).status_code == 201
        assert len(running.state()["uploads"]) == 1


def files(sandbox: Sandbox) -> list[str]:
    return os.listdir(vars(vars(sandbox)["_service"])["_folder"])


def head(sandbox: Sandbox, *more: str) -> bytes:
    """An upload's request up to its body."""
    basic = base64.b64encode(":".join(auth(sandbox)).encode()).decode()
    lines = ["POST /v1/file/upload HTTP/1.1", "Host: x", f"Authorization: Basic {basic}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


_FORM = "Content-Type: multipart/form-data; boundary=xyz"


def test_a_client_that_is_cut_off(sandbox: Sandbox) -> None:
    body = b"".join(multipart(an_update(size=100_000)))
    for sent in (0, 50, 200, 100_000, len(body) - 1):
        with raw(sandbox) as connection:
            connection.sendall(head(sandbox, _FORM, f"Content-Length: {len(body)}") + body[:sent])
            connection.shutdown(socket.SHUT_WR)
            assert b"400 BAD REQUEST" in all_of(connection)
    assert sandbox.state()["uploads"] == []
    assert files(sandbox) == []


def test_a_client_that_is_reset(sandbox: Sandbox) -> None:
    with raw(sandbox) as connection:
        connection.sendall(head(sandbox, _FORM, "Content-Length: 1000000"))
        connection.sendall(b"".join(multipart(bytes(200_000)))[:-30])
        wait_until(lambda: files(sandbox))
        linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_until(lambda: not files(sandbox))
    assert sandbox.state()["uploads"] == []


def test_too_large_is_refused_before_it_is_sent(sandbox: Sandbox) -> None:
    with raw(sandbox) as connection:
        connection.sendall(head(sandbox, _FORM, f"Content-Length: {1 << 40}"))
        assert b"413" in connection.recv(100)


def test_chunks_are_capped_too(sandbox: Sandbox) -> None:
    with raw(sandbox) as connection:
        connection.sendall(head(sandbox, _FORM, "Transfer-Encoding: chunked"))
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        first = next(multipart(b""))
        connection.sendall(f"{len(first):x}\r\n".encode() + first + b"\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(6):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert b"413" in all_of(connection)
    assert files(sandbox) == []


@pytest.mark.parametrize("ending", [b"zz\r\n", b"-5\r\n", b"5\r\nab", b""])
def test_broken_chunks(sandbox: Sandbox, ending: bytes) -> None:
    with raw(sandbox) as connection:
        connection.sendall(head(sandbox, _FORM, "Transfer-Encoding: chunked") + ending)
        connection.shutdown(socket.SHUT_WR)
        assert b"400 BAD REQUEST" in all_of(connection)


_PART = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--xyz--\r\n",
        b"".join(multipart(b"x", name="other")),
        b"".join(multipart(b"x", boundary="other")),
        b"".join(multipart(b"x"))[:-8],
        _PART + b"--xyz--\r\n",  # without data
        _PART + b"".join(multipart(b"x")),  # two files
        b"".join(multipart(b"x")).replace(b"{}", b"[]"),
        b"".join(multipart(b"x")).replace(b"{}", b"[" * 50_000),
        b"".join(multipart(b"x")).replace(b"Content-Disposition", b"Content"),
        b"".join(multipart(b"x")).replace(b"filename", b"\xff\xfe"),
        b"--xyz\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
        b"--xyz\r\n" + b"A" * 3_000_000,
        b'--xyz\r\nContent-Disposition: form-data; name="data"\r\n\r\n' + bytes(3_000_000),
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 1000 + b"--xyz--",
    ],
)
def test_bad_forms(sandbox: Sandbox, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    answer = post(sandbox, "/v1/file/upload", auth=auth(sandbox), data=body, headers=headers)
    assert answer.status_code in (400, 413)
    error(answer, answer.status_code)
    assert files(sandbox) == []


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
     "multipart/form-data; boundary=\xe9", "multipart/mixed; boundary=xyz"],
)  # fmt: skip
def test_other_bodies(sandbox: Sandbox, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1")}
    body = b"".join(multipart(an_update()))
    error(post(sandbox, "/v1/file/upload", auth=auth(sandbox), data=body, headers=headers), 400)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999999", "5, 5"])
def test_other_lengths(sandbox: Sandbox, length: str) -> None:
    with raw(sandbox) as connection:
        connection.sendall(head(sandbox, _FORM, f"Content-Length: {length}"))
        connection.shutdown(socket.SHUT_WR)
        assert all_of(connection)[9:12] in (b"400", b"413")


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET //[ HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /sandbox/state HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"GET /sandbox/state HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"GET /%ff%00/\xff HTTP/1.1\r\n\r\n",
        b"__init__ / HTTP/1.1\r\n\r\n",
        b"GET /sandbox/state HTTP/1.1\r\nHost: \xff\xff\r\n\r\n",
        b"GET /sandbox/state HTTP/1.1\r\nHost\r\n\r\n",
        b"POST /sandbox/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n",
    ],
)
def test_odd_requests(sandbox: Sandbox, request_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with raw(sandbox) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            answer = all_of(connection)
            assert b"Traceback" not in answer
            assert answer[9:10] in (b"", b"4", b"5") or b"Error code: " in answer
            assert b" 500 " not in answer[:20]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_target_that_is_no_url(sandbox: Sandbox) -> None:
    with raw(sandbox) as connection:
        connection.sendall(b"GET http://[::1 HTTP/1.1\r\n\r\n")
        assert b" 400 " in all_of(connection)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROBNICATE"])
def test_other_methods(sandbox: Sandbox, method: str) -> None:
    import requests

    for path in ("/v1/leaf/authenticate", "/v1/file/upload", "/sandbox/state", "/sandbox/files/x"):
        error(requests.request(method, sandbox.url + path, timeout=TIMEOUT), 405)
    error(get(sandbox, "/v1/file/upload"), 405)
    error(get(sandbox, "/nothing"), 404)


def test_json_that_is_none(sandbox: Sandbox) -> None:
    given = sandbox.credentials[0]
    analyser = given["performance_analyser_username"], given["performance_analyser_password"]
    for body in (b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", b"{}"):
        error(post(sandbox, "/v1/performance/analysis", auth=analyser, data=body), 400)
    error(post(sandbox, "/v1/performance/analysis", auth=analyser, data=bytes(2 << 20)), 413)


def test_slow_clients_hold_up_nobody(sandbox: Sandbox) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(raw(sandbox))
            connection.sendall(b"GET /sandbox/state HTTP/1.1\r\nA")
        assert get(sandbox, "/sandbox/state").status_code == 200


def test_too_many_clients(sandbox: Sandbox) -> None:
    """Those past the limit are turned away; when the others have gone, all is well."""
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            stack.enter_context(raw(sandbox))
        with raw(sandbox) as late, contextlib.suppress(ConnectionError):
            assert late.recv(1) == b""

    def answers() -> bool:
        with raw(sandbox) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /sandbox/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return b"200 OK" in all_of(connection)
        return False

    wait_until(answers)


def test_a_tls_client_that_says_nothing(tmp_path: Path) -> None:
    """The handshake is not done by the thread that accepts."""
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Sandbox(leaves=1, ssl_context=context) as sandbox, raw(sandbox):
        with raw(sandbox) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in all_of(plain)
        ours = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with ours.wrap_socket(raw(sandbox), server_hostname="127.0.0.1") as connection:
            connection.sendall(b"GET /sandbox/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in all_of(connection)


_CHILD = """
import sys
from bktransport.sandbox import Sandbox
with Sandbox(leaves=2, quorum=2, folder=sys.argv[1]) as sandbox:
    print(__import__("json").dumps([sandbox.url, sandbox.credentials]), flush=True)
    sys.stdin.read()
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            print(line.split()[1], sandbox.state()["rounds"][0]["status"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_memory(tmp_path: Path) -> None:
    """Two uploads of 256 MiB, their aggregate and its download, in a process of its own."""
    peaks = [_peak(tmp_path, nbytes) for nbytes in (1 << 20, 1 << 28)]
    assert peaks[1] - peaks[0] < 32 << 10  # KiB


def _peak(tmp_path: Path, nbytes: int) -> int:
    import requests

    block = an_update(1, size=nbytes // 4)
    command = [sys.executable, "-c", _CHILD, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        url, credentials = json.loads(child.stdout.readline())
        for given in credentials:
            user = given["leaf_id"], given["leaf_session_token"]
            answer = requests.post(
                url + "/v1/file/upload", auth=user, timeout=TIMEOUT,
                data=b"".join(multipart(block)),
                headers={"Content-Type": "multipart/form-data; boundary=xyz"},
            )  # fmt: skip
            assert answer.status_code == 201

        def over() -> str | None:
            state = requests.get(url + "/sandbox/state", timeout=TIMEOUT).json()
            found: str | None = state["rounds"][0]["aggregation_id"]
            return found

        aggregation_id = wait_until(over)
        answer = requests.get(
            f"{url}/v1/file/download/{aggregation_id}", auth=user, timeout=TIMEOUT
        )
        got = requests.get(answer.json()["data"]["download_url"], timeout=TIMEOUT, stream=True)
        assert sum(len(one) for one in got.iter_content(1 << 20)) == len(block)
        child.stdin.close()
        peak, status = child.stdout.readline().split()
        assert status == "done"
    assert child.returncode == 0
    return int(peak)
