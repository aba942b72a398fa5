"""The two clients behind one face: ours in this process, the published one in a child."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fault_paths
from fault_tally import NotProvenError, Run
from interop.environments import environment

from bkformat import UpdateChangedError
from bktransport import (
    BkTransportError,
    Client,
    OutcomeUnknownError,
)
from bktransport.sandbox.broker import EmbeddedBroker

__all__ = ["Ours", "Outcome", "Peer", "Published", "broker", "peer", "until"]

_PORT = 5672
"""The published client dials no other, whatever its credentials say."""

_NUMPY = "1.26.4" if sys.version_info < (3, 13) else "2.1.3"
_PATIENCE = 20.0
"""Seconds after which the published client counts as hung."""


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        kind: "done"; "refused", "unknown" or "untyped" with ours; "failed" or "hung" with the
            published one.
        value: what it gave.
        error: what it raised.
    """

    kind: str
    value: Any = None
    error: str = ""


class Ours:
    """`bktransport.Client`, with its state in `folder`."""

    def __init__(
        self, credentials: Mapping[str, Any], url: str, folder: Path, **options: Any
    ) -> None:
        self.client = Client(
            credentials, url,
            state=folder / "state", output=folder / "aggregated_output", proxies={}, **options,
        )  # fmt: skip
        try:
            self.client.authenticate()
        except BaseException:
            self.client.close()
            raise

    def upload(self, path: Path) -> Outcome:
        return _outcome(self.client.file_upload, path)

    def download(self, file_id: str, deadline: float | None = None) -> Outcome:
        return _outcome(self.client.file_download, file_id, deadline=deadline)

    def get(self, seconds: float) -> str | None:
        """The next aggregation id, marked done as soon as it is here."""
        try:
            aggregation_id = self.client.queue.get(timeout=seconds)
        except queue.Empty:
            return None
        self.client.queue.task_done(aggregation_id)
        return aggregation_id

    def journal(self) -> dict[str, str]:
        """State of the last upload, by digest."""
        return {record.sha256: record.state for record in self.client.uploads()}

    def close(self) -> None:
        self.client.close()


def _outcome(call: Any, *arguments: Any, **options: Any) -> Outcome:
    try:
        return Outcome("done", call(*arguments, **options))
    except OutcomeUnknownError as exc:
        return Outcome("unknown", error=_told(exc))
    except (BkTransportError, UpdateChangedError, OSError) as exc:
        return Outcome("refused", error=_told(exc))
    except Exception as exc:  # noqa: BLE001  (that is what is looked for)
        return Outcome("untyped", error=_told(exc))


def _told(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"


class Published:
    """`branchkey` as pip installs it, in a process that is started anew where it hangs."""

    def __init__(
        self, credentials: Mapping[str, Any], url: str, folder: Path, *,
        login: bool = True, version: str = "2.4.2",
    ) -> None:  # fmt: skip
        wanted = [f"branchkey=={version}"]
        wanted += [f"numpy=={_NUMPY}"] if version == "2.4.2" else []
        self._python = environment(*wanted)
        self._given = dict(credentials), url
        self._folder = folder
        self._login = login
        self._start()

    def _start(self) -> None:
        credentials, url = self._given
        driver = Path(fault_paths.__file__).with_name("fault_driver.py")
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with open(self._folder / "published.log", "ab") as log:
            self._process = subprocess.Popen(
                [str(self._python), str(driver), url],
                cwd=self._folder, env={**kept, "HOME": str(self._folder)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._answers = bytearray()
        self._tell(credentials)
        if self._login and self.ask("authenticate").value is not True:
            raise RuntimeError("the published client can't log in: see published.log")

    def _tell(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, *command: object, seconds: float = _PATIENCE) -> Outcome:
        """What a call gave; where no answer comes in time, the process is replaced."""
        try:
            self._tell(command)
            answer = self._answer(time.monotonic() + seconds)
        except (BrokenPipeError, EOFError):
            self._end()
            self._start()
            return Outcome("failed", error="the process ended")
        if answer is None:
            self._end()
            self._start()
            return Outcome("hung")
        if "error" in answer:
            return Outcome("failed", error=answer["error"])
        return Outcome("done", answer["value"])

    def _answer(self, end: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._answers:
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            data = os.read(pipe, 1 << 16)
            if not data:
                raise EOFError
            self._answers += data
        line, _, rest = bytes(self._answers).partition(b"\n")
        self._answers = bytearray(rest)
        return dict(json.loads(line))

    def upload(self, path: Path) -> Outcome:
        return self.ask("upload", str(path))

    def download(self, file_id: str, deadline: float | None = None) -> Outcome:
        patience = _PATIENCE if deadline is None else 10 * deadline
        return self.ask("download", file_id, seconds=patience)

    def get(self, seconds: float) -> str | None:
        outcome = self.ask("get", seconds, seconds=seconds + _PATIENCE)
        return outcome.value if outcome.kind == "done" else None

    def _end(self) -> None:
        self._process.kill()
        with self._process:  # waits, and closes the pipes
            pass

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._end()


Peer: TypeAlias = Ours | Published


@contextlib.contextmanager
def peer(run: Run, credentials: Mapping[str, Any], url: str, **options: Any) -> Iterator[Peer]:
    """The client of this run, logged in; the options are for ours alone."""
    client: Peer
    if run.published:
        client = Published(credentials, url, run.folder)
    else:
        client = Ours(credentials, url, run.folder, **options)
    try:
        yield client
    finally:
        client.close()


def broker(run: Run, **options: Any) -> EmbeddedBroker:
    """A broker where the client of this run looks for one."""
    if not run.published:
        return EmbeddedBroker(**options)
    for number in [*range(2, 60), 1]:  # macOS has 127.0.0.1 alone
        with contextlib.suppress(OSError):
            return EmbeddedBroker(bind=f"127.0.0.{number}", port=_PORT, **options)
    raise NotProvenError("port 5672 is taken on all of 127.0.0.1 to .59")


def until(condition: Any, seconds: float = 60.0) -> bool:
    """Wait for a thing to happen, generously; whether it did."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
