"""The command `sandbox`: a backend until it is told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from bkformat.escape import printable

if TYPE_CHECKING:
    from bktransport.sandbox import Sandbox

__all__ = ["sandbox"]

_PORT = click.IntRange(0, 65535)


class _Trouble(click.ClickException):
    """It can't be started, in one line."""

    exit_code = 2


@click.command()
@click.option("--leaves", type=click.IntRange(1, 1000), default=2, show_default=True, metavar="N",
              help="How many leaves the branch has.")  # fmt: skip
@click.option("--credentials", metavar="DIR",
              help="Write leaf-1.json, leaf-2.json, ... there, for their owner alone.")  # fmt: skip
@click.option("--quorum", type=click.IntRange(min=1), metavar="K",
              help="Leaves that must upload for a round to end  [default: all]")  # fmt: skip
@click.option("--bind", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Any 127.x address.")  # fmt: skip
@click.option("--http-port", type=_PORT, default=0, metavar="PORT",
              help="Of the HTTP side  [default: picked]")  # fmt: skip
@click.option("--amqp-port", type=_PORT, default=0, metavar="PORT",
              help="Of the embedded broker  [default: picked]")  # fmt: skip
@click.option("--amqp-url", envvar="BKTRANSPORT_SANDBOX_AMQP_URL", metavar="URL",
              help="Use a real RabbitMQ on loopback, as its administrator. Better given in the"
                   " environment, as BKTRANSPORT_SANDBOX_AMQP_URL.")  # fmt: skip
@click.option("--management-url", metavar="URL",
              help="Of that RabbitMQ's HTTP API, where it is not at its usual port.")  # fmt: skip
@click.option("--fail", multiple=True, metavar="NAME[:COUNT]",
              help="Rehearse a fault, once or COUNT times: lost-reply, busy, truncate, drop or"
                   " poison. May be repeated.")  # fmt: skip
def sandbox(
    leaves: int, credentials: str | None, quorum: int | None, bind: str, http_port: int,
    amqp_port: int, amqp_url: str | None, management_url: str | None, fail: tuple[str, ...],
) -> int:  # fmt: skip
    """Run a backend on loopback to try the transport on.

    When everything listens, one line of JSON on standard output says where: {"http": URL, "amqp":
    "host:port"}. It runs until Ctrl-C or SIGTERM; everything it was sent is gone then.

    Calls, messages and successful replies are those of the published client branchkey 2.4.2, which
    works against it. Statuses of refusals, when a round ends, what a second upload does and how
    updates become an aggregate (the mean weighted by num_samples) are guesses; the package
    bktransport.sandbox lists them.

    GET /sandbox/state shows uploads, rounds, metrics and the run. POST /sandbox/run takes start,
    stop or pause. Neither asks for credentials: whoever is on this machine may use them.
    """
    import json

    with _ended() as ended:
        running = _start(
            leaves, quorum, bind=bind, http_port=http_port, amqp_port=amqp_port,
            amqp_url=amqp_url, management_url=management_url, fail=fail,
        )  # fmt: skip
        with running:
            if credentials is not None:
                try:
                    running.write_credentials(credentials)
                except OSError as exc:
                    raise _Trouble(f"can't write credentials: {_reason(exc)}") from exc
            click.echo(json.dumps({"http": running.url, "amqp": running.amqp}))
            ended.wait()
    return 0


def _start(leaves: int, quorum: int | None, **options: Any) -> Sandbox:
    try:
        from bktransport.errors import BkTransportError
        from bktransport.sandbox import Sandbox
    except ImportError as exc:
        raise _Trouble(printable(str(exc))) from exc
    try:
        return Sandbox(leaves, quorum, **options)
    except (ValueError, BkTransportError) as exc:
        raise _Trouble(printable(str(exc))) from exc
    except OSError as exc:
        raise _Trouble(f"can't start: {_reason(exc)}") from exc


def _reason(error: OSError) -> str:
    name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return printable(name + (error.strerror or type(error).__name__))


@contextlib.contextmanager
def _ended() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM, which are what they were before in the end."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
