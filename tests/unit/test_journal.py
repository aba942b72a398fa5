"""bktransport.journal: what became of every upload, also after the process is gone."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bktransport.errors import StateError
from bktransport.journal import Journal
from bktransport.state import StateFolder

A, B = "a" * 64, "b" * 64
_SENDER = f"""
import sys
from bktransport.journal import Journal
from bktransport.state import StateFolder
journal = Journal(StateFolder(sys.argv[1], lock=False))
journal.begin({A!r}, 7, 3)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder(tmp_path / "s") as folder:
        yield folder


@pytest.fixture
def journal(folder: StateFolder) -> Iterator[Journal]:
    journal = Journal(folder)
    yield journal
    journal.close()


def test_an_upload_from_its_begin_to_its_end(journal: Journal) -> None:
    before = datetime.now(timezone.utc)
    upload = journal.begin(A, 1000, 12)
    (record,) = journal.uploads()
    assert (record.sha256, record.state, record.nbytes, record.num_samples) == (
        A, "sending", 1000, 12,
    )  # fmt: skip
    assert (record.file_id, record.ended, record.detail) == (None, None, None)
    journal.finish(upload, "stored", file_id="f-1")
    (record,) = journal.uploads()
    assert (record.state, record.file_id) == ("stored", "f-1")
    assert record.ended is not None
    assert before <= record.began <= record.ended <= datetime.now(timezone.utc)
    with pytest.raises(FrozenInstanceError):
        record.state = "refused"  # type: ignore[misc]


def test_unresolved_are_those_on_their_way_or_unknown(journal: Journal) -> None:
    for sha256, end in ((A, "stored"), (A, "unknown"), (B, "refused"), (B, None)):
        upload = journal.begin(sha256, 1)
        if end is not None:
            journal.finish(upload, end)  # type: ignore[arg-type]
    assert [(r.sha256, r.state) for r in journal.unresolved()] == [(A, "unknown"), (B, "sending")]
    assert [r.state for r in journal.unresolved(A)] == ["unknown"]
    assert journal.unresolved("c" * 64) == []


def test_an_unknown_one_may_be_resolved_later_and_a_stored_one_stays(journal: Journal) -> None:
    upload = journal.begin(A, 1)
    journal.finish(upload, "unknown", detail="lost")
    journal.finish(upload, "stored", file_id="f")
    with pytest.raises(ValueError, match="on its way"):
        journal.finish(upload, "refused")
    with pytest.raises(ValueError, match="on its way"):
        journal.finish(99, "stored")
    with pytest.raises(ValueError, match="ends stored, refused or unknown"):
        journal.finish(upload, "sending")  # type: ignore[arg-type]
    assert [r.state for r in journal.uploads()] == ["stored"]


@pytest.mark.parametrize("sha256", ["", "A" * 64, "a" * 63, "a" * 64 + "\n", "../x"])
def test_only_a_digest_is_one(journal: Journal, sha256: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        journal.begin(sha256, 1)


def test_details_are_one_short_line(journal: Journal) -> None:
    journal.finish(journal.begin(A, 1), "refused", detail="no\n  room " + "x" * 1000)
    detail = journal.uploads()[0].detail
    assert detail is not None
    assert detail.startswith("no room xx")
    assert len(detail) == 300


def test_it_is_there_after_a_restart_and_files_are_private(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s") as folder:
        first = Journal(folder)
        first.finish(first.begin(A, 1), "stored", file_id="f")
        assert {stat.S_IMODE(p.stat().st_mode) for p in folder.path.iterdir()} == {0o600}
        first.close()
    with StateFolder(tmp_path / "s") as folder:
        second = Journal(folder)
        assert [r.file_id for r in second.uploads()] == ["f"]
        second.close()
        assert not list(folder.path.glob("sender-*"))


def test_what_a_killed_process_was_sending_is_unknown(folder: StateFolder) -> None:
    journal = Journal(folder)
    with subprocess.Popen(
        [sys.executable, "-c", _SENDER, folder.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.curdir},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"begun\n"
        assert [r.state for r in journal.uploads()] == ["sending"]
        other.send_signal(signal.SIGKILL)
        other.wait()
    (record,) = journal.unresolved(A)
    assert (record.state, record.ended) == ("unknown", None)
    assert record.detail == "the process ended before a reply came"
    assert len(list(folder.path.glob("sender-*"))) == 1
    journal.finish(journal.begin(B, 1), "stored")
    assert [r.state for r in journal.uploads()] == ["unknown", "stored"]
    assert len(list(folder.path.glob("sender-*"))) == 1, "the killed one's was tidied away"
    journal.close()


def test_two_journals_and_many_threads_write_at_once(folder: StateFolder) -> None:
    journals = [Journal(folder), Journal(folder)]

    def upload(number: int) -> None:
        journal = journals[number % 2]
        journal.finish(journal.begin(f"{number:064x}", number), "stored")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, range(24)))
    records = journals[0].uploads()
    assert sorted(r.nbytes for r in records) == list(range(24))
    assert {r.state for r in records} == {"stored"}
    for journal in journals:
        journal.close()


def test_a_damaged_or_foreign_file_is_told_in_one_line(folder: StateFolder) -> None:
    path = folder.file("outbox.sqlite3")
    path.write_bytes(b"this is no database, " * 500)
    with pytest.raises(StateError, match=r"outbox\.sqlite3 in .*no database: move it away") as got:
        Journal(folder)
    assert "\n" not in str(got.value)


def test_a_newer_version_is_refused(folder: StateFolder) -> None:
    import sqlite3

    Journal(folder).close()
    with sqlite3.connect(folder.path / "outbox.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StateError, match="of version 9"):
        Journal(folder)


def test_closed_is_said(folder: StateFolder) -> None:
    journal = Journal(folder)
    journal.close()
    journal.close()
    with pytest.raises(StateError, match="closed"):
        journal.uploads()


def test_one_that_was_stored_later_is_settled(journal: Journal) -> None:
    first, other = "a" * 64, "b" * 64
    journal.finish(journal.begin(first, 10), "stored", file_id="file-0")
    for sha256 in (first, other):
        journal.finish(journal.begin(sha256, 10), "unknown")
    assert [record.sha256 for record in journal.unresolved()] == [first, other]
    journal.finish(journal.begin(first, 10), "stored", file_id="file-1")
    assert journal.unresolved(first) == []
    assert [record.sha256 for record in journal.unresolved()] == [other]
    assert [record.state for record in journal.uploads()].count("unknown") == 2  # history stays
