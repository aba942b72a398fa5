"""Many files: in order, through any executor, and one bad file never ends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import Report, UpdateChangedError, UpdateSchema, check_file, check_many, many

from .files import aggregate, update, zeros


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """200 files: valid ones, refused ones, and some that can't be judged."""
    folder = tmp_path_factory.mktemp("many")
    found = []
    for at in range(200):
        path = folder / f"{at:03}.npy"
        if at % 10 == 3:
            path.mkdir()
        elif at % 10 == 4:
            path.write_bytes(b"junk")
        elif at % 10 == 5:
            path.write_bytes(update(np.array([np.nan], "f4"), num_samples=at + 1))
        elif at % 10 != 6:  # and those are missing
            path.write_bytes(update(*zeros((at, 2)), num_samples=at + 1))
        found.append(path)
    return found


def _processes() -> Executor:
    # Not forked: threads of other tests may hold locks.
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


_EXECUTORS: dict[str, Callable[[], Executor]] = {
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": _processes,
}


def told(outcome: object) -> object:
    """Exceptions are compared by what they say."""
    if isinstance(outcome, OSError):
        return type(outcome), outcome.errno, str(outcome)
    return outcome


@pytest.fixture(scope="module")
def alone(paths: list[Path]) -> list[tuple[Path, object]]:
    return [(path, told(outcome)) for path, outcome in check_many(paths)]


def test_alone(paths: list[Path], alone: list[tuple[Path, object]]) -> None:
    assert [path for path, _ in alone] == paths
    for at, (path, outcome) in enumerate(alone):
        if at % 10 == 3:
            assert isinstance(outcome, tuple)
            assert outcome[0] is IsADirectoryError
        elif at % 10 == 6:
            assert isinstance(outcome, tuple)
            assert outcome[0] is FileNotFoundError
        else:
            assert outcome == check_file(path)


@pytest.mark.parametrize("executor", sorted(_EXECUTORS))
def test_through_an_executor(
    executor: str, paths: list[Path], alone: list[tuple[Path, object]]
) -> None:
    with _EXECUTORS[executor]() as pool:
        found = list(check_many(paths, executor=pool))
        assert [(path, told(outcome)) for path, outcome in found] == alone
        # An executor is left open for the next call, and options reach the workers.
        schema = UpdateSchema.model_validate({"version": 1, "num_samples": {"max": 1}})
        options = {"schema": schema, "sha256": True, "strict": True}
        again = list(check_many(paths[:90], executor=pool, **options))  # type: ignore[arg-type]
        expected = list(check_many(paths[:90], **options))  # type: ignore[arg-type]
        assert [(p, told(o)) for p, o in again] == [(p, told(o)) for p, o in expected]
        assert any(isinstance(o, Report) and o.sha256 and o.strict for _, o in again)


@pytest.mark.parametrize("executor", [None, *sorted(_EXECUTORS)])
def test_a_generator_and_an_early_stop(executor: str | None, paths: list[Path]) -> None:
    taken = 0

    def generated() -> Iterator[Path]:
        nonlocal taken
        for _ in range(1000):
            for path in paths:
                taken += 1
                yield path

    pool = _EXECUTORS[executor]() if executor else None
    results = check_many(generated(), executor=pool)
    first = [next(results) for _ in range(3)]
    results.close()  # type: ignore[attr-defined]
    assert [path for path, _ in first] == paths[:3]
    # Paths are taken as they are needed, never all of them.
    assert taken <= (3 if pool is None else 3 + many._CHUNK * (many._IN_FLIGHT + 2))
    if pool is not None:
        pool.shutdown()


def test_nothing_to_do() -> None:
    assert list(check_many([])) == []
    with ThreadPoolExecutor(1) as pool:
        assert list(check_many(iter(()), executor=pool)) == []


def test_a_misspelt_kind_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="kind"):
        check_many([], kind="updates")  # type: ignore[arg-type]


def test_kinds(tmp_path: Path) -> None:
    path = tmp_path / "aggregate.npy"
    path.write_bytes(aggregate(*zeros((2,), (3,))))
    ((_, outcome),) = check_many([path], kind="aggregate")
    assert isinstance(outcome, Report)
    assert outcome.valid


def test_what_is_no_path_does_not_end_it(paths: list[Path]) -> None:
    strange = [None, "a\0b", 3.5, b"bytes-that-are-missing"]
    found = list(check_many([paths[0], *strange, paths[1]]))  # type: ignore[list-item]
    assert all(isinstance(outcome, OSError) for _, outcome in found[1:-1])
    assert isinstance(found[0][1], Report)
    assert isinstance(found[-1][1], Report)


def test_our_own_fault_does_not_end_it(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(path: Path, **_: object) -> Report:
        if path == paths[1]:
            raise ZeroDivisionError("oh")
        if path == paths[2]:
            raise UpdateChangedError("changed")
        return Report("update", 0)

    monkeypatch.setattr(many, "judge_file", faulty)
    outcomes = [outcome for _, outcome in check_many(paths[:4])]
    assert [type(outcome) for outcome in outcomes] == [Report, OSError, UpdateChangedError, Report]
    assert "internal error: ZeroDivisionError: oh" in str(outcomes[1])


def test_a_worker_that_died(paths: list[Path]) -> None:
    """Every file has an outcome even then."""
    with _processes() as pool:
        assert isinstance(pool.submit(os._exit, 3).exception(60), BrokenExecutor)
        found = list(check_many(paths, executor=pool))
    assert [path for path, _ in found] == paths
    assert all("worker" in str(outcome) for _, outcome in found)
    assert all(isinstance(outcome, OSError) for _, outcome in found)


class _Dying(Executor):
    """Judges the first task, and breaks over all others."""

    def __init__(self) -> None:
        self.tasks = 0

    def submit(self, *task: Any, **options: Any) -> Future[Any]:
        self.tasks += 1
        future: Future[Any] = Future()
        if self.tasks == 1:
            future.set_result(task[0](*task[1:], **options))
        else:
            future.set_exception(BrokenExecutor("gone"))
        return future


def test_a_worker_that_dies_on_the_way(paths: list[Path], alone: list[tuple[Path, object]]) -> None:
    found = [(path, told(outcome)) for path, outcome in check_many(paths, executor=_Dying())]
    assert [path for path, _ in found] == paths
    assert found[: many._CHUNK] == alone[: many._CHUNK]
    assert all("worker" in str(outcome) for _, outcome in found[many._CHUNK :])


@pytest.mark.parametrize("jobs", [1, 2])
def test_large_files_are_judged_here_in_their_turn(
    jobs: int, paths: list[Path], alone: list[tuple[Path, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_LARGE", 700)
    read: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        found = list(check_many(paths, executor=pool, jobs=jobs, progress=read.append))
    assert [(path, told(outcome)) for path, outcome in found] == alone
