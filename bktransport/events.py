"""Notifications: one thread that receives them for as long as the client lives.

    connect ──> serve ──> lost ──> wait 0.2 s ... 30 s ──> connect ...
       └── refused (login, virtual host, queue) ──> wait 30 s ──> connect ...

A message is acknowledged only when `on_message` has returned. If that raises, the message is held
and tried again, the broker keeps it as its own, and `error` says so. Nothing ends the thread but
`close`.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable

from bktransport.amqp import BrokerAddress, Loss, Session, quiet_pika
from bktransport.errors import BkTransportError, BrokerError
from bktransport.text import quoted

__all__ = ["BrokerAddress", "Consumer"]

_LOG = logging.getLogger("bktransport")
_FIRST_PAUSE = 0.2  # seconds
_LASTED = 10.0  # seconds after which a connection counts as a good one


class Consumer:
    """Receives the messages of one queue.

    Args:
        address: of the broker.
        on_message: called with (body, redelivered) on the consumer's thread; the message is
            acknowledged when it returns, and held and tried again if it raises. It must be short
            (heartbeats wait for it), and may be called again with the same message.
        ssl_context: speak TLS; None: plain.
        heartbeat: seconds; a black hole is noticed after 2 x (heartbeat + 5) at the latest.
        longest_pause: seconds between two tries at most.

    Raises:
        ValueError: `heartbeat` is not 1 to 65535, or `longest_pause` is not positive.
    """

    def __init__(
        self,
        address: BrokerAddress,
        on_message: Callable[[bytes, bool], object],
        *,
        ssl_context: ssl.SSLContext | None = None,
        heartbeat: int = 30,
        longest_pause: float = 30.0,
    ) -> None:
        if not 1 <= heartbeat <= 65535:
            raise ValueError(f"heartbeat must be 1 to 65535 seconds, not {heartbeat!r}")
        if not longest_pause > 0:
            raise ValueError(f"longest_pause must be positive, not {longest_pause!r}")
        self._address = address
        self._on_message = on_message
        self._ssl_context = ssl_context
        self._heartbeat = heartbeat
        self._longest_pause = longest_pause
        self._changed = threading.Condition()  # guards what follows
        self._connected = False
        self._refused = False
        self._error: str | None = None
        self._session: Session | None = None
        self._closing = threading.Event()
        self._useful = False
        self._retry_pause = _FIRST_PAUSE
        self._thread = threading.Thread(target=self._run, name="bktransport-events", daemon=True)

    @property
    def error(self) -> BrokerError | None:
        """Why notifications do not come at the moment; None if they do, or before the first try."""
        with self._changed:
            return None if self._error is None else BrokerError(self._error)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until messages can come; False if that took longer than `timeout` seconds.

        Raises:
            BrokerError: the broker refused. It is asked again in the background all the same.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._connected or self._refused or self._closing.is_set(), timeout
            )
            if self._connected:
                return True
            if self._refused and self._error is not None:
                raise BrokerError(self._error)
            return False

    def close(self, timeout: float = 2.0) -> None:
        """End the thread; no message is handled after this. Waits `timeout` seconds at most."""
        with self._changed:
            self._closing.set()
            session = self._session
            self._changed.notify_all()
        if session is not None:
            session.stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                _LOG.warning("notifications: the thread did not end within %g s", timeout)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        with quiet_pika():
            while not self._closing.is_set():
                began = time.monotonic()
                loss = self._serve()
                if self._closing.is_set():
                    return
                if self._useful or time.monotonic() - began > _LASTED:
                    pause = _FIRST_PAUSE
                if loss.refused:
                    pause = self._longest_pause
                self._tell_loss(loss)
                # Half of it at random, so that not all leaves come at once after a restart.
                self._closing.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, self._longest_pause)

    def _serve(self) -> Loss:
        """One connection, from dialling to its end."""
        self._useful = False
        self._retry_pause = min(_FIRST_PAUSE, self._longest_pause)
        try:
            session = Session(
                self._address,
                self._deliver,
                self._tell_connected,
                ssl_context=self._ssl_context,
                heartbeat=self._heartbeat,
            )
        except Exception as exc:  # noqa: BLE001  no more sockets, say: that passes, too
            return Loss(f"{type(exc).__name__}: {quoted(exc)}")
        with self._changed:
            self._session = session
        if self._closing.is_set():
            session.stop()
        try:
            return session.run()
        finally:
            with self._changed:
                self._session = None
                self._connected = False

    def _deliver(self, body: bytes, redelivered: bool) -> float | None:
        """None: it is kept. Else the seconds to wait before the next try."""
        try:
            self._on_message(body, redelivered)
        except Exception as exc:  # noqa: BLE001  whatever it is, the message must not get lost
            said = str(exc) if isinstance(exc, BkTransportError) else quoted(exc)
            self._tell_kept(f"a notification can't be kept: {type(exc).__name__}: {said}")
            pause, self._retry_pause = (
                self._retry_pause,
                min(2 * self._retry_pause, self._longest_pause),
            )
            return pause
        self._useful = True
        self._retry_pause = min(_FIRST_PAUSE, self._longest_pause)
        self._tell_kept(None)
        return None

    def _tell_connected(self) -> None:
        with self._changed:
            self._connected = True
            self._refused = False
            self._error = None
            self._changed.notify_all()
        _LOG.info("notifications: connected to %s", self._where())

    def _tell_kept(self, trouble: str | None) -> None:
        with self._changed:
            news = trouble != self._error
            self._error = trouble
        if trouble is not None:
            _LOG.log(logging.WARNING if news else logging.DEBUG, "%s; trying again", trouble)

    def _tell_loss(self, loss: Loss) -> None:
        verb = "refused by" if loss.refused else "no connection to"
        text = f"notifications: {verb} {self._where()}: {loss.why}"
        with self._changed:
            news = text != self._error
            self._refused = loss.refused
            self._error = text
            self._changed.notify_all()
        _LOG.log(logging.WARNING if news else logging.DEBUG, "%s; trying again", text)

    def _where(self) -> str:
        return f"{self._address.host}:{self._address.port}"
