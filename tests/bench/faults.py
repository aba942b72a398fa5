"""What becomes of updates, files and messages when things go wrong: counted, for many faults.

    python tests/bench/faults.py                      everything, each 200 times: half an hour
    python tests/bench/faults.py --only reset         one fault; may be given again
    python tests/bench/faults.py --list               their names
    python tests/bench/faults.py --markdown           the table of the README
    python tests/bench/faults.py --ours               without the published client

Cut points, sizes and delays come from the seed, so that a run can be repeated. Exit code 1: an
invariant was broken; a line below the table says how. What this machine can't show is told as
"NOT PROVEN". The published client runs in an environment of its own, made the first time.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from random import Random

import fault_downloads
import fault_messages
import fault_processes
import fault_uploads
from fault_tally import NotProvenError, Run, Scenario, Tally

__all__ = ["SCENARIOS", "played"]

SCENARIOS = {
    scenario.name: scenario
    for module in (fault_uploads, fault_downloads, fault_messages, fault_processes)
    for scenario in module.SCENARIOS
}


def played(
    scenario: Scenario, seed: int, runs: int, *, published: bool = False, seconds: float = math.inf
) -> Tally:
    """Play a scenario in a temporary folder, for so long at most.

    Raises:
        NotProvenError: this machine can't.
    """
    # Nobody but root may have a way into what TMPDIR names, and one fault is played as nobody.
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as folder:
        rng = Random(f"{seed}-{scenario.name}")
        return scenario.play(Run(scenario.name, rng, runs, Path(folder), published, seconds))


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Faults, many times, and what came of them.")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--runs", type=int, default=200, help="of each fault")
    parser.add_argument("--slow-runs", type=int, default=10, help="of those that take long")
    parser.add_argument("--broker-runs", type=int, default=200, help="starts of a real RabbitMQ")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--ours", action="store_true", help="without the published client")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="that one fault takes at most; then stop"
    )
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    return parser.parse_args(given)


# --- one fault, in a process of its own ------------------------------------------------------


def _runs(scenario: Scenario, given: argparse.Namespace) -> int:
    paces = {"usual": given.runs, "slow": given.slow_runs, "broker": given.broker_runs}
    return int(paces[scenario.pace])


def _told(
    scenario: Scenario, given: argparse.Namespace, runs: int, *, published: bool = False
) -> Tally:
    """A tally in any case: one that says what went wrong, if need be."""
    try:
        seconds = 60 * given.minutes
        return played(scenario, given.seed, runs, published=published, seconds=seconds)
    except NotProvenError as exc:
        return Tally(notes=[f"NOT PROVEN: {exc}"])
    except Exception as exc:  # noqa: BLE001  (the others are played all the same)
        traceback.print_exc()
        return Tally(counts={"untyped": 1}, notes=[f"{type(exc).__name__}: {exc}"])


def _play(name: str, given: argparse.Namespace) -> None:
    """Print both tallies as JSON."""
    scenario = SCENARIOS[name]
    runs = _runs(scenario, given)
    tallies = [_told(scenario, given, runs)]
    if scenario.published and not given.ours:
        runs = min(runs, scenario.published)
        tallies.append(_told(scenario, given, runs, published=True))
    print(json.dumps([asdict(tally) for tally in tallies]))


def _in_child(name: str, given: argparse.Namespace) -> list[Tally]:
    options = [
        f"--{option.replace('_', '-')}={getattr(given, option)}"
        for option in ("seed", "runs", "slow_runs", "broker_runs", "minutes")
    ]
    command = [sys.executable, __file__, "--play", name, *options]
    command += ["--ours"] if given.ours else []
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        tallies = [Tally(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]
    except (IndexError, ValueError):
        tallies = [Tally(counts={"untyped": 1}, notes=[f"ended with {done.returncode}"])]
    print(f"{name}: {tallies[0].text()} {tallies[0].notes}", file=sys.stderr, flush=True)
    return tallies


# --- the table -------------------------------------------------------------------------------

_HEAD = ("fault", "runs", "bktransport", "branchkey 2.4.2")


def _cells(scenario: Scenario, tallies: Sequence[Tally]) -> tuple[str, ...]:
    ours = tallies[0]
    said = ours.text() or "; ".join(ours.notes)
    theirs = f"({scenario.why_not})"
    if len(tallies) > 1:
        peer = tallies[1]
        told = ", ".join(f"{count} {name}" for name, count in peer.counts.items() if count)
        theirs = f"{peer.runs}: {told}" if peer.runs else "; ".join(peer.notes)
    return scenario.what, str(ours.runs), ("! " if ours.broken else "") + said, theirs


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _print(rows: Sequence[tuple[str, ...]], markdown: bool) -> None:
    if not markdown:
        print(*_aligned([_HEAD, *rows]), sep="\n")
        return
    for cells in (_HEAD, ("---",) * len(_HEAD), *rows):
        print(f"| {' | '.join(cells)} |")


def _main() -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # warnings are what faults are for
    given = _arguments()
    if given.list:
        print(*SCENARIOS, sep="\n")
        return 0
    if given.play:
        _play(given.play, given)
        return 0
    names = given.only or list(SCENARIOS)
    with ThreadPoolExecutor(given.jobs) as pool:
        played_all = list(pool.map(lambda name: _in_child(name, given), names))
    pairs = list(zip(names, played_all, strict=True))
    _print([_cells(SCENARIOS[name], tallies) for name, tallies in pairs], given.markdown)
    broken = [(name, tallies[0]) for name, tallies in pairs if tallies[0].broken]
    for name, tally in broken:
        print(f"\nBROKEN: {name}: {tally.text()}", *tally.notes, sep="\n    ")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(_main())
