"""The dialect of BranchKey 2.4.2, without any I/O: requests, replies and broker messages.

Calls of the HTTP service, with Basic authentication:

    authenticate  GET  /v1/leaf/authenticate          200 {"data": {"tree_id", "branch_id"}}
    upload        POST /v1/file/upload                201 {"data": {"file_id"}}
                  multipart: `data` (JSON text: leaf_name, metadata) and `file`
    download      GET  /v1/file/download/{file_id}    200 {"data": {"download_url"}}
    metrics       POST /v1/performance/analysis       201, the performance analyser's credentials

The broker: virtual host tree_id, user leaf_id, password session token, queue leaf_id, which the
server declares. Bodies are {"message_type": "aggregation_status", "body": {"aggregation_id"}} and
{"message_type": "run_status", "body": {"run_status"}}.

Source: the published client `branchkey==2.4.2`. Later ones (2.9, 3.x) speak /api/v1 with a Bearer
header, .npz and a WebSocket; such a dialect would stand beside this module.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from bktransport.errors import InvalidMessageError
from bktransport.text import quoted

__all__ = [
    "AUTHENTICATE_PATH",
    "METRICS_PATH",
    "MODES",
    "RUN_STATUSES",
    "UPLOAD_PATH",
    "AggregationReady",
    "Event",
    "RunStatus",
    "RunStatusChanged",
    "Topology",
    "checked_id",
    "download_path",
    "metrics_body",
    "read_authentication",
    "read_download",
    "read_error",
    "read_event",
    "read_upload",
    "upload_fields",
    "write_event",
]

AUTHENTICATE_PATH = "/v1/leaf/authenticate"
UPLOAD_PATH = "/v1/file/upload"
METRICS_PATH = "/v1/performance/analysis"
MODES = ("test", "train", "non-federated")
RunStatus: TypeAlias = Literal["start", "stop", "pause"]
RUN_STATUSES: tuple[RunStatus, ...] = ("start", "stop", "pause")

# What the published client sends, word for word: a text, not JSON.
_METADATA = "{'key1':'value1', 'key2':'value2'}"
# Ids name files and stand in paths of URLs.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Topology(NamedTuple):
    """Where the leaf stands, as the service told at authentication."""

    tree_id: str
    branch_id: str


@dataclass(frozen=True)
class AggregationReady:
    """An aggregate can be downloaded by this id."""

    aggregation_id: str


@dataclass(frozen=True)
class RunStatusChanged:
    """The run was started, stopped or paused."""

    run_status: RunStatus


Event: TypeAlias = AggregationReady | RunStatusChanged


def checked_id(given: object, what: str) -> str:
    """An id that is a plain name: letters, digits, `_`, `-`, `.`, at most 128, no dot in front.

    Raises:
        ValueError: it is not; used on what callers give.
    """
    if isinstance(given, str) and _ID.fullmatch(given):
        return given
    raise ValueError(f"{what} {quoted(given)} is no id: letters, digits, '_', '-' and '.' alone")


def download_path(file_id: str) -> str:
    """Path of the call that gives a download URL."""
    return "/v1/file/download/" + checked_id(file_id, "file_id")


def upload_fields(leaf_name: str, metadata: str | None = None) -> dict[str, str]:
    """Form fields that go before the file."""
    return {"data": json.dumps({"leaf_name": leaf_name, "metadata": metadata or _METADATA})}


def metrics_body(
    topology: Topology, leaf_id: str, aggregation_id: str, data: str, mode: str
) -> bytes:
    """Body of a metrics call.

    Raises:
        ValueError: `mode` is none of "test", "train", "non-federated".
    """
    if mode not in MODES:
        raise ValueError(f"mode {quoted(mode)} is none of {', '.join(MODES)}")
    return json.dumps(
        {
            "mode": mode, "aggregation_id": aggregation_id, "leaf_id": leaf_id,
            "branch_id": topology.branch_id, "tree_id": topology.tree_id, "data": data,
        }
    ).encode()  # fmt: skip


def read_authentication(body: bytes) -> Topology:
    """tree_id and branch_id; these and the next two raise `InvalidMessageError`."""
    data = _data(body, "authentication")
    return Topology(*(_id(data, key, "authentication") for key in Topology._fields))


def read_upload(body: bytes) -> str:
    """file_id of a stored update."""
    return _id(_data(body, "upload"), "file_id", "upload")


def read_download(body: bytes) -> str:
    """The download URL, not yet judged."""
    url = _data(body, "download").get("download_url")
    if not isinstance(url, str) or not url:
        raise InvalidMessageError("the reply to the download has no download_url")
    return url


def read_error(body: bytes) -> str:
    """What the service says of a refusal, as it came; "" where it says nothing readable."""
    try:
        said = _object(body, "")
    except InvalidMessageError:
        return ""
    text = said.get("error", said.get("message", ""))
    return text if isinstance(text, str) else ""


def read_event(body: bytes) -> Event:
    """A message of the broker.

    Raises:
        InvalidMessageError: it is none that the protocol knows.
    """
    message = _object(body, "message")
    kind, content = message.get("message_type"), message.get("body")
    if not isinstance(content, dict):
        raise InvalidMessageError("a message without a body")
    if kind == "aggregation_status":
        return AggregationReady(_id(content, "aggregation_id", kind))
    if kind == "run_status":
        status = content.get("run_status")
        if status not in RUN_STATUSES:
            raise InvalidMessageError(f"run_status is {quoted(status)}")
        return RunStatusChanged(status)
    raise InvalidMessageError(f"a message of type {quoted(kind)}")


def write_event(event: Event) -> bytes:
    """The message that `read_event` reads; a server's side of the protocol."""
    content: dict[str, str]
    if isinstance(event, AggregationReady):
        kind, content = "aggregation_status", {"aggregation_id": event.aggregation_id}
    else:
        kind, content = "run_status", {"run_status": event.run_status}
    return json.dumps({"message_type": kind, "body": content}).encode()


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        # Its text stays out of the message: it may be a signed URL.
        raise InvalidMessageError(f"the {what} is no JSON object ({len(body)} bytes)")
    return value


def _data(body: bytes, what: str) -> dict[str, Any]:
    data = _object(body, f"reply to the {what}").get("data")
    if not isinstance(data, dict):
        raise InvalidMessageError(f"the reply to the {what} has no data")
    return data


def _id(data: dict[str, Any], key: str, what: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        # What stands there instead may be anything, a signed URL too.
        kind = f"text of {len(value)}" if isinstance(value, str) else type(value).__name__
        raise InvalidMessageError(f"{what}: {key} is no id ({kind})")
    return value
