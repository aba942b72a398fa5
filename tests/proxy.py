"""A TCP proxy on loopback with faults that are switched while it runs, for HTTP and AMQP alike.

    client ── up ──> proxy ── up ──> server
           <─ down ─       <─ down ─

One thread runs everything; calls are handed to it, and are in force when they return. Tests import
it by `from ..proxy import TcpProxy`; scripts that put this folder on `sys.path`, from `proxy`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ["Direction", "TcpProxy"]

Direction: TypeAlias = Literal["up", "down"]
_T = TypeVar("_T")

_BLOCK = 1 << 16  # bytes read at once, and held at most for each direction
_TICK = 0.02  # seconds between two pieces of a drip
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER 0: close() sends RST rather than FIN


class _Flow:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, target: socket.socket | None) -> None:
        self.source, self.target = source, target
        self.held = bytearray()
        self.due = 0.0  # time.monotonic() before which nothing of `held` leaves
        self.ended = False  # the source sent its FIN, or is gone
        self.done = False  # and that was told to the target
        self.passed = 0  # bytes since cut_after()


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket | None) -> None:
        self.sockets = [client] if server is None else [client, server]
        self.flows: dict[Direction, _Flow] = {"up": _Flow(client, server)}
        if server is not None:
            self.flows["down"] = _Flow(server, client)
        self.torn = server is None  # bytes were swallowed: it can never go on


class TcpProxy:
    """Passes connections on to one server, until told otherwise.

    Attributes:
        address: where it listens: ("127.0.0.1", port).
        accepted: connections accepted so far.
        open: connections open at the moment.
        nbytes: bytes passed on so far, by direction.
        nbytes_swallowed: bytes that a black hole took, both directions; an end counts as one.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listens on a free port of 127.0.0.1.

        Args:
            host: of the server, on loopback; connected to anew for each client.
            port: of the server; may be changed later by `retarget()`.
        """
        self._target = (host, port)
        self._black = False
        self._delay = 0.0
        self._rate: float | None = None
        self._slow: tuple[Direction, ...] = ()
        self._cut: tuple[int, Direction] | None = None
        self._cuts_left: int | None = None
        self._connections: set[_Connection] = set()
        self._running = True
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.accepted = 0
        self.nbytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.nbytes_swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._bell, self._ring = socket.socketpair()
        self._ring.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._bell, selectors.EVENT_READ, self._answer_calls)
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def open(self) -> int:
        return len(self._connections)

    # Faults, in force when the call returns; they add up until heal().

    def cut_after(self, nbytes: int, direction: Direction = "up", *, times: int | None = 1) -> None:
        """Resets a connection once it passed so many bytes, counted from now or from its start.

        Args:
            nbytes: passed on at most; 0 resets at the first byte, which is not passed on: with
                "down", the server did what it was asked, and its reply is lost.
            direction: in which to count.
            times: connections that are cut; None cuts all.
        """

        def switch() -> None:
            self._cut, self._cuts_left = (nbytes, direction), times
            for connection in self._connections:
                for flow in connection.flows.values():
                    flow.passed = 0

        self._call(switch)

    def black_hole(self) -> None:
        """Keeps connections open and swallows everything, their ends included.

        New connections are accepted and never answered; the server does not see them.
        """

        def switch() -> None:
            self._black = True
            for connection in self._connections:
                for flow in connection.flows.values():
                    self._swallow(connection, len(flow.held))
                    flow.held.clear()

        self._call(switch)

    def delay(self, seconds: float) -> None:
        """Holds what comes in for this long, in both directions."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def drip(self, bytes_per_second: float, direction: Direction | None = None) -> None:
        """Passes so many bytes a second on, in pieces, in one direction or (None) in each."""

        def switch() -> None:
            self._rate = bytes_per_second
            self._slow = ("up", "down") if direction is None else (direction,)

        self._call(switch)

    def heal(self) -> None:
        """Ends all faults; connections whose bytes were swallowed are reset."""

        def switch() -> None:
            self._black, self._delay, self._rate, self._cut = False, 0.0, None, None
            for connection in list(self._connections):
                for flow in connection.flows.values():
                    flow.due = 0.0
                if connection.torn:
                    self._reset(connection)

        self._call(switch)

    def reset_all(self) -> int:
        """Resets every open connection, on both sides; how many there were."""

        def reset() -> int:
            found = list(self._connections)
            for connection in found:
                self._reset(connection)
            return len(found)

        return self._call(reset)

    def retarget(self, host: str, port: int) -> None:
        """Sends connections that come from now on to another server."""
        self._call(lambda: setattr(self, "_target", (host, port)))

    def close(self) -> None:
        """Resets what is open and ends the thread."""
        if self._running:
            self.reset_all()
            self._call(lambda: setattr(self, "_running", False))
            self._thread.join()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, function: Callable[[], _T]) -> _T:
        if not self._running:
            raise RuntimeError("the proxy is closed")
        future: Future[_T] = Future()
        self._calls.append((function, future))
        with contextlib.suppress(BlockingIOError):  # full of rings: it will look
            self._ring.send(b"!")
        return future.result(30)

    # What follows runs in the proxy's thread alone.

    def _run(self) -> None:
        try:
            while self._running:
                for key, events in self._selector.select(self._until_due()):
                    if isinstance(key.data, _Connection):
                        self._serve(key.data, key.fileobj, events)
                    else:
                        key.data()
                for connection in list(self._connections):
                    self._watch(connection)
        finally:
            for connection in list(self._connections):
                self._reset(connection)
            for end in (self._listener, self._bell, self._ring, self._selector):
                end.close()

    def _answer_calls(self) -> None:
        self._bell.recv(4096)
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function())
            except BaseException as exc:  # noqa: BLE001 -- it is the caller's
                future.set_exception(exc)

    def _until_due(self) -> float | None:
        now = time.monotonic()
        waits = [
            flow.due - now
            for connection in self._connections
            for flow in connection.flows.values()
            if flow.held and flow.due > now
        ]
        return min(waits, default=None)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # gone again
            return
        self.accepted += 1
        server = None
        if not self._black:
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                self._close_hard(client)
                return
        connection = _Connection(client, server)
        for end in connection.sockets:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(connection)

    def _serve(self, connection: _Connection, ready: Any, events: int) -> None:
        if connection not in self._connections:  # reset by an earlier event of this round
            return
        for direction, flow in connection.flows.items():
            try:
                if flow.source is ready and events & selectors.EVENT_READ:
                    self._take(connection, flow)
                if flow.target is ready and events & selectors.EVENT_WRITE:
                    self._give(connection, flow, direction)
            except BlockingIOError:
                continue
            except OSError:  # one peer reset it
                if not self._black:
                    self._reset(connection)
                    return
                flow.ended = connection.torn = True
            if connection not in self._connections:
                return
        if all(flow.done for flow in connection.flows.values()):
            self._forget(connection)
            for end in connection.sockets:
                end.close()

    def _take(self, connection: _Connection, flow: _Flow) -> None:
        data = flow.source.recv(_BLOCK)
        if self._black:
            self._swallow(connection, len(data) or 1)
            flow.ended = flow.ended or not data
            return
        if not flow.held and self._delay:
            flow.due = max(flow.due, time.monotonic() + self._delay)
        flow.held += data
        if not data:
            flow.ended = True
            self._finish(flow)

    def _swallow(self, connection: _Connection, nbytes: int) -> None:
        self.nbytes_swallowed += nbytes
        connection.torn = connection.torn or nbytes > 0

    def _give(self, connection: _Connection, flow: _Flow, direction: Direction) -> None:
        assert flow.target is not None
        rate = self._rate if direction in self._slow else None
        most = len(flow.held) if rate is None else max(1, int(rate * _TICK))
        cut = self._cut is not None and self._cut[1] == direction
        if cut and self._cut is not None:
            most = min(most, self._cut[0] - flow.passed)
        sent = flow.target.send(flow.held[:most]) if most > 0 else 0
        del flow.held[:sent]
        flow.passed += sent
        self.nbytes[direction] += sent
        if rate is not None:
            flow.due = time.monotonic() + sent / rate
        if cut and self._cut is not None and flow.passed >= self._cut[0]:
            self._count_cut()
            self._reset(connection)
            return
        self._finish(flow)

    def _count_cut(self) -> None:
        if self._cuts_left is not None:
            self._cuts_left -= 1
            if self._cuts_left <= 0:
                self._cut = None

    def _finish(self, flow: _Flow) -> None:
        """Tells the target that the source sent all it had."""
        if flow.ended and not flow.held and not flow.done and flow.target is not None:
            flow.done = True
            with contextlib.suppress(OSError):
                flow.target.shutdown(socket.SHUT_WR)

    def _watch(self, connection: _Connection) -> None:
        """Asks for the events that would move the connection on, and for no others."""
        now = time.monotonic()
        wanted = dict.fromkeys(connection.sockets, 0)
        for flow in connection.flows.values():
            if not flow.ended and len(flow.held) < _BLOCK:
                wanted[flow.source] |= selectors.EVENT_READ
            if flow.target is not None and flow.held and flow.due <= now:
                wanted[flow.target] |= selectors.EVENT_WRITE
        watched = self._selector.get_map()
        for end, events in wanted.items():
            known = watched.get(end)
            if known is not None and not events:
                self._selector.unregister(end)
            elif known is None and events:
                self._selector.register(end, events, connection)
            elif known is not None and known.events != events:
                self._selector.modify(end, events, connection)

    def _forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for end in connection.sockets:
            with contextlib.suppress(KeyError):
                self._selector.unregister(end)

    def _reset(self, connection: _Connection) -> None:
        self._forget(connection)
        for end in connection.sockets:
            self._close_hard(end)

    @staticmethod
    def _close_hard(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.close()
