"""What the sandbox knows: uploads, rounds, aggregates, metrics and the run.

Every public method may be called from any thread. No I/O but in the folder it is given.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bkformat import InvalidUpdateError, UpdateSchema, ValidatedUpdate, infer_schema, validate_file
from bkformat.layout import MAX_NUM_SAMPLES
from bktransport.messages import MODES, RUN_STATUSES, RunStatus
from bktransport.sandbox.accounts import Accounts
from bktransport.sandbox.aggregation import Counted, aggregate
from bktransport.text import quoted

__all__ = ["RefusedError", "Round", "Service"]

_log = logging.getLogger("bktransport.sandbox")


class RefusedError(Exception):
    """The caller can't have that.

    Attributes:
        status_code: of the HTTP reply.
    """

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class _Ended(Exception):  # noqa: N818  (no error: the sandbox is closed)
    """The sandbox is closed while a round is aggregated."""


@dataclass
class _Upload:
    leaf_id: str
    file_id: str
    sha256: str
    nbytes: int
    round: int
    counted: Counted
    replaced: bool = False

    def state(self) -> dict[str, Any]:
        return {
            "leaf_id": self.leaf_id, "file_id": self.file_id, "sha256": self.sha256,
            "nbytes": self.nbytes, "num_samples": self.counted.num_samples, "round": self.round,
            "replaced": self.replaced,
        }  # fmt: skip


@dataclass
class Round:
    """One round: open until enough leaves have uploaded, then aggregated.

    Attributes:
        number: from 1 on.
        status: "failed" where it could not be aggregated; `error` says why.
        aggregation_id: of the aggregate, once it is done.
        num_samples: behind the aggregate, once it is done.
        error: what went wrong, or None.
    """

    number: int
    status: Literal["open", "aggregating", "done", "failed"] = "open"
    aggregation_id: str | None = None
    num_samples: int | None = None
    error: str | None = None
    schema: UpdateSchema | None = None
    uploads: dict[str, _Upload] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """What `/sandbox/state` shows."""
        return {
            "round": self.number, "status": self.status, "aggregation_id": self.aggregation_id,
            "num_samples": self.num_samples, "error": self.error,
            "file_ids": [upload.file_id for upload in self.uploads.values()],
        }  # fmt: skip


class Service:
    """The state of one branch.

    Args:
        folder: an empty folder, for nobody else.
        accounts: who may call.
        quorum: leaves that must have uploaded for a round to end.
        max_upload_nbytes: bytes of the largest update.
    """

    def __init__(
        self, folder: Path, accounts: Accounts, quorum: int, max_upload_nbytes: int
    ) -> None:
        self.accounts = accounts
        self.max_upload_nbytes = max_upload_nbytes
        self._folder = folder
        self._quorum = quorum
        self._lock = threading.Lock()
        self._run_status: RunStatus = "pause"
        self._uploads: list[_Upload] = []
        self._rounds = [Round(1)]
        self._aggregates: dict[str, Path] = {}
        self._metrics: list[dict[str, str]] = []
        self._ended = threading.Event()

    def new_file(self) -> Path:
        """A name for a file that is being received."""
        return self._folder / f"{uuid.uuid4()}.part"

    def store(self, leaf_id: str, path: Path) -> tuple[str, Round | None]:
        """Judge a received file and store it; where that fails, it stays the caller's.

        Returns:
            Its file_id, and the round where it is now to be aggregated.

        Raises:
            RefusedError: it is no valid update, too large, or not for this round.
        """
        while True:
            with self._lock:
                schema = self._rounds[-1].schema
            with self._judged(path, schema) as proof, self._lock:
                if self._rounds[-1].schema is schema:
                    return self._keep(leaf_id, path, proof)
            # Meanwhile another update was the first of its round: that one rules.

    def _judged(self, path: Path, schema: UpdateSchema | None) -> ValidatedUpdate:
        try:
            nbytes = path.stat().st_size
            if nbytes > self.max_upload_nbytes:
                raise RefusedError(413, f"{nbytes:,} bytes are past {self.max_upload_nbytes:,}")
            return validate_file(path, schema=schema)
        except InvalidUpdateError as exc:
            raise RefusedError(422, f"invalid update: {exc.report.summary()}") from exc

    def _keep(self, leaf_id: str, path: Path, proof: ValidatedUpdate) -> tuple[str, Round | None]:
        current = self._rounds[-1]
        before = current.uploads.get(leaf_id)
        num_samples = proof.num_samples or 0
        others = sum(
            upload.counted.num_samples
            for upload in current.uploads.values()
            if upload is not before
        )
        if others + num_samples > MAX_NUM_SAMPLES:
            raise RefusedError(422, "with this update the round would be past 2**53 samples")
        file_id = str(uuid.uuid4())
        stored = self._folder / f"{file_id}.npy"
        path.rename(stored)
        upload = _Upload(
            leaf_id, file_id, proof.sha256, proof.nbytes, current.number,
            Counted(stored, proof.layout, num_samples),
        )  # fmt: skip
        if before is not None:
            before.replaced = True
            _remove(before.counted.path)
        current.schema = current.schema or infer_schema(proof.layout)
        current.uploads[leaf_id] = upload
        self._uploads.append(upload)
        if len(current.uploads) < self._quorum:
            return file_id, None
        current.status = "aggregating"
        self._rounds.append(Round(current.number + 1))
        return file_id, current

    def aggregate(self, ended: Round) -> str | None:
        """The aggregation_id of a round that `store` gave back; None where that failed.

        It takes as long as it takes; the uploads are deleted in the end.
        """
        aggregation_id = str(uuid.uuid4())
        path = self._folder / f"{aggregation_id}.npy"
        updates = [upload.counted for upload in ended.uploads.values()]
        try:
            num_samples = aggregate(path, updates, self._check_open)
        except _Ended:
            return None
        except Exception as exc:  # noqa: BLE001  (whatever it is, the sandbox lives on and shows it)
            self.fail(ended, f"not aggregated: {type(exc).__name__}: {quoted(exc)[1:-1]}")
            return None
        finally:
            for update in updates:
                _remove(update.path)
        with self._lock:
            self._aggregates[aggregation_id] = path
            ended.aggregation_id, ended.num_samples = aggregation_id, num_samples
            ended.status = "done"
        return aggregation_id

    def fail(self, ended: Round, error: str) -> None:
        """A round could not be aggregated, or its aggregate not be announced."""
        _log.error("round %d: %s", ended.number, error)
        with self._lock:
            ended.status, ended.error = "failed", error

    def end(self) -> None:
        """Give up the aggregation that is under way, soon."""
        self._ended.set()

    def _check_open(self) -> None:
        if self._ended.is_set():
            raise _Ended

    def aggregate_file(self, aggregation_id: str) -> Path:
        """Where an aggregate lies.

        Raises:
            RefusedError: there is none of this id; uploads are nobody's to download.
        """
        with self._lock:
            path = self._aggregates.get(aggregation_id)
        if path is None:
            raise RefusedError(404, f"no aggregate {quoted(aggregation_id)} in this branch")
        return path

    def add_metrics(self, given: object) -> None:
        """Take what the performance analyser sends.

        Raises:
            RefusedError: a key is missing or wrong.
        """
        keys = ("mode", "aggregation_id", "leaf_id", "branch_id", "tree_id", "data")
        found = given if isinstance(given, dict) else {}
        for key in keys:
            if not isinstance(found.get(key), str):
                raise RefusedError(400, f"metrics: {key} is missing, or no text")
        if found["mode"] not in MODES:
            raise RefusedError(400, f"metrics: mode is none of {', '.join(MODES)}")
        if (found["tree_id"], found["branch_id"]) != self.accounts.topology:
            raise RefusedError(400, "metrics: tree_id or branch_id is another one's")
        if not self.accounts.knows(found["leaf_id"]):
            raise RefusedError(400, "metrics: no leaf of this leaf_id")
        if found["mode"] != "non-federated":
            self.aggregate_file(found["aggregation_id"])
        with self._lock:
            self._metrics.append({key: found[key] for key in keys})

    def set_run(self, status: object) -> RunStatus:
        """Start, stop or pause the run.

        Raises:
            RefusedError: none of these.
        """
        for known in RUN_STATUSES:
            if status == known:
                with self._lock:
                    self._run_status = known
                return known
        raise RefusedError(
            400, f'give {", ".join(RUN_STATUSES)} as text, or {{"run_status": "start"}} and so on'
        )

    def state(self) -> dict[str, Any]:
        """Everything that may be shown: no token, no signed URL."""
        with self._lock:
            return {
                "version": 1,
                "run": self._run_status,
                "uploads": [upload.state() for upload in self._uploads],
                "rounds": [one.state() for one in self._rounds],
                "metrics": [dict(one) for one in self._metrics],
                "leaves": [
                    {"leaf_id": leaf.leaf_id, "leaf_name": leaf.leaf_name}
                    for leaf in self.accounts.leaves
                ],
            }


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
