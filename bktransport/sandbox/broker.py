"""An AMQP 0-9-1 broker inside the process, on loopback, that can also fail on request.

It does for one leaf a queue what RabbitMQ does: PLAIN logins, virtual hosts, prefetch, redelivery,
heartbeats, consumer timeouts, forced closes. One thread waits on all sockets; whoever calls a
method does its work under the same lock, so that publishing needs no turn of that thread.

    with EmbeddedBroker() as broker:
        broker.add_leaf("tree", "leaf", "password")
        broker.publish("tree", "leaf", b"{}")

A leaf may read its queue and nothing else. Queues live as long as the object, across `stop` and
`restart`. Not done: exchanges, publishing by clients, transactions, publisher confirms, priorities.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pika import spec

from bktransport.sandbox.amqp_queues import Directory
from bktransport.sandbox.amqp_session import Session, Stage
from bktransport.sandbox.amqp_socket import Peer

__all__ = ["EmbeddedBroker"]

_LOG = logging.getLogger("bktransport.sandbox")
_TICK = 0.05  # seconds: how late a heartbeat or a limit may be noticed
_GOODBYE = 1.0  # seconds clients have to answer a forced close
_MAX_PEERS = 256  # connections at a time


class EmbeddedBroker:
    """A broker on loopback, listening from construction on.

    Every method may be called from any thread.

    Attributes:
        host: the address it listens at.
        port: the port; picked by the system where 0 was asked for.
    """

    def __init__(
        self,
        *,
        bind: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        heartbeat: int = 30,
        consumer_timeout: float | None = None,
        handshake_timeout: float = 10.0,
    ) -> None:
        """Starts to listen.

        Args:
            bind: a loopback address, such as 127.0.0.2.
            port: 0 for any that is free.
            ssl_context: speak TLS, with this certificate.
            heartbeat: seconds, offered to clients; 0 for none. A client that is silent for twice as
                long as agreed is disconnected.
            consumer_timeout: seconds an unacknowledged delivery may take before its channel is
                closed; None for ever.
            handshake_timeout: seconds from accepting a connection to the end of its login.

        Raises:
            ValueError: an address that is not loopback, or a heartbeat out of range.
            OSError: the port is taken.
        """
        if not _is_loopback(bind):
            raise ValueError(f"{bind[:80]!a} is not a loopback address; use one such as 127.0.0.1")
        if not 0 <= heartbeat <= 65535:
            raise ValueError(f"heartbeat {heartbeat} is not in 0 to 65535 seconds")
        self.host = bind
        self.port = port
        self._ssl_context = ssl_context
        self._heartbeat = heartbeat
        self._consumer_timeout = consumer_timeout
        self._handshake_timeout = handshake_timeout
        self._directory = Directory()
        self._peers: set[Peer] = set()
        self._changed = threading.Condition()  # its lock guards all that follows
        self._frozen_at: float | None = None
        self._closed = False
        self._listener: socket.socket | None = self._listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="sandbox-broker", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.host}:{self.port}>"

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add_leaf(self, tree_id: str, leaf_id: str, password: str) -> None:
        """Adds the virtual host (if new), a user and the queue that it may read.

        For a known leaf it changes the password, and puts a removed queue back, empty.

        Raises:
            ValueError: an id that AMQP can't carry, or a leaf of another tree.
        """
        with self._changed:
            self._directory.add_leaf(tree_id, leaf_id, password)

    def remove_queue(self, tree_id: str, leaf_id: str) -> None:
        """Deletes a leaf's queue with its messages; consumers get Basic.Cancel.

        Raises:
            KeyError: there is none.
        """
        with self._changed:
            self._directory.remove_queue(tree_id, leaf_id)
            self._flush()

    def publish(self, tree_id: str, leaf_id: str, body: bytes) -> None:
        """Appends a message to a leaf's queue, as the server would.

        Raises:
            KeyError: no such queue.
        """
        with self._changed:
            self._directory.queue(tree_id, leaf_id).publish(bytes(body))
            self._flush()

    def depth(self, tree_id: str, leaf_id: str) -> tuple[int, int]:
        """Messages of a queue that wait, and those that were delivered and not acknowledged.

        Raises:
            KeyError: no such queue.
        """
        with self._changed:
            queue = self._directory.queue(tree_id, leaf_id)
            return queue.ready, queue.unacknowledged

    def connections(self) -> int:
        """How many clients are connected and logged in."""
        with self._changed:
            return sum(peer.session.stage is Stage.RUNNING for peer in self._peers)

    def close_connections(self) -> int:
        """Sends Connection.Close 320 to every client; waits up to a second for the answers.

        Returns:
            How many connections there were. All are gone.
        """
        with self._changed:
            peers = list(self._peers)
            for peer in peers:
                peer.session.close(spec.CONNECTION_FORCED, "Closed via management plugin")
            self._flush()
            self._changed.wait_for(lambda: all(peer.closed for peer in peers), _GOODBYE)
            return self._drop(peers, reset=False)  # the Close can still be read

    def drop_connections(self) -> int:
        """Resets every connection, without a word.

        Returns:
            How many there were.
        """
        with self._changed:
            return self._drop(list(self._peers))

    def freeze(self) -> None:
        """Plays dead: accepts, reads and sends nothing, heartbeats included, until `thaw`.

        Connections stay as they are; what is published meanwhile is kept. The system still
        completes TCP handshakes, as it does for a process that hangs.
        """
        with self._changed:
            if self._frozen_at is None:
                self._frozen_at = time.monotonic()

    def thaw(self) -> None:
        """Goes on after `freeze`; clients that left meanwhile are noticed."""
        with self._changed:
            if self._frozen_at is None:
                return
            now = time.monotonic()
            for peer in self._peers:
                peer.forgive(now, now - self._frozen_at)
            self._frozen_at = None
            self._flush()
            self._changed.notify_all()

    def stop(self) -> None:
        """Stops listening and resets every connection, as a broker that is killed.

        Queues keep their messages; those unacknowledged are redelivered after `restart`.
        """
        with self._changed:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self._drop(list(self._peers))

    def restart(self) -> None:
        """Listens again at the same port, after `stop` if that was not called yet.

        Raises:
            OSError: somebody else has the port by now.
            ValueError: the broker is closed.
        """
        self.stop()
        with self._changed:
            if self._closed:
                raise ValueError("the broker is closed; make another")
            self._listener = self._listen()
            self._selector.register(self._listener, selectors.EVENT_READ)

    def close(self) -> None:
        """Ends the broker, with its thread and sockets; may be called again."""
        with self._changed:
            self.stop()
            self._closed = True
            self._frozen_at = None
            self._changed.notify_all()
        self._thread.join()
        self._selector.close()

    def _run(self) -> None:
        """The thread: waits for sockets and for time to pass."""
        next_tick = 0.0
        while True:
            ready = [] if self._frozen_at is not None else self._selector.select(_TICK)
            with self._changed:
                if self._closed:
                    return
                if self._frozen_at is not None:
                    self._changed.wait(_TICK)
                    continue
                now = time.monotonic()
                for key, _ in ready:
                    if key.data is None:
                        self._accept(now)
                    else:
                        self._guarded(key.data, Peer.service, now)
                if now >= next_tick:
                    next_tick = now + _TICK
                    for peer in list(self._peers):
                        self._guarded(peer, Peer.tick, now, self._consumer_timeout)
                self._flush()

    def _guarded(self, peer: Peer, step: Callable[..., None], *arguments: Any) -> None:
        """Does something for one client; whatever goes wrong in it is that client's alone."""
        if peer.closed:  # since the selector named it
            return
        try:
            step(peer, *arguments)
        except Exception:  # noqa: BLE001  our own bug must not take the other clients down
            _LOG.exception("internal error; closing the connection")
            peer.close()

    def _accept(self, now: float) -> None:
        if self._listener is None:  # stopped since the selector named it
            return
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor left
            return
        try:
            if len(self._peers) >= _MAX_PEERS:
                raise ConnectionRefusedError("too many connections")
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
        except OSError as exc:
            _LOG.info("refused a connection: %s", ascii(str(exc)))
            sock.close()
            return
        session = Session(self._directory, self._heartbeat, time.monotonic)
        limits = (now, now + self._handshake_timeout)
        self._peers.add(Peer(sock, session, self._selector, limits))

    def _flush(self) -> None:
        """Sends what waits, for whichever client a step brought something, and forgets the gone."""
        if self._frozen_at is not None:
            return
        now = time.monotonic()
        busy = True
        while busy:  # one that goes may leave messages to others
            for peer in self._peers:
                self._guarded(peer, Peer.flush, now)
            gone = {peer for peer in self._peers if peer.closed}
            self._peers -= gone
            busy = bool(gone)
            if gone:
                self._changed.notify_all()

    def _drop(self, peers: list[Peer], *, reset: bool = True) -> int:
        for peer in peers:
            peer.close(reset=reset)
        self._peers.difference_update(peers)
        self._flush()
        return len(peers)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=128)
        listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        return listener


def _is_loopback(address: str) -> bool:
    """Whether it is an address of this machine alone; names are not looked up."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False
