"""One connection to the broker, from dialling to its end, on pika's own event loop.

    dial ─> TLS ─> login ─> channel ─> prefetch 1 ─> consume ─> deliver, keep, acknowledge ...

Nothing here waits but the loop: `stop` ends it from another thread at any stage, in a black hole
too, and a channel that the broker closes is noticed when its frame arrives. pika's blocking
connection can do neither: it can't be interrupted while it dials or says goodbye, and it leaves a
closed channel for the next call to find out.

No exception of pika leaves this module, and none is kept: those of a login hold what was sent.
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import pika
import pika.exceptions
from pika.adapters.utils import connection_workflow
from pydantic import SecretStr

from bktransport.text import quoted

__all__ = ["BrokerAddress", "Loss", "Session", "quiet_pika"]

# Reply codes that mean "no", not "not now": access refused, no queue, in use, no virtual host.
_REFUSALS = (403, 404, 405, 530)
_GOODBYE = 1.0  # seconds that the broker has to answer a close
_CONNECT = 15.0  # seconds from dialling to the first delivery being possible
_BLOCKED = 60.0  # seconds that the broker may keep the connection blocked


@dataclass(frozen=True)
class BrokerAddress:
    """Where the notifications of a leaf come from.

    Attributes:
        host: name or address of the broker.
        port: its port.
        virtual_host: the tree's id.
        user: the leaf's id.
        password: the session token.
        queue: the leaf's id.
    """

    host: str
    port: int
    virtual_host: str
    user: str
    password: SecretStr
    queue: str

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """A pickle would hold the password in the clear."""
        raise TypeError("BrokerAddress can't be pickled: the password would lie in the open")


class Loss(NamedTuple):
    """Why a connection ended, fit for a message; and whether the broker said no."""

    why: str
    refused: bool = False


class Session:
    """One connection.

    Args:
        address: of the broker.
        deliver: keeps a message (body, redelivered); gives None once it is safe, or the seconds
            after which to try again. Short: heartbeats wait for it. Must not raise.
        ready: called when deliveries can come.
        ssl_context: speak TLS; None: plain.
        heartbeat: seconds.
    """

    def __init__(
        self,
        address: BrokerAddress,
        deliver: Callable[[bytes, bool], float | None],
        ready: Callable[[], None],
        *,
        ssl_context: ssl.SSLContext | None = None,
        heartbeat: int = 30,
    ) -> None:
        self._address = address
        self._deliver = deliver
        self._ready = ready
        self._loss: Loss | None = None
        self._is_ready = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # the loop must not be woken once it is closed
        self._connection = pika.SelectConnection(
            self._parameters(address, ssl_context, heartbeat),
            on_open_callback=self._opened,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
        )
        self._loop: Any = self._connection.ioloop

    def run(self) -> Loss:
        """Serve until the connection ends; why it did."""
        self._loop.call_later(_CONNECT, self._check_ready)
        try:
            self._loop.start()
        except Exception as exc:  # noqa: BLE001  a stranger's bytes must not end notifications
            self._loss = self._loss or Loss(f"{type(exc).__name__} in the AMQP library")
            with contextlib.suppress(Exception):
                self._abort()
                self._loop.process_timeouts()
        with self._lock:
            loop, self._loop = self._loop, None
            loop.close()
        return self._loss or Loss("closed")

    def stop(self) -> None:
        """End the connection soon; from any thread, at any stage, more than once."""
        self._stopping.set()
        with self._lock:
            if self._loop is not None:
                self._loop.add_callback_threadsafe(self._say_goodbye)

    @staticmethod
    def _parameters(
        address: BrokerAddress, ssl_context: ssl.SSLContext | None, heartbeat: int
    ) -> pika.ConnectionParameters:
        return pika.ConnectionParameters(
            host=address.host,
            port=address.port,
            virtual_host=address.virtual_host,
            credentials=pika.PlainCredentials(address.user, address.password.get_secret_value()),
            heartbeat=heartbeat,
            socket_timeout=_CONNECT,
            stack_timeout=_CONNECT,
            blocked_connection_timeout=_BLOCKED,
            ssl_options=pika.SSLOptions(ssl_context, address.host) if ssl_context else None,
            client_properties={"connection_name": f"bktransport {address.user}"},
        )

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=1, callback=lambda _: self._consume(channel))

    def _consume(self, channel: Any) -> None:
        channel.basic_consume(self._address.queue, self._received, callback=self._consuming)

    def _consuming(self, _: Any) -> None:
        self._is_ready = True
        if not self._stopping.is_set():
            self._ready()

    def _received(self, channel: Any, method: Any, _: Any, body: bytes) -> None:
        # After `stop` nothing may be kept: the state folder may be somebody else's by then.
        # A channel that closed meanwhile takes no acknowledgement; the broker tells it again.
        if self._stopping.is_set() or not channel.is_open:
            return
        pause = self._deliver(body, bool(method.redelivered))
        if pause is None:
            channel.basic_ack(method.delivery_tag)
        else:
            # Held rather than given back: brokers count deliveries and drop what comes too often.
            self._loop.call_later(pause, lambda: self._received(channel, method, None, body))

    def _channel_closed(self, _: Any, error: Any) -> None:
        if self._loss is None and isinstance(error, pika.exceptions.ChannelClosedByBroker):
            self._loss = self._closed_by_broker("the channel", error)
        self._say_goodbye()

    def _cancelled(self, _: Any) -> None:
        self._loss = self._loss or Loss("the broker ended the consumer: the queue is gone")
        self._say_goodbye()

    def _ended(self, _: Any, error: Any) -> None:
        self._loss = self._loss or self._loss_of(error)
        self._loop.stop()

    def _check_ready(self) -> None:
        if not self._is_ready:
            self._loss = self._loss or Loss(f"no answer within {_CONNECT:g} s")
            self._abort()

    def _say_goodbye(self) -> None:
        """Close politely, but not for long."""
        connection = self._connection
        if connection.is_open or not (connection.is_closing or connection.is_closed):
            connection.close()
            self._loop.call_later(_GOODBYE, self._abort)

    def _abort(self) -> None:
        """Drop the socket without another word; `_ended` is called next."""
        if not self._connection.is_closed:
            # pika has no public way to end a connection that is closing already.
            self._connection._terminate_stream(
                pika.exceptions.StreamLostError("the broker does not answer")
            )

    def _closed_by_broker(self, what: str, error: Any) -> Loss:
        return Loss(
            f"the broker closed {what} ({error.reply_code}, {self._shown(error.reply_text)})",
            refused=error.reply_code in _REFUSALS,
        )

    def _loss_of(self, error: Any) -> Loss:
        """What pika's exception means. Its innermost cause says most."""
        while True:
            if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
                error = error.exceptions[-1]
            elif isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
                error = error.exception
            elif (
                type(error) is pika.exceptions.AMQPConnectionError
                and error.args
                and isinstance(error.args[0], Exception)
            ):
                error = error.args[0]
            else:
                break
        if isinstance(error, pika.exceptions.ConnectionClosedByBroker):
            return self._closed_by_broker("the connection", error)
        for kind, what in _HANDSHAKE.items():
            if isinstance(error, kind):
                # pika keeps the repr alone; it tells a refusal from a loss at a bad moment.
                said = re.match(r"ConnectionClosedByBroker: \((\d+)\) (.*)", str(error), re.DOTALL)
                if said is not None:
                    return Loss(f"{what} ({said[1]}, {self._shown(said[2])[1:-1]})", refused=True)
                return Loss(f"{what}: {self._shown(error)}", refused=kind is _NO_MECHANISM)
        if type(error) in (ssl.SSLError, ssl.SSLCertVerificationError):  # others: cut off
            why = getattr(error, "verify_message", None) or error.reason or error
            if why == "WRONG_VERSION_NUMBER":
                return Loss("no TLS at this port", refused=True)
            return Loss(f"TLS: {self._shown(why)}", refused=True)
        return Loss(f"{type(error).__name__}: {self._shown(error)}")

    def _shown(self, text: object) -> str:
        # A broker knows the password by now and could say it back.
        return quoted(str(text).replace(self._address.password.get_secret_value(), "***"))


