"""bktransport.inbox: kept before it is acknowledged, offered once, until it is done."""

import multiprocessing
import os
import queue
import random
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bktransport.errors import StateError
from bktransport.inbox import AggregationQueue, Inbox
from bktransport.messages import AggregationReady, RunStatusChanged, write_event
from bktransport.state import StateFolder


def told(aggregation_id: str) -> bytes:
    return write_event(AggregationReady(aggregation_id))


POISON = {
    "not JSON": b"hello",
    "wrong shape": b"[1, 2]",
    "no body": b'{"message_type": "run_status"}',
    "body is text": b'{"message_type": "run_status", "body": "start"}',
    "unknown type": b'{"message_type": "lunch", "body": {}}',
    "unknown status": b'{"message_type": "run_status", "body": {"run_status": ["start"]}}',
    "bad id": b'{"message_type": "aggregation_status", "body": {"aggregation_id": "../../x"}}',
    "id is a number": b'{"message_type": "aggregation_status", "body": {"aggregation_id": 7}}',
    "not UTF-8": b'{"message_type": "\xff\xfe"}',
    "a lone surrogate": b'{"message_type": "\\ud800", "body": {}}',
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 10_000,
    "a giant number": b'{"message_type": ' + b"9" * 50_000 + b"}",
    "long, and else good": told("an-id") + b" " * (1 << 16),
    "huge": b'{"x": "' + b"y" * 1_000_000 + b'"}',
    "empty": b"",
    "nulls": bytes(100),
}

# Said from Python 3.12 on if any thread is left of another test; the child does next to nothing.
_FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder(tmp_path / "s") as folder:
        yield folder


@pytest.fixture
def inbox(folder: StateFolder) -> Iterator[Inbox]:
    inbox = Inbox(folder)
    yield inbox
    inbox.close()


@pytest.fixture
def offers(inbox: Inbox) -> AggregationQueue:
    return AggregationQueue(inbox)


def test_ids_wait_in_order_of_arrival_and_duplicates_once(inbox: Inbox) -> None:
    assert inbox.commit(told("b")) == AggregationReady("b")
    assert inbox.commit(told("a")) == AggregationReady("a")
    assert inbox.commit(told("b"), redelivered=True) is None
    assert inbox.waiting() == ["b", "a"]
    assert inbox.mark_done("b")
    assert not inbox.mark_done("b")
    assert inbox.commit(told("b")) is None, "also after it is done"
    assert inbox.waiting() == ["a"]


