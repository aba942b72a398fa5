"""A real RabbitMQ as the sandbox's broker: set up by its management API, published to by AMQP.

A tree is a virtual host and a leaf a user of it whose queue has its name; the user may read that
queue and nothing else (configure "", write "", read "^LEAF$"). What was made is removed again by
`close()`; what was there before is never touched: a name that is taken is refused.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import secrets
import ssl
import threading
import time
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from bktransport.errors import BrokerError
from bktransport.sandbox.management import Management
from bktransport.text import quoted

__all__ = ["RabbitBroker"]

_LOG = logging.getLogger(__name__)
_PORTS = {"amqp": 5672, "amqps": 5671}
_MANAGEMENT_PORT = 15672
_SECONDS = 10.0  # to connect, and for RabbitMQ to take a message when it is short of memory
_HEARTBEAT = 30  # seconds
# What pika raises where a connection fails; a time-out of its handshake is no AMQPError.
_GONE = (pika.exceptions.AMQPConnectionError, AMQPConnectorException, OSError)
_PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)


class RabbitBroker:
    """Sets up trees and leaves on a RabbitMQ and publishes to them; methods are thread-safe.

    Attributes:
        host: of AMQP, for the leaves' clients.
        port: of AMQP.
    """

    def __init__(
        self, amqp_url: str, *, management_url: str | None = None, cafile: str | None = None
    ) -> None:
        """Connects to the management API.

        Args:
            amqp_url: `amqp://USER:PASSWORD@127.0.0.1:5672/` of an administrator, or amqps://; on
                loopback alone. A path is ignored.
            management_url: of the HTTP API, without credentials; by default on the same host, at
                AMQP's port + 10000, else at 15672.
            cafile: certificate of a private authority, in PEM, for amqps and https.

        Raises:
            ValueError: a URL that is not understood, or not on loopback.
            BrokerError: the API does not answer, or refuses the user.
            OSError: `cafile` can't be read.
        """
        scheme, self.host, port = _address(amqp_url, _PORTS, "the AMQP URL")
        self.port = port or _PORTS[scheme]
        user, password = _login(amqp_url)
        if management_url is not None:
            _address(management_url, {"http": 80, "https": 443}, "the management URL")
            urls = [management_url]
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            ports = dict.fromkeys([self.port + 10000, _MANAGEMENT_PORT])
            urls = [f"http://{host}:{number}" for number in ports if number < 1 << 16]
        self._user = user
        self._credentials = pika.PlainCredentials(user, password)
        self._ssl = _ssl_options(self.host, cafile) if scheme == "amqps" else None
        self._lock = threading.RLock()
        self._channels: dict[str, Any] = {}  # by tree, each on a connection of its own
        self._leaves: dict[str, list[str]] = {}  # by tree: what close() removes
        self._management = Management(urls, user, password, cafile)

    def add_leaf(self, tree_id: str, leaf_id: str, password: str) -> None:
        """Makes a leaf's user and durable queue, and the virtual host of its tree.

        Raises:
            BrokerError: a user or virtual host of this name is there and not made here.
        """
        with self._lock:
            if tree_id not in self._leaves:
                self._add_tree(tree_id)
            call = self._management.call
            if self._management.exists("users", leaf_id):
                raise BrokerError(
                    f"RabbitMQ has a user {quoted(leaf_id)} already: remove it with "
                    f"`rabbitmqctl delete_user` if an earlier sandbox left it"
                )
            self._leaves[tree_id].append(leaf_id)
            call("PUT", "users", leaf_id, body={"password": password, "tags": ""})
            call("PUT", "queues", tree_id, leaf_id, body={"durable": True, "auto_delete": False})
            own = {"configure": "", "write": "", "read": f"^{re.escape(leaf_id)}$"}
            call("PUT", "permissions", tree_id, leaf_id, body=own)

    def _add_tree(self, tree_id: str) -> None:
        if self._management.exists("vhosts", tree_id):
            raise BrokerError(
                f"RabbitMQ has a virtual host {quoted(tree_id)} already: remove it with "
                f"`rabbitmqctl delete_vhost` if an earlier sandbox left it"
            )
        self._leaves[tree_id] = []
        self._management.call("PUT", "vhosts", tree_id, body={})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._management.call("PUT", "permissions", tree_id, self._user, body=everything)

    def publish(self, tree_id: str, leaf_id: str, body: bytes) -> None:
        """Puts a message into a leaf's queue; on disk there when this returns.

        Where the connection went away it is made anew, once. If it went between the message and its
        confirmation, the message may be there twice.

        Raises:
            BrokerError: no such leaf, or RabbitMQ did not confirm.
        """
        with self._lock:
            for last in (False, True):
                trouble = self._try_to_publish(tree_id, leaf_id, body)
                if trouble is None:
                    return
                self._drop_channel(tree_id)
                if last or not isinstance(trouble, _GONE):
                    raise BrokerError(
                        f"RabbitMQ at {self.host}:{self.port} did not take a message for "
                        f"{quoted(leaf_id)}: {_said(trouble)}"
                    )

    def _try_to_publish(self, tree_id: str, leaf_id: str, body: bytes) -> Exception | None:
        # Returned, not raised: pika's errors must not become the context of ours.
        try:
            channel = self._channels.get(tree_id) or self._open_channel(tree_id)
            channel.basic_publish("", leaf_id, body, _PERSISTENT, mandatory=True)
        except (pika.exceptions.AMQPError, *_GONE) as exc:
            return exc
        return None

    def _open_channel(self, tree_id: str) -> Any:
        if tree_id not in self._leaves:
            raise BrokerError(f"no leaf was added to the tree {quoted(tree_id)}")
        parameters = self._parameters(tree_id, self._credentials)
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        self._channels[tree_id] = channel
        return channel

    def _parameters(self, tree_id: str, credentials: Any) -> Any:
        return pika.ConnectionParameters(
            self.host,
            self.port,
            tree_id,
            credentials,
            # Bounds the wait for a confirmation. Between messages nothing ticks, so that RabbitMQ
            # closes a connection that rests: publish() makes a new one.
            heartbeat=_HEARTBEAT,
            ssl_options=self._ssl,
            socket_timeout=_SECONDS,
            stack_timeout=_SECONDS,
            blocked_connection_timeout=_SECONDS,
        )

    def _drop_channel(self, tree_id: str) -> None:
        channel = self._channels.pop(tree_id, None)
        if channel is not None:
            with contextlib.suppress(pika.exceptions.AMQPError, *_GONE):
                channel.connection.close()

    def depth(self, tree_id: str, leaf_id: str) -> tuple[int, int]:
        """Messages (ready, unacknowledged) of a leaf's queue, exact: the queue is asked.

        Raises:
            BrokerError: no such queue, or no reply.
        """
        with self._lock:
            return self._management.depth(tree_id, leaf_id)

    def close_connections(self) -> int:
        """Closes every connection of a leaf by force; how many there were.

        Those are meant that opened a channel before the call.

        Raises:
            BrokerError: no reply, or not within 10 s.
        """
        with self._lock:
            if not self._leaves:
                return 0
            self._wait_for_tracking()
            leaves = [leaf for tree in self._leaves.values() for leaf in tree]
            return sum(self._management.close_connections(leaf) for leaf in leaves)

    def _wait_for_tracking(self) -> None:
        """Waits until RabbitMQ's table of connections holds all that were opened by now.

        They get there one after the other, shortly after their clients hear of it: once a
        connection of a user of our own is in the table, so are the earlier ones.
        """
        tree_id = next(iter(self._leaves))
        call = self._management.call
        user, password = f"sandbox-{secrets.token_hex(8)}", secrets.token_urlsafe()
        call("PUT", "users", user, body={"password": password, "tags": ""})
        nothing = {"configure": "", "write": "", "read": ""}
        call("PUT", "permissions", tree_id, user, body=nothing)
        try:
            trouble = self._mark(tree_id, user, password)
        finally:
            call("DELETE", "users", user)
        if trouble is not None:
            raise BrokerError(
                f"RabbitMQ at {self.host}:{self.port} does not tell its connections: {trouble}"
            )

    def _mark(self, tree_id: str, user: str, password: str) -> str | None:
        try:
            marker = pika.BlockingConnection(
                self._parameters(tree_id, pika.PlainCredentials(user, password))
            )
        except (pika.exceptions.AMQPError, *_GONE) as exc:
            return _said(exc)
        try:
            deadline = time.monotonic() + _SECONDS
            while not self._management.connections(user):
                if time.monotonic() > deadline:
                    return "not within 10 s"
                time.sleep(0.002)
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError, *_GONE):
                marker.close()
        return None

    def close(self) -> None:
        """Removes the virtual hosts and users that were made, and disconnects.

        Raises:
            BrokerError: something could not be removed; the rest is.
        """
        with self._lock:
            for tree_id in list(self._channels):
                self._drop_channel(tree_id)
            made = [("vhosts", tree) for tree in self._leaves]
            made += [("users", leaf) for leaves in self._leaves.values() for leaf in leaves]
            troubles = [trouble for path in made if (trouble := self._remove(*path))]
            self._leaves = {}
            self._management.close()
            if troubles:
                raise BrokerError(f"RabbitMQ keeps what the sandbox made: {troubles[0]}")

    def _remove(self, *path: str) -> str | None:
        try:
            self._management.call("DELETE", *path, expected=(204, 404))
        except BrokerError as exc:
            return str(exc)
        return None

    def __enter__(self) -> RabbitBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BrokerError as exc:
            if error is None:
                raise
            _LOG.warning("%s", exc)  # what went wrong first is what matters


def _address(url: str, schemes: dict[str, int], what: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; the texts of the errors hold nothing of the URL but its host."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in schemes or not host or parts.query or parts.fragment:
        wanted = " or ".join(f"{name}://HOST:PORT" for name in schemes)
        raise ValueError(f"{what} must be {wanted}, without query or fragment")
    if not _is_loopback(host):
        raise ValueError(f"{what} must be on loopback (127.0.0.1), not {quoted(host)}")
    return scheme, host, port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _login(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if not parts.username or parts.password is None:
        raise ValueError("the AMQP URL must name an administrator: amqp://USER:PASSWORD@HOST:PORT/")
    return unquote(parts.username), unquote(parts.password)


def _ssl_options(host: str, cafile: str | None) -> Any:
    return pika.SSLOptions(ssl.create_default_context(cafile=cafile), host)


def _said(error: Exception) -> str:
    """What pika reports, in a few words: the class, and the reply of the broker if there is one."""
    code, text = getattr(error, "reply_code", None), getattr(error, "reply_text", "")
    return type(error).__name__ + ("" if code is None else f" {code} {quoted(text)}")
