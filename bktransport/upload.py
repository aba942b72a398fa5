"""The one way an update leaves: a proof, streamed from the file that was judged.

The body is multipart/form-data of a known length, made anew for each attempt; nothing of the file
is kept in memory. The end of the body is held back until the digest of what was sent agrees with
the digest of what was judged, so a service never gets the whole of a file that changed.

An upload ends in one of three ways: stored once, refused (a typed error), or not known, where the
reply got lost. Only what surely changed nothing is tried again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bkformat import UpdateSchema, ValidatedUpdate
from bktransport.api import Connector, Login, Progress, Reply, refusal
from bktransport.attempt import Deadline, LastingError, NotSentError
from bktransport.errors import (
    DeadlineError,
    InvalidMessageError,
    NoResponseError,
    OutcomeUnknownError,
)
from bktransport.messages import UPLOAD_PATH, read_upload, upload_fields
from bktransport.retries import BUSY, retried

__all__ = ["UploadBody", "Uploader", "check_gate"]

_PIECE_NBYTES = 1 << 17
"""A piece must be sent within one timeout, on a slow line too."""


def check_gate(update: object, schema: UpdateSchema | None) -> ValidatedUpdate:
    """What may be uploaded: an update whose every value was judged, by the schema if there is one.

    Raises:
        TypeError: anything else.
        ValueError: the proof is closed.
    """
    # Not isinstance, which believes what an object says of itself.
    if type(update) is not ValidatedUpdate or not hasattr(update, "kind"):
        raise TypeError(
            f"only a path or a ValidatedUpdate can be uploaded, not {type(update).__name__}"
        )
    if update.kind != "update":
        raise TypeError(f"only an update can be uploaded, and this is an {update.kind}")
    if not update.values_checked:
        raise TypeError("its values were not checked: validate it with values=True")
    if schema is not None and update.schema != schema:
        raise TypeError("it was not judged by the client's schema: validate it with that schema")
    if update.closed:
        raise ValueError("this ValidatedUpdate is closed")
    return update


class _BodyFailedError(Exception):
    """Ends an attempt; unlike an `OSError` of the file, nobody takes it for one of the network."""


class UploadBody:
    """The bytes of one attempt, to be iterated once.

    Attributes:
        sent: bytes that were handed to the network.
        failure: what came from the file or the progress callback, not from the network.
        started: whether any byte of it may have left.
    """

    def __init__(
        self, fields: dict[str, str], update: ValidatedUpdate, progress: Progress | None
    ) -> None:
        self.boundary = secrets.token_hex(16)
        self._update = update
        self._progress = progress
        self._head, self._tail = _wrapping(self.boundary, fields)
        self._nbytes = len(self._head) + update.nbytes + len(self._tail)
        self.sent = 0
        self.started = False
        self.failure: Exception | None = None

    def __len__(self) -> int:
        return self._nbytes

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self.started = True
        try:
            for piece in self._pieces():
                yield piece
                self.sent += len(piece)
                if self._progress is not None:
                    self._progress(self.sent, self._nbytes)
        except Exception as exc:  # noqa: BLE001 - kept, and raised again by the upload
            self.failure = exc
        if self.failure is not None:
            raise _BodyFailedError

    def _pieces(self) -> Iterator[bytes | memoryview]:
        yield self._head
        for block in _ahead(self._update.blocks()):
            view = memoryview(block)
            for start in range(0, len(view), _PIECE_NBYTES):
                yield view[start : start + _PIECE_NBYTES]
        yield self._tail


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks, each read and hashed while the one before it is being sent."""
    with ThreadPoolExecutor(1, "bktransport-upload") as worker:
        coming = worker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = worker.submit(next, blocks, None)
            yield block


def _wrapping(boundary: str, fields: dict[str, str]) -> tuple[bytes, bytes]:
    """What goes before and after the file."""
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="update.npy"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


class Uploader:
    """Uploads of one leaf.

    Args:
        connector: reaches the service.
        host: URL of the service.
        login: the leaf's.
        leaf_name: goes with each update.
    """

    def __init__(self, connector: Connector, host: str, login: Login, leaf_name: str) -> None:
        self._connector = connector
        self._url = host + UPLOAD_PATH
        self._login = login
        self._leaf_name = leaf_name

    def upload(
        self,
        update: ValidatedUpdate,
        deadline: Deadline,
        *,
        metadata: str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Send an update that has passed the gate.

        Returns:
            file_id of what was stored.

        Raises:
            ResponseError: refused; nothing was stored.
            NoResponseError: the service could not be reached; nothing was stored.
            UpdateChangedError: the file is no longer the one that was judged; nothing was stored.
            OutcomeUnknownError: sent, and no reply says what became of it.
        """
        fields = upload_fields(self._leaf_name, metadata)

        def once() -> str:
            return self._once(update, UploadBody(fields, update, progress), deadline)

        return retried(once, deadline, reads_only=False)

    def _once(self, update: ValidatedUpdate, body: UploadBody, deadline: Deadline) -> str:
        failure: Exception | None = None
        headers = {"Content-Type": f"multipart/form-data; boundary={body.boundary}"}
        try:
            reply = self._connector.exchange(
                "POST", self._url, self._login, deadline, headers=headers, body=body
            )
        except (NoResponseError, InvalidMessageError, _BodyFailedError) as exc:
            failure = exc
        if body.failure is not None:
            raise body.failure
        if failure is not None:
            if not body.started:
                raise _not_sent(failure)
            raise _unknown(update, body, str(failure))
        return self._outcome(update, body, reply)

    def _outcome(self, update: ValidatedUpdate, body: UploadBody, reply: Reply) -> str:
        status = reply.status
        if status == 201 and body.sent < len(body):
            raise _unknown(update, body, "HTTP 201 all the same", status)
        if status == 201:
            try:
                return read_upload(reply.body)
            except InvalidMessageError as exc:
                trouble = str(exc)
            raise _unknown(update, body, trouble, status)
        # A gateway that gave up, or a server that failed, may have done so after storing; and 302
        # and 303 are what many an application says when it has stored something.
        if status < 300 or status in (302, 303) or (status >= 500 and status not in BUSY):
            raise _unknown(update, body, f"HTTP {status}", status)
        raise refusal(reply, "the upload was", self._connector.redactor)


def _not_sent(failure: Exception) -> Exception:
    """A connection that never came about may be tried again."""
    if isinstance(failure, DeadlineError | LastingError | InvalidMessageError):
        return failure
    return NotSentError(str(failure))


def _unknown(
    update: ValidatedUpdate, body: UploadBody, trouble: str, status: int | None = None
) -> OutcomeUnknownError:
    whole = body.sent >= len(body)
    how_much = "all of it" if whole else f"{body.sent} of {len(body)} bytes"
    return OutcomeUnknownError(
        f"the upload of {update.sha256[:12]}... has no known outcome: {how_much} left, then: "
        f"{trouble}; the journal keeps it, and it is not sent again by itself",
        update.sha256,
        body.sent,
        len(body),
        status,
    )
