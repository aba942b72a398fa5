"""Faults of uploads: each ends stored once, refused, or unknown and in the journal."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import fault_paths  # noqa: F401
import numpy as np
from fault_peers import Ours, Outcome, Peer, Published, broker, peer
from fault_service import Fault, Service
from fault_tally import Run, Scenario, Tally
from hostile_http import Behaviour, HostileServer, Request, early, redirect, reply
from proxy import TcpProxy

from bkformat import convert_file, write_update
from bktransport.sandbox import Sandbox

__all__ = ["SCENARIOS", "Made", "judge", "new_update"]

_STORED = "of them in fact stored"
_HEAD_NBYTES = 900  # what goes before and after the file, about


class Made(NamedTuple):
    """An update to send."""

    path: Path
    sha256: str
    nbytes: int


def new_update(run: Run) -> Made:
    """One that differs from all others, of 40 bytes to 800 KB of values."""
    path = run.folder / "update.npy"
    values = np.random.default_rng(run.rng.getrandbits(64))
    array = values.standard_normal(round(10 ** run.rng.uniform(1, 5.3)), dtype=np.float32)
    with write_update(path, run.rng.randint(1, 10**6), [array], fsync=False) as proof:
        return Made(path, proof.sha256, proof.nbytes)


def judge(
    tally: Tally, told: Sequence[tuple[str, Outcome]], stored: Mapping[str, int], client: Peer
) -> None:
    """Hold what the client said and noted against what the server has."""
    journal = client.journal() if isinstance(client, Ours) else None
    names = ["stored once", "refused", "unknown and journalled", _STORED]
    for name in [*names, "stored twice", "neither"] if journal is not None else ["stored once"]:
        tally.add(name, 0)
    tally.runs += len(told)
    for sha256, outcome in told:
        copies = stored.get(sha256, 0)
        if copies > 1:
            tally.add("stored twice")
        elif journal is None:
            tally.add(_published(outcome, copies))
        else:
            ended = _ended(outcome, copies, journal.get(sha256))
            tally.add(ended)
            if ended == "unknown and journalled":
                tally.add(_STORED, copies)
            if ended == "neither":
                noted = journal.get(sha256)
                tally.note(f"{outcome.kind} {outcome.error}: {copies} stored, journal: {noted}")


def _ended(outcome: Outcome, copies: int, noted: str | None) -> str:
    if outcome.kind == "done" and copies == 1 and noted == "stored":
        return "stored once"
    if outcome.kind == "refused" and copies == 0 and noted in ("refused", None):
        return "refused"
    if outcome.kind == "unknown" and noted == "unknown":
        return "unknown and journalled"
    return "neither"


def _published(outcome: Outcome, copies: int) -> str:
    if outcome.kind == "done":
        return "stored once" if copies else "said stored, and not"
    return f"{outcome.kind}, {'yet stored' if copies else 'not stored'}"


# --- cut on the way ---------------------------------------------------------------------------


def _behind_proxy(
    run: Run, fault: Callable[[TcpProxy, Made], None], fail: Sequence[str] = ()
) -> Tally:
    """Uploads to the sandbox, each with a fault of its own on the way."""
    tally, told = Tally(), []
    at = broker(run)
    with Sandbox(leaves=1, bind=at.host, broker=at, fail=fail) as sandbox:
        server = urlsplit(sandbox.url)
        with TcpProxy(str(server.hostname), int(server.port or 0)) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            with peer(run, sandbox.credentials[0], url, notifications=False) as client:
                for _ in run.steps():
                    made = new_update(run)
                    fault(proxy, made)
                    told.append((made.sha256, client.upload(made.path)))
                    proxy.heal()
                stored = _settled(sandbox)
                judge(tally, told, stored, client)
    return tally


def _settled(sandbox: Sandbox) -> dict[str, int]:
    """What the sandbox has, once nothing more comes in: a cut upload may be whole all the same."""
    stored: dict[str, int] = {}
    while True:
        time.sleep(0.5)
        digests = [upload["sha256"] for upload in sandbox.state()["uploads"]]
        now = {sha256: digests.count(sha256) for sha256 in digests}
        if now == stored:
            return stored
        stored = now


def _reset(run: Run) -> Tally:
    def fault(proxy: TcpProxy, made: Made) -> None:
        proxy.cut_after(run.rng.randint(0, made.nbytes + _HEAD_NBYTES), "up")

    return _behind_proxy(run, fault)


def _lost_reply(run: Run) -> Tally:
    """The first half by the sandbox's own fault, the others cut on the way back."""
    half = run.runs // 2
    played = iter(range(run.runs))

    def fault(proxy: TcpProxy, made: Made) -> None:
        if next(played) >= half:
            proxy.cut_after(run.rng.randint(0, 100), "down")

    return _behind_proxy(run, fault, fail=[f"lost-reply:{half}"] if half else [])