def test_everything_not_done_is_there_after_a_restart(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s") as folder:
        first = Inbox(folder)
        for name in "cab":
            first.commit(told(name))
        first.commit(write_event(RunStatusChanged("start")))
        first.commit(b"poison")
        offers = AggregationQueue(first)
        assert [offers.get(), offers.get()] == ["c", "a"]
        offers.task_done("a")
        first.close()
    with StateFolder(tmp_path / "s") as folder:
        second = Inbox(folder)
        assert second.commit(told("a")) is None
        offers = AggregationQueue(second)
        assert [offers.get(), offers.get()] == ["c", "b"]
        assert offers.empty()
        assert second.last_run_status() == "start"
        assert len(second.kept_aside()) == 1
        second.close()


def test_run_status_is_never_a_duplicate(inbox: Inbox) -> None:
    assert inbox.last_run_status() is None
    for status in ("start", "stop", "start", "start"):
        event = RunStatusChanged(status)  # type: ignore[arg-type]
        assert inbox.commit(write_event(event)) == event
        assert inbox.last_run_status() == status


@pytest.mark.parametrize("kind", POISON)
def test_poison_is_kept_aside(inbox: Inbox, kind: str) -> None:
    assert inbox.commit(POISON[kind]) is None
    (kept,) = inbox.kept_aside()
    assert kept.nbytes == len(POISON[kind])
    assert kept.body == POISON[kind][: 1 << 16]
    assert kept.why.isprintable()
    assert len(kept.why) < 200
    assert inbox.waiting() == []


def test_no_bytes_raise_anything_but_are_kept_aside_or_read(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside: list[bytes] = []
    monkeypatch.setattr(inbox, "_put_aside", lambda body, why: aside.append(body))
    monkeypatch.setattr(inbox, "_keep_aggregation", lambda event: True)
    chance = random.Random(7)
    whole = told("an-id")
    for _ in range(3000):
        body = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.randrange(3)):
            if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
        inbox.commit(bytes(body))
    assert 1000 < len(aside) < 2900


def test_what_is_kept_aside_is_bounded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bktransport.inbox._MOST_ASIDE", 5)
    for number in range(12):
        inbox.commit(b"poison %d" % number)
    assert [kept.body for kept in inbox.kept_aside()] == [b"poison %d" % n for n in range(7, 12)]


def test_ids_that_are_done_are_forgotten_at_last_but_never_others(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bktransport.inbox._MOST_DONE", 3)
    for number in range(8):
        inbox.commit(told(f"id-{number}"))
        if number:
            inbox.mark_done(f"id-{number}")
    assert [inbox.knows(f"id-{number}") for number in range(8)] == [
        True, False, False, False, False, True, True, True,
    ]  # fmt: skip
    assert inbox.waiting() == ["id-0"]


def test_the_queue_gives_and_marks(inbox: Inbox, offers: AggregationQueue) -> None:
    assert offers.empty()
    with pytest.raises(queue.Empty):
        offers.get_nowait()
    with pytest.raises(queue.Empty):
        offers.get(timeout=0.01)
    with pytest.raises(ValueError, match="negative"):
        offers.get(timeout=-1)
    for name in "abcd":
        inbox.commit(told(name))
    assert offers.qsize() == 4
    assert [offers.get(block=False), offers.get()] == ["a", "b"]
    assert offers.qsize() == 2
    assert inbox.waiting() == ["a", "b", "c", "d"], "taken is not done"
    offers.task_done()
    assert inbox.waiting() == ["b", "c", "d"]
    offers.downloaded("c")
    assert offers.get() == "d", "what was downloaded is no longer offered"
    offers.task_done("d")
    offers.task_done("d")
    offers.task_done()
    assert inbox.waiting() == []
    with pytest.raises(ValueError, match="no aggregation is taken"):
        offers.task_done()


@pytest.mark.parametrize("bad", ["never-told", "../x", "\ud800", "", 7])
def test_an_id_never_told_can_t_be_done(offers: AggregationQueue, bad: str) -> None:
    with pytest.raises(ValueError, match=r"was ever told|is no id"):
        offers.task_done(bad)


def test_downloading_an_unknown_id_does_nothing(inbox: Inbox, offers: AggregationQueue) -> None:
    offers.downloaded("never-told")
    assert not inbox.knows("never-told")


def test_get_waits_for_what_is_committed(inbox: Inbox, offers: AggregationQueue) -> None:
    got: list[str] = []
    waiter = threading.Thread(target=lambda: got.append(offers.get(timeout=60)))
    waiter.start()
    inbox.commit(told("late"))
    offers.arrived()
    waiter.join(60)
    assert got == ["late"]


def test_get_sees_what_another_process_commits_and_marks(
    folder: StateFolder, inbox: Inbox, offers: AggregationQueue
) -> None:
    other = Inbox(folder)
    other.commit(told("a"))
    other.commit(told("b"))
    other.mark_done("a")
    assert offers.get(timeout=60) == "b"
    other.mark_done("b")
    with pytest.raises(ValueError, match="no aggregation is taken"):
        offers.task_done()
    other.close()


def test_who_waits_is_woken_by_closing(offers: AggregationQueue) -> None:
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            offers.get()
        except StateError as exc:
            caught.append(exc)

    waiter = threading.Thread(target=wait)
    waiter.start()
    offers.close()
    waiter.join(60)
    assert len(caught) == 1
    with pytest.raises(StateError, match="closed"):
        offers.empty()


def test_threads_commit_take_and_mark_at_once(inbox: Inbox, offers: AggregationQueue) -> None:
    taken: list[str] = []

    def take() -> None:
        while (name := offers.get(timeout=60)) != "end":
            taken.append(name)
            offers.task_done(name)
        offers.task_done(name)
        inbox.commit(told("end-too"))

    taker = threading.Thread(target=take)
    taker.start()
    names = [f"id-{number}" for number in range(40)]
    for name in [*names, "end"]:
        inbox.commit(told(name))
        offers.arrived()
    taker.join(60)
    assert taken == names
    assert inbox.waiting() == ["end-too"]


def test_files_are_private_while_it_is_written(inbox: Inbox, folder: StateFolder) -> None:
    with inbox._database.transaction() as connection:
        connection.execute("INSERT INTO run VALUES (1, 'start', 0)")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.path.iterdir()}
    assert "inbox.sqlite3-journal" in modes
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("damage", ["text", "cut", "middle"])
def test_a_damaged_file_is_told_at_the_start(folder: StateFolder, damage: str) -> None:
    inbox = Inbox(folder)
    with inbox._database.transaction() as connection:
        connection.executemany(
            "INSERT INTO aggregations (aggregation_id, received) VALUES (?, 0)",
            [(f"id-{number}",) for number in range(500)],
        )
    inbox.close()
    path = folder.path / "inbox.sqlite3"
    data = path.read_bytes()
    if damage == "text":
        path.write_bytes(b"not a database " * 400)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[:8192] + b"\xff" * 8192 + data[16384:])
    with pytest.raises(StateError, match=r"inbox\.sqlite3 in .*: move it away") as caught:
        Inbox(folder)
    assert str(caught.value).isprintable()


def test_a_file_that_is_taken_away_is_noticed(inbox: Inbox, folder: StateFolder) -> None:
    inbox.commit(told("a"))
    (folder.path / "inbox.sqlite3").unlink()
    with pytest.raises(StateError, match="moved away"):
        inbox.commit(told("b"))


def test_a_lock_of_another_is_an_error_and_nothing_is_half_done(
    inbox: Inbox, folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox._database._connection.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]
    other = sqlite3.connect(folder.path / "inbox.sqlite3")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="another process holds it"):
        inbox.commit(told("a"))
    other.close()
    assert inbox.commit(told("a")) == AggregationReady("a")


def test_a_full_file_is_an_error_and_room_mends_it(inbox: Inbox) -> None:
    connection = inbox._database._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 12")
    with pytest.raises(StateError, match="make room on the disk"):
        inbox.commit(b"x" * 50_000)
    connection.execute("PRAGMA max_page_count = 100000")
    assert inbox.commit(told("a")) == AggregationReady("a")


@_FORKS
def test_a_forked_process_can_t_use_it(inbox: Inbox) -> None:
    outcome = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        try:
            inbox.commit(told("a"))
        except StateError as exc:
            outcome.put(str(exc))
            os._exit(0)
        os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "another process" in outcome.get()
    outcome.close()
    assert inbox.waiting() == []
