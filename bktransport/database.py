"""One SQLite file of the state folder: what is committed survives the loss of power.

A rollback journal rather than WAL: nothing is left beside the file between commits, it works on
network file systems as far as locks do, a forked process does no harm, and SQLite notices when the
file is moved away under it. Several processes may use one file: transactions are short, and each
waits for the others for a few seconds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from bktransport.errors import StateError
from bktransport.state import StateFolder
from bktransport.text import quoted

__all__ = ["Database", "moment", "now"]

_WAIT = 5.0  # seconds that another process may hold the file
# By SQLite's result code (sqlite.org/rescode.html); Python has names for them from 3.11 on.
_ADVICE = {
    13: "make room on the disk",
    8: "the file can't be written, or was moved away: restart with a folder that can be written",
    11: "the file is damaged: move it away, what it held is lost",
    26: "the file is no database: move it away, what it held is lost",
    5: "another process holds it: try again",
}


def now() -> int:
    """Microseconds since 1970, UTC."""
    return int(datetime.now(timezone.utc).timestamp() * 1_000_000)


def moment(microseconds: int) -> datetime:
    """The time that `now` gave."""
    return datetime.fromtimestamp(microseconds / 1_000_000, timezone.utc)


class Database:
    """A database with the tables of `schema`.

    Args:
        folder: where it lies.
        name: of the file.
        schema: statements that make the tables if they are missing.
        version: of the tables; a file of another version is refused.

    Raises:
        StateError: here and in every method: the file can't be read or written, is damaged, is of
            another version, or was closed. The message says what to do.
    """

    def __init__(
        self, folder: StateFolder, name: str, schema: tuple[str, ...], version: int
    ) -> None:
        self._where = f"{name} in {str(folder.path)!a}"
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        with self._told():
            self._connection = sqlite3.connect(
                folder.file(name), timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
        try:
            with self._told():
                self._set_up(self._connection, schema, version)
        except StateError:
            self.close()
            raise

    def _set_up(
        self, connection: sqlite3.Connection, schema: tuple[str, ...], version: int
    ) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's own cache
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StateError(f"{self._where}: {_ADVICE[11]}")
        with self.transaction() as open_one:
            there = open_one.execute("PRAGMA user_version").fetchone()[0]
            if there == version:
                return
            if there != 0:
                raise StateError(
                    f"{self._where}: of version {there}, this is version {version}: "
                    "use the release that wrote it, or another folder"
                )
            for statement in schema:
                open_one.execute(statement)
            open_one.execute(f"PRAGMA user_version = {version:d}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done inside is durable when it ends, or undone."""
        with self._told(), self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with self._told(), self._lock:
            return self._open().execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; twice does no harm."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if os.getpid() != self._pid:
            raise StateError(f"{self._where}: opened by another process: make a client in this one")
        if self._connection is None:
            raise StateError(f"{self._where}: closed")
        return self._connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            # Only from 3.11 on does the exception tell the code; its text is SQLite's own.
            code = getattr(exc, "sqlite_errorcode", _code_of(str(exc))) & 0xFF
            advice = _ADVICE.get(code, "see to the disk, or name another folder")
            raise StateError(f"{self._where}: {quoted(exc)[1:-1]}: {advice}") from exc
        except OSError as exc:
            raise StateError(f"{self._where}: {exc.strerror or exc}: see to the folder") from exc


def _code_of(message: str) -> int:
    texts = {"full": 13, "readonly": 8, "malformed": 11, "not a database": 26, "locked": 5}
    return next((code for text, code in texts.items() if text in message), 1)
