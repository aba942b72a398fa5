"""The sandbox as a whole: broker, state, HTTP side and the thread that aggregates."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bktransport.messages import RunStatus, Topology
from bktransport.sandbox import credential_files
from bktransport.sandbox.accounts import Accounts
from bktransport.sandbox.announcer import Announcer, Broker
from bktransport.sandbox.faults import Faults
from bktransport.sandbox.listener import Listener
from bktransport.sandbox.service import RefusedError, Service
from bktransport.sandbox.signing import Signer
from bktransport.sandbox.web import Application
from bktransport.text import quoted

__all__ = ["Sandbox"]

_MOST_LEAVES = 1000
_PATIENCE = 1.0
"""Seconds that threads are given to end."""


class Sandbox:
    """A backend in this process, until it is closed; use it in a `with` statement.

    What it does is told by the package; much of it is a guess.

    Args:
        leaves: how many there are, 1 to 1000; each has random credentials.
        quorum: leaves that must have uploaded for a round to end; None means all.
        bind: an address in 127.0.0.0/8.
        http_port: 0 picks one.
        amqp_port: of the embedded broker; 0 picks one.
        amqp_url: of an administrator at a real RabbitMQ on loopback, in place of that.
        management_url: of the RabbitMQ's HTTP API, where it is not found from `amqp_url`.
        broker: one that is there already, in place of both; it is closed with the sandbox.
        fail: faults for rehearsal, such as "busy" or "busy:3".
        folder: where files are kept, in a folder of their own that is removed in the end; None
            means the system's place for temporary files.
        ssl_context: serve HTTPS with it.
        url_lifetime: seconds that a download URL is good for.
        max_upload_nbytes: bytes of the largest update; a larger one gets 413.

    Attributes:
        url: of the HTTP side.
        amqp: "host:port" of the broker.
        broker: the broker, to look into and to trouble.

    Raises:
        ValueError: an argument is out of range.
        OSError: a port is taken, `bind` is not this machine's, or `folder` can't be written.
        BrokerError: the RabbitMQ of `amqp_url` does not answer, or refuses.
    """

    def __init__(
        self,
        leaves: int = 2,
        quorum: int | None = None,
        *,
        bind: str = "127.0.0.1",
        http_port: int = 0,
        amqp_port: int = 0,
        amqp_url: str | None = None,
        management_url: str | None = None,
        broker: Broker | None = None,
        fail: Sequence[str] = (),
        folder: str | os.PathLike[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        url_lifetime: float = 300.0,
        max_upload_nbytes: int = 16 << 30,
    ) -> None:
        quorum = _checked(leaves, quorum, bind, (http_port, amqp_port))
        faults = Faults(fail)
        self._closing = threading.Lock()
        with contextlib.ExitStack() as stack:
            place = _folder(stack, folder)
            self.broker: Broker = broker or _broker(bind, amqp_port, amqp_url, management_url)
            stack.callback(self.broker.close)
            self.amqp = f"{self.broker.host}:{self.broker.port}"
            self._accounts = _accounts(leaves, self.broker)
            self._service = Service(place, self._accounts, quorum, max_upload_nbytes)
            self._announcer = Announcer(self._service, self.broker, faults)
            stack.callback(self._announcer.close, _PATIENCE)
            listener = Listener((bind, http_port), ssl_context)
            stack.callback(listener.close, _PATIENCE)
            self.url = f"{'https' if ssl_context else 'http'}://{bind}:{listener.port}"
            listener.start(self._application(Signer(url_lifetime), faults))
            self._stack = stack.pop_all()

    def _application(self, signer: Signer, faults: Faults) -> Application:
        announcer = self._announcer
        return Application(
            self._service, signer, faults, self.url, announcer.add, announcer.tell_run
        )

    def __repr__(self) -> str:
        return f"<Sandbox {self.url} amqp={self.amqp} leaves={len(self._accounts.leaves)}>"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def credentials(self) -> list[dict[str, Any]]:
        """What each leaf is given: its credentials as the service hands them out, and `host`."""
        return self._accounts.credentials(self.url, self.broker.host, self.broker.port)

    @property
    def topology(self) -> Topology:
        """The tree and the branch, as authentication tells them."""
        return self._accounts.topology

    def state(self) -> dict[str, Any]:
        """Uploads, rounds, metrics and the run, as `GET /sandbox/state` has them; no secrets."""
        return self._service.state()

    def set_run(self, status: RunStatus) -> None:
        """Start, stop or pause the run, and tell every leaf.

        Raises:
            ValueError: another status.
        """
        try:
            known = self._service.set_run(status)
        except RefusedError as exc:
            raise ValueError(str(exc)) from None
        self._announcer.tell_run(known)

    def write_credentials(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write leaf-1.json and so on, mode 600, into a folder, which is made if need be.

        Raises:
            OSError: the folder can't be made or written.
        """
        return credential_files.write_credentials(folder, self.credentials)

    def close(self) -> None:
        """End all threads and connections and remove the files; may be called again."""
        with self._closing:
            self._stack.close()


def _checked(leaves: int, quorum: int | None, bind: str, ports: Sequence[int]) -> int:
    """The quorum, where everything is in range."""
    if not 1 <= leaves <= _MOST_LEAVES:
        raise ValueError(f"leaves is {leaves}, not 1 to {_MOST_LEAVES}")
    if quorum is not None and not 1 <= quorum <= leaves:
        raise ValueError(
            f"quorum is {quorum}, not 1 to {leaves}, which is how many leaves there are"
        )
    for port in ports:
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not 0 to 65535")
    try:
        loopback = ipaddress.IPv4Address(bind).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"bind is {quoted(bind)}, no address on loopback such as '127.0.0.1'")
    return leaves if quorum is None else quorum


def _folder(stack: contextlib.ExitStack, parent: str | os.PathLike[str] | None) -> Path:
    """A folder that the stack removes, but for what a thread that would not end still writes."""
    made = tempfile.TemporaryDirectory(
        prefix="bktransport-sandbox-", dir=parent, ignore_cleanup_errors=True
    )
    stack.callback(made.cleanup)
    return Path(made.name)


def _accounts(leaves: int, broker: Broker) -> Accounts:
    """New ones, known to the broker."""
    accounts = Accounts(leaves)
    for leaf in accounts.leaves:
        token = leaf.token.get_secret_value()
        broker.add_leaf(accounts.topology.tree_id, leaf.leaf_id, token)
    return accounts


def _broker(bind: str, port: int, amqp_url: str | None, management_url: str | None) -> Broker:
    if amqp_url is None:
        from bktransport.sandbox.broker import EmbeddedBroker

        return EmbeddedBroker(bind=bind, port=port)
    from bktransport.sandbox.rabbitmq import RabbitBroker

    return RabbitBroker(amqp_url, management_url=management_url)
