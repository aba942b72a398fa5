"""The command `upload`: each file is judged, sent, and accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import click

from bkformat import shell
from bkformat.escape import as_utf8, printable
from bkformat.render import describe_trouble
from bktransport.cli_service import Service, ServiceCommand
from bktransport.errors import (
    AuthenticationError,
    BkTransportError,
    OutcomeUnknownError,
    ResponseError,
)

if TYPE_CHECKING:
    from bkformat import Report
    from bktransport.client import Client

__all__ = ["upload"]

_CODES = {
    "stored": 0, "invalid": 1, "refused": 1, "unknown": 2, "unreadable": 2, "not-sent": 2,
}  # fmt: skip
_WHAT_TO_DO = (
    "; ask who runs the service for that digest, or upload it again if a second copy does no harm"
)


class _Sent(NamedTuple):
    """What became of a file; `outcome` is one of `_CODES`."""

    path: str
    outcome: str
    file_id: str | None = None
    sha256: str | None = None
    error: str | None = None
    report: Report | None = None
    end: int = 0
    """Exit code that ends the command here: the next file would fare no better."""


@click.command(cls=ServiceCommand)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--schema", metavar="FILE", help="Schema that each update must fit.")
@click.option("--metadata", metavar="TEXT", help="Sent along; what it means is up to the service.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="json: a line for each FILE.")  # fmt: skip
def upload(
    service: Service, files: tuple[str, ...], schema: str | None, metadata: str | None, form: str
) -> int:
    """Judge updates and send those that are valid.

    Each is stored once, or refused, or its outcome is unknown: then the reply was lost. The state
    folder knows that one by its SHA-256, and it is never sent again on its own.

    Exit codes: 0 all are stored, 1 some are refused, 2 trouble, an unknown outcome included.
    """
    code = 0
    with service.client(schema=schema) as client:
        client.authenticate()
        for sent in _send_all(client, service, files, metadata):
            if form == "json":
                shell.write(_json(sent))
            elif sent.outcome == "stored":
                shell.write(f"{printable(sent.path)}: stored as {sent.file_id}\n")
            if sent.error is not None:
                shell.complain("bktransport", f"{printable(sent.path)}: {sent.error}")
            code = max(code, sent.end or _CODES[sent.outcome])
    return code


def _json(sent: _Sent) -> str:
    told = {
        "path": as_utf8(sent.path), "file_id": sent.file_id, "sha256": sent.sha256,
        "outcome": sent.outcome,
        "error": sent.error if sent.report is None else sent.report.summary(),
        "findings": [] if sent.report is None else [asdict(one) for one in sent.report.findings],
    }  # fmt: skip
    return json.dumps(told) + "\n"


def _send_all(
    client: Client, service: Service, files: tuple[str, ...], metadata: str | None
) -> Iterator[_Sent]:
    end = 0
    for path in files:
        if end:
            yield _Sent(path, "not-sent", error="not sent, because of the above", end=end)
            continue
        sent = _send(client, service, path, metadata)
        yield sent
        end = sent.end


def _send(client: Client, service: Service, path: str, metadata: str | None) -> _Sent:
    from bkformat import InvalidUpdateError, UpdateChangedError, validate_file

    sha256 = None
    try:
        with (
            validate_file(path, schema=client.schema) as update,
            service.bar(f"uploading {printable(path)[-40:]}") as bar,
        ):
            sha256 = update.sha256
            file_id = client.file_upload(update, metadata=metadata, progress=bar)
        return _Sent(path, "stored", file_id, sha256)
    except InvalidUpdateError as exc:
        report = exc.report
        return _Sent(path, "invalid", sha256=report.sha256, error=str(report), report=report)
    except OutcomeUnknownError as exc:
        error = f"{printable(str(exc))} (SHA-256 {sha256}){_WHAT_TO_DO}"
        return _Sent(path, "unknown", sha256=sha256, error=error)
    except ResponseError as exc:
        end = 1 if isinstance(exc, AuthenticationError) else 0
        return _Sent(path, "refused", sha256=sha256, error=printable(str(exc)), end=end)
    except BkTransportError as exc:
        return _Sent(path, "not-sent", sha256=sha256, error=printable(str(exc)), end=2)
    except UpdateChangedError as exc:
        return _Sent(path, "not-sent", sha256=sha256, error=printable(str(exc)))
    except OSError as exc:
        return _Sent(path, "unreadable", sha256=sha256, error=describe_trouble(exc))
