"""What is tried again, how often, and after which pause."""

from __future__ import annotations

import logging
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import stamina
import tenacity.nap

from bktransport.attempt import Deadline, LastingError, NotSentError
from bktransport.errors import (
    AuthenticationError,
    DeadlineError,
    InvalidAggregateError,
    InvalidMessageError,
    NoResponseError,
    OutcomeUnknownError,
    ResponseError,
)
from bktransport.retries import ATTEMPTS, LONGEST_PAUSE, retried


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", Mock(sleep=pauses.append))
    return pauses


def _tries(error: BaseException, *, reads_only: bool, seconds: float = 100) -> int:
    action: Callable[[], None] = Mock(side_effect=error)
    with pytest.raises(type(error)) as caught:
        retried(action, Deadline(seconds), reads_only=reads_only)
    assert caught.value is error
    assert caught.value.__context__ is None
    return action.call_count  # type: ignore[attr-defined, no-any-return]


_NEVER = [
    DeadlineError("x"), LastingError("x"), InvalidMessageError("x"), OutcomeUnknownError("x"),
    ResponseError("x", 400), AuthenticationError("x", 401), InvalidAggregateError("x", 200),
    ResponseError("x", 0), ValueError("x"), OSError("x"), TimeoutError("x"), KeyboardInterrupt(),
]  # fmt: skip
_READS = [NoResponseError("x"), *(ResponseError("x", status) for status in (500, 502, 504))]
_ALWAYS = [NotSentError("x"), ResponseError("x", 429), ResponseError("x", 503)]


@pytest.mark.parametrize("error", _NEVER, ids=repr)
def test_final(error: BaseException, slept: list[float]) -> None:
    assert _tries(error, reads_only=True) == _tries(error, reads_only=False) == 1
    assert slept == []


@pytest.mark.parametrize("error", _READS, ids=repr)
def test_harmless_for_what_only_reads(error: BaseException, slept: list[float]) -> None:
    assert _tries(error, reads_only=False) == 1
    assert _tries(error, reads_only=True) == ATTEMPTS
    assert len(slept) == ATTEMPTS - 1
    assert all(0 < pause <= 5 for pause in slept)


@pytest.mark.parametrize("error", _ALWAYS, ids=repr)
def test_harmless_for_everything(error: BaseException, slept: list[float]) -> None:
    assert _tries(error, reads_only=False) == _tries(error, reads_only=True) == ATTEMPTS


def test_the_pause_that_is_asked_for(slept: list[float]) -> None:
    for asked in (0.0, 0.01, LONGEST_PAUSE):
        assert _tries(ResponseError("x", 503, asked), reads_only=False) == ATTEMPTS
        assert slept == [asked] * (ATTEMPTS - 1)
        slept.clear()
    for asked in (LONGEST_PAUSE + 0.1, float("inf")):
        assert _tries(ResponseError("x", 503, asked), reads_only=False) == 1
    assert _tries(ResponseError("x", 503, 30), reads_only=False, seconds=20) == 1
    assert slept == []


def test_no_pause_past_the_deadline(slept: list[float]) -> None:
    assert _tries(ResponseError("x", 503), reads_only=True, seconds=0.3) == 1
    assert slept == []


def test_an_infinite_deadline(slept: list[float]) -> None:
    assert _tries(NotSentError("x"), reads_only=False, seconds=float("inf")) == ATTEMPTS


def test_success_ends_it(slept: list[float]) -> None:
    action = Mock(side_effect=[NotSentError("x"), ResponseError("x", 503, 2), "done"])
    assert retried(action, Deadline(100), reads_only=False) == "done"
    assert slept[1] == 2


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Deadline(seconds)


def test_each_retry_is_told_once_in_our_words(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _tries(ResponseError("busy", 503, 1.0), reads_only=False)
        _tries(ResponseError("very busy", 503, 30.0), reads_only=False)
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    often = ATTEMPTS - 1
    assert told[:often] == [("bktransport", "INFO", "busy; trying again in about 1 s")] * often
    assert (
        told[often:]
        == [("bktransport", "WARNING", "very busy; trying again in about 30 s")] * often
    )


def test_stamina_logs_for_others_as_ever(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    missing: dict[str, int] = {}
    with pytest.raises(KeyError):
        stamina.retry(on=KeyError, attempts=2)(lambda: missing["key"])()
    assert [record.name for record in caplog.records] == ["stamina"]
