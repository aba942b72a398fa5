"""A client's socket: moves bytes between it and its session, never waits.

What may be held for one client is bounded: nothing is read or delivered while a mebibyte waits to
be sent, and a frame is judged before it is buffered.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct

from bktransport.sandbox.amqp_session import Session, Stage

__all__ = ["Peer"]

# Bytes read or sent at a time. More than a TLS record has: a read never leaves decrypted bytes
# behind, of which no selector would tell.
_CHUNK = 65536
_LINGER = 1.0  # seconds a client has to close after us
_GOODBYE = 2.0  # seconds a client has to take our last words, or to answer Connection.Close
_WAIT = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Peer:
    """One accepted connection.

    Attributes:
        closed: the socket is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        selector: selectors.BaseSelector,
        limits: tuple[float, float],
    ) -> None:
        """Starts to watch the socket.

        Args:
            sock: not blocking; closed by `close`.
            session: the state of the connection.
            selector: told whenever it matters what the socket is ready for.
            limits: now, and when the handshake must be over, in seconds of the same clock.
        """
        self.session = session
        self.closed = False
        self._sock = sock
        self._selector = selector
        self._greeting = isinstance(sock, ssl.SSLSocket)  # TLS has yet to begin
        self._handshake_until = limits[1]
        self._end_by = float("inf")
        self._done = False  # all was said: what still comes is read and forgotten
        self._heard = self._spoke = limits[0]
        self._events = selectors.EVENT_READ
        selector.register(sock, self._events, self)

    def service(self, now: float) -> None:
        """The socket is ready for something: reads and handles what came; `flush` is to follow."""
        try:
            if self._greeting and not self._greet():
                return
            if not self._read(now):
                self.close()
        except OSError:  # TLS errors among them
            self.close()

    def flush(self, now: float) -> None:
        """Sends what can be sent, and goes on with what had to wait for room."""
        if self.closed or self._greeting:
            return
        try:
            while self._send(now) and self._resume():
                pass
        except OSError:
            self.close()
            return
        self._after_sending(now)

    def tick(self, now: float, consumer_timeout: float | None) -> None:
        """What time alone brings: heartbeats, and limits that are over."""
        session = self.session
        late = now > self._handshake_until and session.stage < Stage.RUNNING
        over = now > self._end_by
        beat = session.heartbeat
        if late or over or (beat and now - self._heard > 2 * beat):
            self.close()
            return
        if session.stage > Stage.RUNNING:
            self._end_by = min(self._end_by, now + _GOODBYE)
        if session.stage is not Stage.RUNNING:
            return
        if beat and now - self._spoke >= beat / 2 and not session.outlet.out:
            session.outlet.heartbeat()
        if consumer_timeout is not None:
            session.time_out_consumers(consumer_timeout)

    def forgive(self, now: float, frozen: float) -> None:
        """Time stood still for so many seconds: limits move on by them."""
        self._heard = self._spoke = now
        self._handshake_until += frozen

    def close(self, *, reset: bool = False) -> None:
        """Closes the socket and gives back what was unacknowledged.

        Args:
            reset: by a TCP reset, which throws away what was still to be sent.
        """
        if self.closed:
            return
        self.closed = True
        self._selector.unregister(self._sock)
        if reset:
            with contextlib.suppress(OSError):
                now = struct.pack("ii", 1, 0)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self._sock.close()
        self.session.stage = Stage.ENDED
        self.session.release()

    def _greet(self) -> bool:
        """Goes on with the TLS handshake; whether it is done. OSError if it can't be."""
        try:
            self._sock.do_handshake()  # type: ignore[attr-defined]
        except ssl.SSLWantReadError:
            self._watch(selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(selectors.EVENT_WRITE)
        else:
            self._greeting = False
        return not self._greeting

    def _read(self, now: float) -> bool:
        """Reads what is there, if there is room; False at the end of the stream."""
        if not self.session.outlet.has_room():
            return True
        try:
            data = self._sock.recv(_CHUNK)
        except _WAIT:
            return True
        if not data:
            return False
        self._heard = now
        if not self._done:
            self.session.receive(data)
        return True

    def _send(self, now: float) -> bool:
        """Sends; whether all of it went."""
        out = self.session.outlet.out
        while out:
            try:
                sent = self._sock.send(bytes(out[:_CHUNK]))
            except _WAIT:
                return False
            del out[:sent]
            self._spoke = now
        return True

    def _resume(self) -> bool:
        """Goes on with what waited for room; whether that led to anything to send."""
        if not self.session.outlet.refused:
            return False
        self.session.resume()
        return bool(self.session.outlet.out)

    def _after_sending(self, now: float) -> None:
        out = self.session.outlet.out
        if self.session.stage is Stage.ENDED and not out and not self._done:
            # The client closes first if it will, or unread bytes of its would turn our last words
            # into a reset.
            self._done = True
            self._end_by = now + _LINGER
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        events = selectors.EVENT_WRITE if out else 0
        self._watch(events | selectors.EVENT_READ if self.session.outlet.has_room() else events)

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._selector.modify(self._sock, events, self)
