"""bktransport.database: durable settings, and every trouble told with what to do."""

import contextlib
from pathlib import Path

import pytest

from bktransport.database import Database, _code_of, moment, now
from bktransport.errors import StateError
from bktransport.state import StateFolder


def test_commits_reach_the_disk(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s") as folder:
        database = Database(folder, "x.sqlite3", (), version=1)
        settings = {
            name: database.rows(f"PRAGMA {name}")[0][0]
            for name in ("synchronous", "journal_mode", "fullfsync", "trusted_schema")
        }
        database.close()
    assert settings == {
        "synchronous": 3, "journal_mode": "truncate", "fullfsync": 1, "trusted_schema": 0,
    }  # fmt: skip


def test_what_fails_is_undone(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s") as folder:
        database = Database(folder, "x.sqlite3", ("CREATE TABLE t (a)",), version=1)
        with contextlib.suppress(KeyError), database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (1)")
            raise KeyError
        assert database.rows("SELECT * FROM t") == []
        with database.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (2)")
        assert database.rows("SELECT * FROM t") == [(2,)]
        database.close()
        with pytest.raises(StateError, match="closed"):
            database.rows("SELECT * FROM t")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("database or disk is full", 13),
        ("attempt to write a readonly database", 8),
        ("database disk image is malformed", 11),
        ("file is not a database", 26),
        ("database is locked", 5),
        ("disk I/O error", 1),
    ],
)
def test_codes_are_known_without_python_3_11(message: str, code: int) -> None:
    assert _code_of(message) == code


def test_moments_are_aware_and_exact() -> None:
    then = now()
    assert moment(then).tzinfo is not None
    assert abs(moment(then).timestamp() * 1_000_000 - then) < 2
