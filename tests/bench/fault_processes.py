"""Faults of the machine and of our own process: killed, disk full, read-only, two at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fault_paths  # noqa: F401
from fault_downloads import fetch, start_tally
from fault_messages import Mail
from fault_peers import Ours, Published, broker, peer, until
from fault_service import Service
from fault_tally import NotProvenError, Run, Scenario, Tally
from fault_uploads import judge, new_update

from bktransport import Client, StateError
from bktransport.sandbox import Sandbox

__all__ = ["SCENARIOS"]

_NOBODY = 65534
_forks = multiprocessing.get_context("forkserver")
# A process takes 20 ms rather than a second. Installed packages alone: until Python 3.13 the server
# does not get our path.
_forks.set_forkserver_preload(
    [f"bktransport.{name}" for name in ("client", "sandbox.server", "sandbox.rabbitmq")]
)


# --- kill -9 ---------------------------------------------------------------------------------


def _consume(credentials: Mapping[str, Any], url: str, folder: str, handling: float) -> None:
    """As an application would: take an id, work on it, mark it as done, until killed."""
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(word: str, aggregation_id: str) -> None:
        os.write(log, f"{word} {aggregation_id}\n".encode())

    client = Client(credentials, url, state=f"{folder}/state", proxies={})
    client.authenticate()
    while True:
        aggregation_id = client.queue.get()
        note("offered", aggregation_id)
        time.sleep(handling)
        note("handled", aggregation_id)
        client.queue.task_done(aggregation_id)
        note("done", aggregation_id)


class _Consumers:
    """Processes that consume, one after another; each is killed."""

    def __init__(self, run: Run, sandbox: Sandbox) -> None:
        self._given = dict(sandbox.credentials[0]), sandbox.url
        self._folder = run.folder
        self._theirs = Published(*self._given, run.folder, login=False) if run.published else None

    def log(self) -> list[tuple[str, str]]:
        path = self._folder / "log"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [
            (word, aggregation_id) for word, _, aggregation_id in (x.partition(" ") for x in lines)
        ]

    @contextlib.contextmanager
    def one(self, handling: float) -> Iterator[None]:
        """A process that consumes, until the end of the block."""
        if self._theirs is not None:
            pid = self._theirs.ask("fork", str(self._folder / "log"), handling).value
            try:
                yield
            finally:
                os.kill(pid, signal.SIGKILL)
                self._theirs.ask("reap", pid)
            return
        process = _forks.Process(target=_consume, args=(*self._given, str(self._folder), handling))
        process.start()
        try:
            yield
        finally:
            process.kill()
            process.join()
            process.close()

    def close(self) -> None:
        if self._theirs is not None:
            self._theirs.close()


def _killed(run: Run) -> Tally:
    """At any moment: while it starts, receives, works, or marks as done."""
    at = broker(run)
    with Sandbox(leaves=1, bind=at.host, broker=at) as sandbox:
        mail, consumers = Mail(run, sandbox), _Consumers(run, sandbox)
        with contextlib.closing(consumers):
            for _ in run.steps():
                for _message in range(run.rng.randint(1, 5)):
                    mail.send()
                seen = len(consumers.log())
                with consumers.one(run.rng.uniform(0, 0.01)):
                    if run.rng.random() < 0.8:
                        until(lambda seen=seen: len(consumers.log()) > seen, 5)
                    time.sleep(run.rng.uniform(0, 0.06))
            sent = set(mail.sent)
            with consumers.one(0):
                patience = 10 if run.published else 60
                until(
                    lambda: sent <= {i for word, i in consumers.log() if word == "handled"},
                    patience,
                )
                left = 0 if run.published else mail.left()
        return _told(run, consumers.log(), sent, left)


def _told(run: Run, log: list[tuple[str, str]], sent: set[str], left: int) -> Tally:
    tally = Tally(runs=run.played)
    handled = {aggregation_id for word, aggregation_id in log if word == "handled"}
    offers = Counter(aggregation_id for word, aggregation_id in log if word == "offered")
    done: set[str] = set()
    late = 0
    for word, aggregation_id in log:
        late += word == "offered" and aggregation_id in done
        if word == "done":
            done.add(aggregation_id)
    tally.add("sent", len(sent))
    tally.add("handled", len(handled & sent))
    tally.add("offered again after the end of a process", sum(n > 1 for n in offers.values()))
    tally.add("lost", len(sent - handled))
    tally.add("offered when done", late)
    tally.add("left at the broker", left)
    return tally


# --- a full disk -----------------------------------------------------------------------------


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """One of 1 MiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise NotProvenError("there is no mount command") from exc
    if done.returncode:
        raise NotProvenError(f"needs a tmpfs of its own, for which be root: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(path: Path, spare: int = 0) -> None:
    """Take what the disk has, but for so many bytes."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - spare))


def _full_for_downloads(run: Run) -> Tally:
    """Room for a part of the file, or for nothing."""
    tally = start_tally(run)
    with (
        _small_disk(run.folder / "aggregated_output") as disk,
        broker(run) as at,
        Service(at) as service,
        peer(run, service.credentials, service.url, notifications=False) as client,
    ):
        for _ in run.steps():
            filler = disk / ".filler"
            spare = run.rng.randint(0, 3) * 4096  # a file takes three such pages
            fetch(
                run, tally, client, service, None,
                ready=partial(_fill, filler, spare), ignore=filler,
            )  # fmt: skip
            filler.unlink()
    return tally


def _full_for_messages(run: Run) -> Tally:
    """They wait at the broker until there is room."""
    with _small_disk(run.folder / "state") as disk:
        at = broker(run)
        with (
            Sandbox(leaves=1, bind=at.host, broker=at) as sandbox,
            peer(run, sandbox.credentials[0], sandbox.url) as client,
        ):
            mail = Mail(run, sandbox)
            assert isinstance(client, Ours)
            held = 0
            for _ in run.steps():
                _fill(disk / "filler")
                for _message in range(run.rng.randint(1, 3)):
                    mail.send()
                held += until(lambda: client.client.broker_error is not None, 5)
                (disk / "filler").unlink()
                mail.take_all(client)
            mail.tally.add("times held back", held)
            return mail.result(client)


def _full_for_uploads(run: Run) -> Tally:
    """Where the journal can't be written, nothing is sent."""
    tally = Tally()
    with (
        _small_disk(run.folder / "state") as disk,
        broker(run) as at,
        Service(at) as service,
        peer(run, service.credentials, service.url, notifications=False) as client,
    ):
        told = []
        for _ in run.steps():
            made = new_update(run)
            _fill(disk / "filler", spare=run.rng.choice([0, 0, 4096, 1 << 16]))
            told.append((made.sha256, client.upload(made.path)))
            (disk / "filler").unlink()
        service.settle()
        judge(tally, told, service.stored, client)
    return tally


# --- a folder that can't be written ------------------------------------------------------------


def _read_only(run: Run) -> Tally:
    """As a user who may not write the output folder, or not the state folder."""
    folder = run.folder
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
    receiver, sender = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_as_nobody, args=(run, sender))
    process.start()
    sender.close()
    try:
        tally = receiver.recv()
    except EOFError:
        tally = "the process ended without a word"
    receiver.close()
    process.join()
    process.close()
    if isinstance(tally, str):
        raise RuntimeError(tally)
    return tally


