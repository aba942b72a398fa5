"""The command `watch`: what the broker tells, a line for each event."""

from __future__ import annotations

import json
import logging
import queue
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from bkformat import shell
from bkformat.escape import as_utf8, printable
from bktransport.cli_service import Service, ServiceCommand, download_options
from bktransport.errors import (
    InvalidAggregateError,
    InvalidMessageError,
    NoResponseError,
    ResponseError,
)

if TYPE_CHECKING:
    from bktransport.client import Client

__all__ = ["watch"]

_LOOK = 0.25  # seconds between two looks at the run and the broker
_INTERRUPTED = 130


@click.command(cls=ServiceCommand, broker=True)
@click.option("--download", is_flag=True,
              help="Download each aggregate into the output folder.")  # fmt: skip
@click.option("-o", "--output", metavar="DIR", default="aggregated_output", show_default=True,
              help="The output folder.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), metavar="N",
              help="End after N aggregations.")  # fmt: skip
@click.option("--idle", type=click.FloatRange(min=0, min_open=True), metavar="S",
              help="End after S seconds without an event.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="json: an object on each line.")  # fmt: skip
@download_options
def watch(
    service: Service, download: bool, output: str, count: int | None, idle: float | None,
    form: str, schema: str | None, max_size: int | None, download_hosts: tuple[str, ...],
) -> int:  # fmt: skip
    """Print events as they come: aggregates that can be downloaded, and the run.

    The run's status is told at the start and when it changes. An aggregation is done once its line
    is printed, with --download once it is downloaded; until then it is told again at the next
    start. A leaf can be watched once at a time.

    It goes on until it is interrupted: Ctrl-C ends it with 130, SIGTERM with 143.

    Exit codes: 0 after --count or --idle, 1 an aggregate was refused, 2 trouble, also if --idle
    came before --count or while the broker could not be reached.
    """
    if not service.is_verbose:  # losses are told below, once each
        logging.getLogger("bktransport").setLevel(logging.ERROR)
    try:
        with service.aggregates(
            schema, max_size, download_hosts, output=output, notifications=True
        ) as client:
            client.authenticate()
            return _Watch(client, service, form, download).follow(count, idle)
    except KeyboardInterrupt:
        return _INTERRUPTED


class _Watch:
    """Tells events until there were enough.

    Args:
        client: authenticated, with notifications.
        service: gives the progress bar.
        form: "text" or "json".
        download: whether aggregates are downloaded.
    """

    def __init__(self, client: Client, service: Service, form: str, download: bool) -> None:
        self._client = client
        self._service = service
        self._form = form
        self._download = download
        self._run: str | None = None
        self._is_cut_off = False
        self._code = 0

    def follow(self, count: int | None, idle: float | None) -> int:
        """The exit code, once there were `count` aggregations or `idle` seconds without event."""
        told, last = 0, time.monotonic()
        while count is None or told < count:
            if self._look():
                last = time.monotonic()
            try:
                aggregation_id = self._client.queue.get(timeout=_LOOK)
            except queue.Empty:
                if idle is None or time.monotonic() - last < idle:
                    continue
                if count is None and not self._is_cut_off:
                    break
                seen = f"{told}" if count is None else f"{told} of {count}"
                _complain(f"no event for {idle:g} s, after {seen} aggregations")
                return 2
            self._tell(
                f"aggregation {aggregation_id}", "aggregation", aggregation_id=aggregation_id
            )
            self._finish(aggregation_id)
            told, last = told + 1, time.monotonic()
        return self._code

    def _look(self) -> bool:
        """Tell what changed of the run and the broker; whether the run did."""
        error, status = self._client.broker_error, self._client.run_status
        if (error is not None) != self._is_cut_off:
            self._is_cut_off = error is not None
            said = printable(str(error)) if error else "notifications come again"
            _complain(f"{said}; trying again" if error else said)
        if status == self._run:
            return False
        self._run = status
        self._tell(f"run {status}", "run", run_status=status)
        return True

    def _finish(self, aggregation_id: str) -> None:
        """Download it if wanted, and have it never told again."""
        if not self._download:
            self._client.queue.task_done(aggregation_id)
            return
        try:
            with self._service.bar(f"downloading {aggregation_id[:12]}") as bar:
                path = self._client.file_download(aggregation_id, progress=bar)
        except (ResponseError, NoResponseError, InvalidMessageError) as exc:
            report = exc.report if isinstance(exc, InvalidAggregateError) else None
            said = str(report) if report is not None else printable(str(exc))
            _complain(f"{aggregation_id}: not downloaded, and not done: {said}")
            self._code = max(self._code, 1 if isinstance(exc, ResponseError) else 2)
            return
        self._tell(
            f"downloaded {printable(str(path))}", "downloaded",
            aggregation_id=aggregation_id, path=as_utf8(str(path)),
        )  # fmt: skip

    def _tell(self, text: str, event: str, **fields: str) -> None:
        """Printed and flushed when this returns."""
        if self._form == "json":
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            text = json.dumps({"event": event, **fields, "time": now})
        shell.write(f"{text}\n")


def _complain(message: str) -> None:
    shell.complain("bktransport", message)
