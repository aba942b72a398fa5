"""Every fault of the bench script a few times: nothing is lost, doubled or harmed.

`tests/bench/faults.py` plays each of them 200 times, beside the published client.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from fault_tally import NEVER, NotProvenError, Tally
from faults import SCENARIOS, played

from .rabbitmq import find

# A few: the whole file is to take less than a minute.
_RUNS = {"black-hole": 1, "consumer-timeout": 1, "kill-broker": 1}

# What must have been looked at; a scenario that counts nothing would break no rule.
_EXPECTED = {
    "reset": {"stored once", "refused", "unknown and journalled", "stored twice", "neither"},
    "truncated": {"right", "refused", "wrong", "old file harmed", "litter"},
    "close": {"sent", "handled", "lost", "offered twice", "left at the broker"},
    "kill-client": {"sent", "handled", "lost", "offered when done", "left at the broker"},
    "poison": {"sent", "handled", "kept aside", "not kept aside"},
    "two-clients": {"refused", "let in twice", "not named", "sent", "handled"},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_invariant_is_broken(name: str) -> None:
    runs = _RUNS.get(name, 4)
    try:
        tally = played(SCENARIOS[name], 2026, runs)
    except NotProvenError as exc:
        if os.environ.get("CI") and name == "kill-broker":
            pytest.fail(f"CI must prove {name}: {exc}", pytrace=False)
        pytest.skip(f"NOT PROVEN: {name}: {exc}")
    assert not tally.broken, (tally.text(), tally.notes)
    assert tally.runs == runs
    assert tally.counts.keys() >= _EXPECTED.get(name, set())
    ends = ("stored once", "refused", "unknown and journalled", "right", "handled")
    assert sum(tally.counts.get(end, 0) for end in ends) >= runs


@pytest.mark.parametrize("name", NEVER)
def test_what_never_may_happen_breaks_the_run(name: str) -> None:
    tally = Tally(runs=1)
    tally.add(name, 0)
    assert not tally.broken
    tally.add(name)
    assert tally.broken


class _Following(requests.Session):
    def request(self, *given: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        return super().request(*given, **{**options, "allow_redirects": True})


# Guarantees of the library, each broken on purpose.
_BROKEN: dict[str, tuple[str, Any]] = {
    "only what was not sent is sent again": ("bktransport.retries.NotSentError", Exception),
    "the journal": ("bktransport.journal.Journal.finish", lambda *_, **__: None),
    "no redirects": ("bktransport.api._Session", _Following),
    "validation": ("bktransport.download.check_file", lambda *_, **__: SimpleNamespace(valid=True)),
    "the inbox": ("bktransport.inbox.Inbox.commit", lambda *_, **__: None),
}


@pytest.mark.parametrize(
    ("broken", "scenario", "found"),
    [
        ("only what was not sent is sent again", "lost-reply", "stored twice"),
        ("the journal", "lost-reply", "neither"),
        ("no redirects", "redirect-upload", "followed"),
        ("validation", "content", "wrong"),
        ("the inbox", "close", "lost"),
    ],
)
def test_the_scenarios_find_what_they_look_for(
    monkeypatch: pytest.MonkeyPatch, broken: str, scenario: str, found: str
) -> None:
    monkeypatch.setattr(*_BROKEN[broken])
    monkeypatch.setattr("fault_messages._PATIENCE", 0.5)
    tally = played(SCENARIOS[scenario], 2026, 4)
    assert tally.broken
    assert tally.counts[found]


def test_it_is_played_on_a_real_rabbitmq_where_there_is_one(rabbit_installed: str) -> None:
    """Fails where CI has none; elsewhere the summary of skipped tests says what is not proven."""
    assert find()[0] is not None