def _as_nobody(run: Run, sender: Any) -> None:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        sender.send(_downloads_read_only(run))
    except BaseException:  # noqa: BLE001  (the parent is to hear of it)
        sender.send(traceback.format_exc())
    finally:
        sender.close()


def _downloads_read_only(run: Run) -> Tally:
    tally = start_tally(run)
    output = run.folder / "aggregated_output"
    output.mkdir()
    with (
        broker(run) as at,
        Service(at) as service,
        peer(run, service.credentials, service.url, notifications=False) as client,
    ):
        for step in run.steps():
            if not run.published and step % 4 == 3:
                tally.runs += 1
                tally.add(_state_refused(service, run.folder / f"state-{step}"))
                continue
            fetch(run, tally, client, service, None, ready=lambda: output.chmod(0o500))
    return tally


def _state_refused(service: Service, state: Path) -> str:
    state.mkdir(mode=0o500)
    try:
        Client(service.credentials, service.url, state=state).close()
    except StateError:
        return "refused" if not any(state.iterdir()) else "litter"
    return "untyped"


# --- two at once -----------------------------------------------------------------------------


def _second(credentials: Mapping[str, Any], url: str, state: str, answer: Any) -> None:
    try:
        Client(credentials, url, state=state).close()
    except StateError as exc:
        answer.send(str(exc))
    except Exception as exc:  # noqa: BLE001  (that is what is looked for)
        answer.send(f"untyped {type(exc).__name__}")
    else:
        answer.send("let in")


def _two_clients(run: Run) -> Tally:
    """The second is of the same process or of another; the first one goes on."""
    at = broker(run)
    with (
        Sandbox(leaves=1, bind=at.host, broker=at) as sandbox,
        peer(run, sandbox.credentials[0], sandbox.url) as client,
    ):
        mail = Mail(run, sandbox)
        told: Counter[str] = Counter(dict.fromkeys(["refused", "let in twice", "not named"], 0))
        for _ in run.steps():
            mail.send()
            told[_what_second_was_told(run, sandbox)] += 1
            mail.send()
            mail.take_all(client)
        for name, count in told.items():
            mail.tally.add(name, count)
        return mail.result(client)


def _what_second_was_told(run: Run, sandbox: Sandbox) -> str:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    given = (sandbox.credentials[0], sandbox.url, str(run.folder / "state"), sender)
    with receiver, sender:
        if run.rng.random() < 0.5:
            _second(*given)
            said = receiver.recv()
        else:
            process = _forks.Process(target=_second, args=given)
            process.start()
            said = receiver.recv()
            process.join()
            process.close()
    if said == "let in":
        return "let in twice"
    if said.startswith("untyped"):
        return "untyped"
    return "refused" if re.search(rf"\b{os.getpid()}\b", said) else "not named"


SCENARIOS = (
    Scenario("kill-client", "our process: kill -9 at any moment", _killed, published=50),
    Scenario("full-download", "disk full: download", _full_for_downloads, published=50),
    Scenario("full-inbox", "disk full: inbox", _full_for_messages, why_not="keeps none"),
    Scenario(
        "full-journal", "disk full: journal of uploads", _full_for_uploads, why_not="has none"
    ),
    Scenario("read-only", "folder read-only, not as root", _read_only),
    Scenario("two-clients", "two clients on one state folder", _two_clients, why_not="has none"),
)
