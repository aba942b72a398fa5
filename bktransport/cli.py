"""The command line: options to a client, one call, a line or two, an exit code.

0: done. 1: refused, by us or by the service. 2: trouble, an unknown outcome included.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import click

from bkformat import shell
from bkformat.escape import printable
from bktransport.cli_sandbox import sandbox
from bktransport.cli_service import Service, ServiceCommand, download_options
from bktransport.cli_upload import upload
from bktransport.cli_watch import watch
from bktransport.errors import (
    BkTransportError,
    BrokerError,
    InvalidAggregateError,
    ResponseError,
)
from bktransport.messages import MODES

if TYPE_CHECKING:
    from bktransport.amqp import Loss
    from bktransport.messages import Topology

__all__ = ["main"]

_MAX_METRICS_NBYTES = 1 << 20


@click.group(cls=shell.Commands, context_settings=shell.SETTINGS)
@shell.version_option("bktransport")
def cli() -> None:
    """Send validated updates to BranchKey, and receive aggregates.

    Try `bktransport demo` first: it needs no account.

    Exit codes: 0 done, 1 refused, 2 trouble.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script's entry point."""
    shell.run(cli, "bktransport", arguments, _explained)


def _explained(error: Exception) -> click.ClickException | None:
    """How our own errors are told."""
    text = printable(str(error))
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error, InvalidAggregateError) and error.report is not None:
        return shell.Refused(f"the aggregate is refused, nothing was kept: {error.report}")
    if isinstance(error, ResponseError | BrokerError):
        return shell.Refused(text)
    if isinstance(error, BkTransportError | ValueError):
        return click.ClickException(text)
    return None


def _missing(error: ImportError) -> click.ClickException | None:
    """A library of an extra that is not installed; the sandbox says so itself."""
    name = error.name or ""
    if name.partition(".")[0] in ("", "bktransport", "bkformat"):
        return None
    if not isinstance(error, ModuleNotFoundError):
        return click.ClickException(printable(str(error)))
    return click.ClickException(f"{name} is not installed; pip install 'bkformat[sandbox]'")


# --- demo ------------------------------------------------------------------------------------


@cli.command()
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, metavar="N",
              help="How often updates become an aggregate.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Of the data that the leaves train on.")  # fmt: skip
def demo(rounds: int, seed: int) -> None:
    """Show the whole loop: two leaves train a tiny model together.

    It needs no account and nothing else running: the service is a sandbox inside of this process,
    on loopback. Nothing is left behind. Its code, bktransport/demo.py, is an example of the API.
    """
    from bktransport import demo as example

    try:
        for line in example.lines(rounds, seed):
            shell.write(f"{line}\n")
    except BkTransportError as exc:  # a refusal too: there is nothing to refuse
        raise click.ClickException(printable(str(exc))) from exc


# --- login -----------------------------------------------------------------------------------


@cli.command(cls=ServiceCommand, broker=True)
def login(service: Service) -> int:
    """Check the credentials, at the service and at the broker.

    Says which leaf they are for and where it stands. Nothing is received, so that a `watch` of the
    same leaf is not disturbed.
    """
    with service.client() as client:
        client.authenticate()
        given, place = service.credentials, client.topology
    shell.write(
        [f"leaf    {printable(given.leaf_name)} ({given.leaf_id})\n",
         f"tree    {place.tree_id}\n", f"branch  {place.branch_id}\n"]
    )  # fmt: skip
    loss, broker = _dialled(service, place), f"{given.response_host}:{given.port}"
    if loss is None:
        shell.write(f"broker  {broker}, notifications can be received\n")
        return 0
    verb = "refuses" if loss.refused else "can't be reached"
    shell.complain("bktransport", f"the broker {broker} {verb}: {printable(loss.why)}")
    return 1 if loss.refused else 2


def _dialled(service: Service, place: Topology) -> Loss | None:
    """Why notifications can't be received, or None; no message is taken."""
    from bktransport.amqp import BrokerAddress, Session, quiet_pika
    from bktransport.tls import broker_context

    given = service.credentials
    address = BrokerAddress(
        host=given.response_host, port=given.port, virtual_host=place.tree_id,
        user=given.leaf_id, password=given.leaf_session_token, queue=given.leaf_id,
    )  # fmt: skip
    reached = []

    def ready() -> None:
        reached.append(True)
        session.stop()

    context = broker_context(service.broker_tls)
    with quiet_pika():
        session = Session(address, lambda *_: 3600.0, ready, ssl_context=context)
        loss = session.run()
    return None if reached else loss


# --- upload, download, watch, metrics, sandbox -------------------------------------------------

cli.add_command(upload)


@cli.command(cls=ServiceCommand)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="json: a line for each upload.")  # fmt: skip
def uploads(service: Service, form: str) -> None:
    """List the uploads that the state folder knows, and how each ended.

    Nothing is asked of the service. An upload that is unknown may be stored or not: its reply was
    lost, or the process ended first.
    """
    with service.client() as client:
        records = client.uploads()
    if form == "json":
        shell.write(f"{json.dumps(asdict(record), default=str)}\n" for record in records)
        return
    for record in records:
        began = record.began.isoformat(timespec="seconds").replace("+00:00", "Z")
        told = record.file_id or record.detail or ""
        shell.write(f"{began}  {record.state:<8}{record.sha256}  {printable(told)}\n")


@cli.command(cls=ServiceCommand)
@click.argument("aggregation_id", metavar="ID")
@click.option("-o", "--output", metavar="FILE",
              help="Where to  [default: aggregated_output/ID.npy]")  # fmt: skip
@download_options
def download(
    service: Service, aggregation_id: str, output: str | None, schema: str | None,
    max_size: int | None, download_hosts: tuple[str, ...],
) -> None:  # fmt: skip
    """Download the aggregate ID, judge it and print its path.

    What is no valid aggregate is not kept. A file that is there stays until all is well.
    """
    with service.aggregates(schema, max_size, download_hosts) as client:
        client.authenticate()
        with service.bar(f"downloading {aggregation_id[:12]}") as bar:
            path = client.file_download(aggregation_id, path=output, progress=bar)
    shell.write(f"{printable(str(path))}\n")


cli.add_command(watch)


@cli.command(cls=ServiceCommand)
@click.argument("aggregation_id", metavar="ID")
@click.argument("file", type=click.File("rb", lazy=True), metavar="FILE")
@click.option("--mode", type=click.Choice(MODES), required=True, help="What was measured.")
def metrics(service: Service, aggregation_id: str, file: IO[bytes], mode: str) -> None:
    """Report how well the aggregate ID does here.

    FILE holds the metrics as JSON; - is standard input.
    """
    text = _json_text(file.read(_MAX_METRICS_NBYTES + 1), printable(str(file.name)))
    with service.client() as client:
        client.authenticate()
        client.send_performance_metrics(aggregation_id, text, mode)
    shell.write(f"{printable(aggregation_id)}: metrics sent\n")


def _json_text(data: bytes, name: str) -> str:
    def no_json(text: str) -> None:
        raise ValueError(f"{text} is no JSON")

    if len(data) > _MAX_METRICS_NBYTES:
        raise click.ClickException(f"{name}: larger than {_MAX_METRICS_NBYTES} bytes")
    try:
        text = data.decode()
        json.loads(text, parse_constant=no_json)
    except (ValueError, RecursionError) as exc:
        why = printable(str(exc)) if isinstance(exc, ValueError) else "nested too deeply"
        raise click.ClickException(f"{name}: no JSON: {why[:80]}") from exc
    return text.strip()


cli.add_command(sandbox)
