"""The proxy of the fault tests does what it is told, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ..proxy import TcpProxy


class _Echo(socketserver.ThreadingTCPServer):
    """Sends back what comes; `seen` is what came on each connection, `ends` how each ended."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128  # with 5, connections of a crowd are tried again after seconds

    def __init__(self) -> None:
        self.seen: list[bytearray] = []
        self.ends: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    server: _Echo

    def handle(self) -> None:
        mine = bytearray()
        self.server.seen.append(mine)
        try:
            while data := self.request.recv(1 << 16):
                mine += data
                self.request.sendall(data)
            self.server.ends.append("FIN")
        except OSError:
            self.server.ends.append("RST")


@pytest.fixture
def echo() -> Iterator[_Echo]:
    with _Echo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: _Echo) -> Iterator[TcpProxy]:
    with TcpProxy(*echo.server_address) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: TcpProxy) -> Iterator[Callable[[], socket.socket]]:
    made: list[socket.socket] = []

    def open_one() -> socket.socket:
        made.append(socket.create_connection(proxy.address, 20))
        return made[-1]

    yield open_one
    for end in made:
        end.close()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _exactly(end: socket.socket, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        more = end.recv(nbytes - len(data))
        assert more, "the connection ended"
        data += more
    return data


def _rest(end: socket.socket) -> tuple[bytes, str]:
    data = b""
    try:
        while more := end.recv(1 << 16):
            data += more
    except ConnectionResetError:
        return data, "RST"
    return data, "FIN"


def test_it_passes_everything_on(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    data = random.Random(4).randbytes(8 << 20)
    client = connect()
    sender = threading.Thread(
        target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR))
    )
    sender.start()
    got, end = _rest(client)
    sender.join()
    assert (hashlib.sha256(got).digest(), end) == (hashlib.sha256(data).digest(), "FIN")
    assert proxy.nbytes == {"up": len(data), "down": len(data)}
    assert (proxy.accepted, proxy.nbytes_swallowed) == (1, 0)
    _until(lambda: proxy.open == 0)


def test_many_at_once(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    clients = [connect() for _ in range(50)]
    for number, client in enumerate(clients):
        client.sendall(b"%04d" % number)
    assert [_exactly(client, 4) for client in clients] == [b"%04d" % n for n in range(50)]
    assert (proxy.accepted, proxy.open) == (50, 50)


def test_cut_upwards(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    client = connect()
    client.sendall(b"before")
    assert _exactly(client, 6) == b"before"
    proxy.cut_after(1000)
    client.sendall(b"x" * 400)
    assert _exactly(client, 400) == b"x" * 400
    client.sendall(b"x" * 5000)
    assert _rest(client)[1] == "RST"
    _until(lambda: echo.ends == ["RST"])
    assert len(echo.seen[0]) == 6 + 1000
    client = connect()  # one cut was asked for
    client.sendall(b"x" * 5000)
    assert _exactly(client, 5000) == b"x" * 5000


def test_cut_downwards(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    proxy.cut_after(3, "down")
    client = connect()
    client.sendall(b"a reply")
    assert _rest(client) == (b"a r", "RST")
    assert bytes(echo.seen[0]) == b"a reply"


def test_a_lost_reply(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    proxy.cut_after(0, "down", times=None)
    for number in range(3):
        client = connect()
        client.sendall(b"request")
        assert _rest(client) == (b"", "RST")
        assert bytes(echo.seen[number]) == b"request"
    proxy.heal()
    client = connect()
    client.sendall(b"request")
    assert _exactly(client, 7) == b"request"


def test_black_hole(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    quiet, old, leaving = connect(), connect(), connect()
    for client in (quiet, old, leaving):
        client.sendall(b"1")
        assert _exactly(client, 1) == b"1"
    proxy.black_hole()
    new = connect()
    old.sendall(b"22")
    new.sendall(b"333")
    leaving.close()
    _until(lambda: proxy.nbytes_swallowed == 6)  # an end counts as one
    for client in (old, new):
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
    assert [bytes(seen) for seen in echo.seen] == [b"1"] * 3
    assert echo.ends == []
    proxy.heal()
    assert _rest(old) == (b"", "RST")
    assert _rest(new) == (b"", "RST")
    _until(lambda: echo.ends == ["RST"] * 2)
    quiet.sendall(b"4")  # lost nothing, and goes on
    assert _exactly(quiet, 1) == b"4"
    assert proxy.accepted == 4


def test_delay(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    proxy.delay(3600)
    client = connect()
    client.sendall(b"late")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert [bytes(seen) for seen in echo.seen if seen] == []
    proxy.heal()
    client.settimeout(20)
    assert _exactly(client, 4) == b"late"
    proxy.delay(0.02)
    client.sendall(b"soon")
    client.shutdown(socket.SHUT_WR)
    assert _rest(client) == (b"soon", "FIN")


def test_drip(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    proxy.drip(1, "down")
    client = connect()
    client.sendall(b"x" * 10_000)
    assert _exactly(client, 1) == b"x"
    _until(lambda: len(echo.seen[0]) == 10_000)  # the other direction runs
    client.settimeout(0.3)
    got = 1
    with contextlib.suppress(TimeoutError):  # one more in a second
        while got < 5000:
            got += len(client.recv(1 << 16))
    client.settimeout(20)
    assert got < 100
    proxy.drip(1_000_000)
    proxy.heal()
    assert _exactly(client, 10_000 - got) == b"x" * (10_000 - got)


def test_reset_all(proxy: TcpProxy, connect: Callable[[], socket.socket], echo: _Echo) -> None:
    clients = [connect() for _ in range(3)]
    for client in clients:
        client.sendall(b"1")
        assert _exactly(client, 1) == b"1"
    assert proxy.reset_all() == 3
    assert proxy.reset_all() == 0
    assert [_rest(client) for client in clients] == [(b"", "RST")] * 3
    _until(lambda: echo.ends == ["RST"] * 3)


def test_resets_and_ends_of_the_server_are_passed_on(
    proxy: TcpProxy, connect: Callable[[], socket.socket]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.retarget(*listener.getsockname())
        for linger, end in ((False, "FIN"), (True, "RST")):
            client = connect()
            server, _ = listener.accept()
            if linger:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
            assert _rest(client) == (b"", end)


def test_no_server(proxy: TcpProxy, connect: Callable[[], socket.socket]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy.retarget(*unused.getsockname())
        with pytest.raises(ConnectionResetError):  # while it connects, or when it reads
            connect().recv(1)
    assert (proxy.accepted, proxy.open) == (1, 0)


def test_closing_ends_the_thread(echo: _Echo) -> None:
    before = threading.active_count()
    proxy = TcpProxy(*echo.server_address)
    proxy.close()
    proxy.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        proxy.heal()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(proxy.address, 5)