def _lost_once(run: Run) -> Tally:
    """The first reply to each update, beside a later client, which sends again blindly."""
    tally, told = Tally(), []
    with broker(run) as at, Service(at) as service, contextlib.ExitStack() as stack:
        client: Peer
        if run.published:
            client = Published(service.credentials, service.url, run.folder, version=_LATER)
            stack.callback(client.close)
        else:
            client = stack.enter_context(
                peer(run, service.credentials, service.url, notifications=False)
            )
        for _ in run.steps():
            made = _as_npz(new_update(run)) if run.published else new_update(run)
            uploads = _times(service.lose_reply, 1)
            service.fault = lambda request, uploads=uploads: (
                uploads(request) if request.target.endswith("/upload") else None
            )
            told.append((made.sha256, client.upload(made.path)))
            service.fault = None
        service.settle()
        judge(tally, told, service.stored, client)
    return tally


def _as_npz(made: Made) -> Made:
    """What later clients send."""
    path = made.path.with_suffix(".npz")
    convert_file(made.path, path, fsync=False)
    data = path.read_bytes()
    return Made(path, hashlib.sha256(data).hexdigest(), len(data))


# --- answers that are no 201 ------------------------------------------------------------------


def _at_service(run: Run, new_fault: Callable[[], Fault]) -> Tally:
    tally, told = Tally(), []
    with (
        broker(run) as at,
        Service(at) as service,
        peer(run, service.credentials, service.url, notifications=False) as client,
    ):
        for _ in run.steps():
            made = new_update(run)
            service.fault = new_fault()
            told.append((made.sha256, client.upload(made.path)))
            service.fault = None
        service.settle()
        judge(tally, told, service.stored, client)
    return tally


def _times(behaviour: Behaviour, count: int) -> Fault:
    """So for the first uploads, and as usual for those after them."""
    left = iter(range(count))

    def fault(request: Request) -> Behaviour | None:
        return behaviour if next(left, None) is not None else None

    return fault


def _busy(run: Run, *, dated: bool) -> Tally:
    """Once or twice, at once or after the whole body; 600 s are more than a client waits."""

    def new_fault() -> Fault:
        status = run.rng.choice([429, 503])
        seconds = run.rng.choice([0, 0, 1, 600])
        after = str(seconds)
        if dated:
            when = datetime.now(timezone.utc) + timedelta(seconds=seconds)
            after = format_datetime(when, usegmt=True)
        body = {"error": "busy"}
        if run.rng.random() < 0.2:
            return _times(early(status, body), 1)
        return _times(reply(status, body, Retry_After=after), run.rng.choice([1, 1, 2]))

    return _at_service(run, new_fault)


def _redirect(run: Run) -> Tally:
    taken = reply(201, {"data": {"file_id": "of-somebody-else"}})
    with HostileServer(taken) as elsewhere:

        def new_fault() -> Fault:
            status = run.rng.choice([301, 302, 303, 307, 308])
            return _times(redirect(status, f"{elsewhere.url}/v1/file/upload"), 1)

        tally = _at_service(run, new_fault)
        requests = elsewhere.settle()
        tally.add("followed", len(requests))
        tally.add("sent elsewhere", sum(bool(request.body) for request in requests))
    return tally


_LATER = "3.0.1"

SCENARIOS = (
    Scenario("reset", "upload: reset at a random byte", _reset, published=200),
    Scenario("lost-reply", "upload: reply lost", _lost_reply, published=200),
    Scenario(
        "lost-reply-later", f"upload: reply lost, beside branchkey {_LATER}", _lost_once,
        published=50,
    ),
    Scenario(
        "busy", "upload: 429 or 503, Retry-After in seconds", partial(_busy, dated=False),
        published=200,
    ),
    Scenario(
        "busy-date", "upload: 429 or 503, Retry-After a date", partial(_busy, dated=True),
        published=200,
    ),
    Scenario("redirect-upload", "upload: redirect to another host", _redirect, published=200),
)  # fmt: skip
