"""Each fault happens as often as told, and nothing else does."""

from __future__ import annotations

import json
import threading

import pika
import pika.exceptions
import pytest
import requests

from bktransport.errors import InvalidMessageError
from bktransport.messages import AggregationReady, RunStatusChanged, read_event
from bktransport.sandbox import Sandbox
from bktransport.sandbox.faults import NAMES, POISONS, Faults

from .sandbox_calls import (
    TIMEOUT,
    connect,
    download_url,
    ended_round,
    error,
    get,
    messages,
    upload,
)


def test_counting() -> None:
    faults = Faults(["busy", "drop:3", "busy"])
    assert [faults.take("busy") for _ in range(3)] == [True, True, False]
    assert [faults.take("drop") for _ in range(4)] == [True, True, True, False]
    assert not any(faults.take(name) for name in NAMES)
    assert not any(Faults().take(name) for name in NAMES)


def test_counting_from_many_threads() -> None:
    faults = Faults(["busy:1000"])
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.append(sum(faults.take("busy") for _ in range(400))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000


@pytest.mark.parametrize("text", ["bus", "", ":2", "Busy", "busy busy", "x\n" * 100])
def test_an_unknown_name_lists_the_known(text: str) -> None:
    with pytest.raises(ValueError, match=", ".join(NAMES)) as caught:
        Faults([text])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "count", ["", "0", "-1", "x", "1.5", "1000001", "9" * 5000, "\u0663", " 1"]
)
def test_a_wrong_count(count: str) -> None:
    with pytest.raises(ValueError, match="how often"):
        Faults([f"busy:{count}"])


def test_lost_reply() -> None:
    with Sandbox(leaves=1, fail=["lost-reply"]) as sandbox:
        with pytest.raises(requests.ConnectionError):
            upload(sandbox)
        assert len(sandbox.state()["uploads"]) == 1
        assert ended_round(sandbox)["status"] == "done"
        assert upload(sandbox).status_code == 201


def test_busy() -> None:
    with Sandbox(leaves=1, fail=["busy:2"]) as sandbox:
        for _ in range(2):
            answer = upload(sandbox)
            error(answer, 503)
            assert answer.headers["Retry-After"] == "1"
        assert sandbox.state()["uploads"] == []
        assert upload(sandbox).status_code == 201


def test_truncate() -> None:
    with Sandbox(leaves=1, fail=["truncate"]) as sandbox:
        upload(sandbox)
        url = download_url(sandbox, ended_round(sandbox)["aggregation_id"])
        with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
            nbytes = int(answer.headers["Content-Length"])
            with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
                _ = answer.content
        assert len(requests.get(url, timeout=TIMEOUT).content) == nbytes


def test_drop() -> None:
    """The connection is closed by force, and the message is there afterwards."""
    with Sandbox(leaves=1, fail=["drop"]) as sandbox:
        connection = connect(sandbox)
        sandbox.set_run("start")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
            connection.process_data_events(TIMEOUT)
        assert caught.value.reply_code == 320
        assert read_event(messages(sandbox, 1)[0]) == RunStatusChanged("start")
        with connect(sandbox) as connection:
            sandbox.set_run("stop")
            connection.process_data_events(0.1)
            assert connection.is_open


def test_poison() -> None:
    with Sandbox(leaves=2, fail=["poison"]) as sandbox:
        upload(sandbox)
        upload(sandbox, leaf=1)
        for leaf in (0, 1):
            *poison, good = messages(sandbox, len(POISONS) + 1, leaf)
            assert poison == list(POISONS)
            aggregation_id = sandbox.state()["rounds"][0]["aggregation_id"]
            assert read_event(good) == AggregationReady(aggregation_id)
        sandbox.set_run("start")
        assert read_event(messages(sandbox, 1)[0]) == RunStatusChanged("start")


@pytest.mark.parametrize("body", POISONS)
def test_poison_is_poison(body: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        read_event(body)


def test_some_poison_is_well_formed() -> None:
    kinds = {type(json.loads(one)) for one in POISONS if one.startswith((b"[", b'{"'))}
    assert kinds == {list, dict}


def test_no_fault_unless_told() -> None:
    with Sandbox(leaves=1) as sandbox:
        assert upload(sandbox).status_code == 201
        url = download_url(sandbox, ended_round(sandbox)["aggregation_id"])
        assert requests.get(url, timeout=TIMEOUT).status_code == 200
        assert len(messages(sandbox, 1)) == 1
        assert get(sandbox, "/sandbox/state").json()["rounds"][0]["status"] == "done"
