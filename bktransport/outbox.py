"""Uploads with a journal: noted before the first byte leaves, and again when they end."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

from bkformat import UpdateChangedError, ValidatedUpdate
from bktransport.api import Progress
from bktransport.attempt import Deadline
from bktransport.errors import NoResponseError, OutcomeUnknownError, ResponseError, StateError
from bktransport.journal import Journal
from bktransport.upload import Uploader

__all__ = ["send"]

_LOG = logging.getLogger("bktransport")

Ending: TypeAlias = Literal["stored", "refused", "unknown"]


def send(
    journal: Journal,
    uploader: Uploader,
    update: ValidatedUpdate,
    deadline: Deadline,
    *,
    metadata: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Upload an update that has passed the gate; arguments, result and errors of `Uploader.upload`.

    Raises:
        StateError: the journal can't be written; nothing was sent.
    """
    for earlier in journal.unresolved(update.sha256):
        _LOG.warning(
            "an earlier upload of %s... on %s has no known outcome; sending it again may store it "
            "twice", update.sha256[:12], earlier.began.isoformat(timespec="seconds"),
        )  # fmt: skip
    entry = journal.begin(update.sha256, update.nbytes, update.num_samples)
    left = "nothing"

    def counted(sent: int, total: int | None) -> None:
        nonlocal left
        left = f"{sent} of {total} bytes"
        if progress is not None:
            progress(sent, total)

    try:
        file_id = uploader.upload(update, deadline, metadata=metadata, progress=counted)
    except (ResponseError, NoResponseError, UpdateChangedError) as exc:
        _finish(journal, entry, "refused", detail=str(exc))
        raise
    except OutcomeUnknownError as exc:
        _finish(journal, entry, "unknown", detail=str(exc))
        raise
    except BaseException as exc:
        what = f"ended by {type(exc).__name__}" if isinstance(exc, Exception) else "interrupted"
        detail = f"{what} when {left} had left"
        _finish(journal, entry, "unknown", detail=detail)
        _LOG.warning("the upload of %s has no known outcome: %s", update.sha256, detail)
        raise
    _finish(journal, entry, "stored", file_id=file_id)
    return file_id


def _finish(
    journal: Journal,
    entry: int,
    state: Ending,
    *,
    file_id: str | None = None,
    detail: str | None = None,
) -> None:
    """How an upload ended matters more than a journal that can't say so: it says "sending"."""
    try:
        journal.finish(entry, state, file_id=file_id, detail=detail)
    except StateError as exc:
        _LOG.warning("an upload ended as %s, but the journal can't say so: %s", state, exc)
