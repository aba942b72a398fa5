"""The outbox: what became of every upload, known also after this process is gone.

    sending ──> stored      the service has it, once
            ──> refused     the service does not have it
            ──> unknown     the reply was lost, or the process ended before it came

A row is durable before the first byte of the upload leaves. No token, URL or path is kept.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from bktransport.database import Database, moment, now
from bktransport.errors import StateError
from bktransport.state import HeldFile, StateFolder

__all__ = ["Journal", "UploadRecord", "UploadState"]

UploadState: TypeAlias = Literal["sending", "stored", "refused", "unknown"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS uploads (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sha256 TEXT NOT NULL,
        nbytes INTEGER NOT NULL,
        num_samples INTEGER,
        state TEXT NOT NULL,
        file_id TEXT,
        began INTEGER NOT NULL,
        ended INTEGER,
        detail TEXT,
        sender TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS unresolved ON uploads (sha256) "
    "WHERE state IN ('sending', 'unknown')",
)
_COLUMNS = "sha256, state, file_id, nbytes, num_samples, began, ended, detail, sender"
_LONGEST_DETAIL = 300
_GONE = "the process ended before a reply came"


@dataclass(frozen=True)
class UploadRecord:
    """One upload.

    Attributes:
        sha256: hexadecimal digest of the update.
        state: "sending", "stored", "refused" or "unknown".
        file_id: what the service calls it, once stored.
        nbytes: bytes of the update.
        num_samples: samples behind it.
        began: when it began, UTC.
        ended: when its end was noted, UTC; None while sending and after a killed process.
        detail: why it was refused or is unknown.
    """

    sha256: str
    state: UploadState
    file_id: str | None
    nbytes: int
    num_samples: int | None
    began: datetime
    ended: datetime | None
    detail: str | None


class Journal:
    """The uploads noted in one state folder, by any number of processes.

    Raises:
        StateError: here and in every method: the journal can't be read or written.
    """

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._database = Database(folder, "outbox.sqlite3", _SCHEMA, version=1)
        self._sender: tuple[str, HeldFile] | None = None
        self._lock = threading.Lock()

    def begin(self, sha256: str, nbytes: int, num_samples: int | None = None) -> int:
        """Note that an upload is about to leave; the id that `finish` wants.

        Raises:
            ValueError: `sha256` is no hexadecimal digest.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        sender = self._held_sender()
        with self._database.transaction() as connection:
            added = connection.execute(
                "INSERT INTO uploads (sha256, nbytes, num_samples, state, began, sender) "
                "VALUES (?, ?, ?, 'sending', ?, ?)",
                (sha256, nbytes, num_samples, now(), sender),
            )
            return int(added.lastrowid or 0)

    def finish(
        self,
        upload: int,
        state: Literal["stored", "refused", "unknown"],
        *,
        file_id: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Note how it ended. `detail` is cut at 300 characters, and must hold no secret.

        Raises:
            ValueError: no such upload is on its way, or no such state.
        """
        if state not in ("stored", "refused", "unknown"):
            raise ValueError(f"an upload ends stored, refused or unknown, not {state!r}")
        said = None if detail is None else " ".join(detail.split())[:_LONGEST_DETAIL]
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE uploads SET state = ?, file_id = ?, detail = ?, ended = ? "
                "WHERE id = ? AND state IN ('sending', 'unknown')",
                (state, file_id, said, now(), upload),
            )
            if changed.rowcount != 1:
                raise ValueError(f"no upload {upload!r} is on its way")

    def uploads(self) -> list[UploadRecord]:
        """Every upload, in the order they began."""
        return self._records("", ())

    def unresolved(self, sha256: str | None = None) -> list[UploadRecord]:
        """Those that are on their way or whose outcome is unknown; of one digest, or all.

        One that was sent again later, and stored then, is settled.
        """
        where = (
            "WHERE state IN ('sending', 'unknown') AND NOT EXISTS (SELECT 1 FROM uploads AS later "
            "WHERE later.sha256 = uploads.sha256 AND later.state = 'stored' "
            "AND later.id > uploads.id)"
        )
        if sha256 is None:
            return self._records(where, ())
        return self._records(where + " AND sha256 = ?", (sha256,))

    def close(self) -> None:
        """Uploads still on their way are told as unknown from here on."""
        self._database.close()
        with self._lock:
            sender, self._sender = self._sender, None
        if sender is not None:
            (self._folder.path / sender[0]).unlink(missing_ok=True)
            sender[1].close()

    def _records(self, where: str, values: tuple[str, ...]) -> list[UploadRecord]:
        # Nothing that a caller wrote is in the text of the query.
        query = f"SELECT {_COLUMNS} FROM uploads {where} ORDER BY id"  # noqa: S608
        living: dict[str, bool] = {}
        records = []
        for (
            sha256,
            state,
            file_id,
            nbytes,
            samples,
            began,
            ended,
            detail,
            sender,
        ) in self._database.rows(query, *values):
            if state == "sending":
                if sender not in living:
                    living[sender] = self._is_living(sender)
                if not living[sender]:
                    state, detail = "unknown", _GONE
            records.append(
                UploadRecord(
                    sha256, state, file_id, nbytes, samples, moment(began),
                    None if ended is None else moment(ended), detail,
                )
            )  # fmt: skip
        return records

    def _is_living(self, sender: str) -> bool:
        try:
            return self._folder.is_held(sender)
        except OSError as exc:
            raise StateError(f"{sender}: {exc.strerror or exc}: see to the state folder") from exc

    def _held_sender(self) -> str:
        """The name of the file that is locked as long as this journal may send."""
        with self._lock:
            if self._sender is None:
                self._settle()
                name = f"sender-{os.getpid()}-{secrets.token_hex(4)}.lock"
                try:
                    held = self._folder.hold(name)
                except OSError as exc:
                    raise StateError(
                        f"{name}: {exc.strerror or exc}: see to the state folder"
                    ) from exc
                if held is None:
                    raise StateError(f"{name}: held by another process: try again")
                self._sender = name, held
            return self._sender[0]

    def _settle(self) -> None:
        """Note as unknown what killed processes left behind, and tidy their files away."""
        senders = self._database.rows("SELECT DISTINCT sender FROM uploads WHERE state = 'sending'")
        gone = [sender for (sender,) in senders if not self._is_living(sender)]
        if not gone:
            return
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE uploads SET state = 'unknown', detail = ? "
                "WHERE sender = ? AND state = 'sending'",
                [(_GONE, sender) for sender in gone],
            )
        for sender in gone:
            (self._folder.path / sender).unlink(missing_ok=True)