_NO_MECHANISM = pika.exceptions.AuthenticationError
_HANDSHAKE = {
    _NO_MECHANISM: "no way to log in",
    pika.exceptions.ProbableAuthenticationError: "login",
    pika.exceptions.ProbableAccessDeniedError: "virtual host",
    pika.exceptions.IncompatibleProtocolError: "no AMQP 0-9-1 here; does it want TLS?",
}


class _Quiet(logging.Filter):
    """Keeps pika silent on our own threads, unless somebody gave its loggers a level.

    It logs every loss several times as an error, often with a traceback; we say it once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.thread in self.threads or (self.threads and record.name == _RESOLVER)
        return (
            not ours
            or logging.getLogger("pika").level != logging.NOTSET
            or logging.getLogger(record.name).level != logging.NOTSET
        )


_RESOLVER = "pika.adapters.utils.selector_ioloop_adapter"  # looks names up on threads of its own
_quiet = _Quiet()
for _name in list(logging.root.manager.loggerDict):
    if _name == "pika" or _name.startswith("pika."):
        logging.getLogger(_name).addFilter(_quiet)


@contextlib.contextmanager
def quiet_pika() -> Iterator[None]:
    """While this runs, pika logs nothing of the calling thread."""
    thread = threading.get_ident()
    _quiet.threads.add(thread)
    try:
        yield
    finally:
        _quiet.threads.discard(thread)
