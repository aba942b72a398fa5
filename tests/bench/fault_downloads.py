"""Faults of downloads: the right file or a typed error, and then the old file and nothing else."""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fault_paths  # noqa: F401
import numpy as np
from fault_peers import Outcome, Peer, broker, peer
from fault_service import Fault, Service
from fault_tally import Run, Scenario, Tally
from hostile_http import (
    Behaviour,
    Exchange,
    HostileServer,
    Request,
    chunked,
    drip,
    endless,
    raw,
    redirect,
    reply,
)

from bkformat import ArraySpec, UpdateSchema, build_update

__all__ = ["SCENARIOS", "aggregate", "fetch", "start_tally"]

_SHAPE = (64, 33)
_SCHEMA = UpdateSchema(version=1, parameters=[ArraySpec(dtype="float32", shape=_SHAPE)])
_MAX_NBYTES = 1 << 20
_DEADLINE = 0.5
"""Seconds for downloads that can't succeed."""

_GRACE = 10.0
"""Seconds that a call may end after its deadline: generous, for a machine that is busy."""


def aggregate(run: Run, shape: tuple[int, ...] = _SHAPE) -> bytes:
    """A valid one that differs from all others."""
    values = np.random.default_rng(run.rng.getrandbits(64))
    array = values.standard_normal(shape, dtype=np.float32)
    return build_update(run.rng.randint(1, 10**6), [array])


def start_tally(run: Run) -> Tally:
    """With the counts that a reader looks for."""
    tally = Tally()
    for name in ("right", "refused", "wrong", "old file harmed", "litter"):
        if not run.published:
            tally.add(name, 0)
    return tally


def fetch(
    run: Run, tally: Tally, client: Peer, service: Service, fault: Fault | None,
    deadline: float | None = None, *,
    ready: Callable[[], object] | None = None, ignore: Path | None = None,
) -> None:  # fmt: skip
    """One download under a fault, with or without an old file where the new one is to go.

    Args:
        run: gives the content.
        tally: what comes of it is added here.
        client: downloads.
        service: serves the file, or meets the fault.
        fault: of this download.
        deadline: seconds for it.
        ready: called when the old file is in its place.
        ignore: another file of the folder that may stay.
    """
    file_id = f"aggregate-{tally.runs}"
    good = aggregate(run)
    service.files[file_id] = good
    folder = run.folder / "aggregated_output"
    folder.mkdir(exist_ok=True)
    target = folder / f"{file_id}.npy"
    old = aggregate(run) if run.rng.random() < 0.7 else None
    if old is not None:
        target.write_bytes(old)
    if ready is not None:
        ready()
    service.fault = fault
    began = time.monotonic()
    outcome = client.download(file_id, deadline)
    took = time.monotonic() - began
    service.fault = None
    del service.files[file_id]
    folder.chmod(0o700)
    _judge(tally, outcome, target, good, old, ignore)
    if deadline is not None and took > deadline + _GRACE:
        tally.add("past the deadline")
    target.unlink(missing_ok=True)


def _judge(
    tally: Tally, outcome: Outcome, target: Path, good: bytes, old: bytes | None,
    ignore: Path | None,
) -> None:  # fmt: skip
    tally.runs += 1
    found = target.read_bytes() if target.exists() else None
    litter = [path for path in target.parent.iterdir() if path not in (target, ignore)]
    for path in litter:
        path.unlink()
    tally.add("litter", len(litter))
    if outcome.kind == "done":
        ended = "right" if found == good else "wrong"
    elif outcome.kind == "untyped":
        ended = "untyped"
    elif found != old:
        ended = "old file harmed" if old is not None else "wrong"
    else:
        ended = outcome.kind
    tally.add(ended)
    if ended in ("wrong", "untyped", "old file harmed"):
        tally.note(f"{outcome.kind} {outcome.error}: {len(found or b'')} bytes there")


def _downloads(
    run: Run, new_fault: Callable[[Service], tuple[Fault, float | None]], **options: object
) -> Tally:
    tally = start_tally(run)
    with (
        broker(run) as at,
        Service(at) as service,
        peer(run, service.credentials, service.url, notifications=False, **options) as client,
    ):
        for _ in run.steps():
            fault, deadline = new_fault(service)
            fetch(run, tally, client, service, fault, deadline)
    return tally


def _files(behaviours: Iterator[Behaviour]) -> Fault:
    """What befalls the fetches of the file, one after another; then nothing does."""

    def fault(request: Request) -> Behaviour | None:
        return next(behaviours, None) if request.target.startswith("/files/") else None

    return fault


def _body_of(service: Service, exchange: Exchange) -> bytes:
    last = exchange.request.target.partition("?")[0].rpartition("/")[2]
    return service.files[last]


def _cut(run: Run, service: Service) -> Behaviour:
    """A part of the file: by FIN or RST, of a known length, in chunks, or of none."""
    share, how = run.rng.random(), run.rng.choice(["length", "chunks", "nothing"])
    resets = run.rng.random() < 0.5

    def behave(exchange: Exchange) -> None:
        body = _body_of(service, exchange)
        count = int(share * len(body))
        if how == "chunks":
            chunked(200, body, cut=max(1, len(body) - count))(exchange)
        else:
            length = f"Content-Length: {len(body)}\r\n" if how == "length" else ""
            head = f"HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n"
            raw(head.encode() + body[:count])(exchange)
        if resets:
            exchange.reset()

    return behave


def _truncated(run: Run) -> Tally:
    """One file in two is cut once, and comes whole when asked again; the others never do."""

    def new_fault(service: Service) -> tuple[Fault, float | None]:
        if run.rng.random() < 0.5:
            return _files(iter([_cut(run, service)])), None
        cuts = [_cut(run, service) for _ in range(20)]
        return _files(iter(cuts)), _DEADLINE

    return _downloads(run, new_fault)


_ENDLESS_NBYTES = 64 << 20
"""Bytes after which the service tires of a client that takes everything."""


def _endless(run: Run) -> Tally:
    """Without a length, in chunks, or of a length that nobody wants."""

    def tiring(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(_ENDLESS_NBYTES >> 16):
            exchange.send(bytes(1 << 16))

    def new_fault(service: Service) -> tuple[Fault, float | None]:
        if run.published:
            return _files(iter([tiring])), None
        huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
        one = run.rng.choice([endless(), endless(chunks=True), raw(huge)])
        return _files(iter([one] * 20)), None

    return _downloads(run, new_fault, max_download_nbytes=_MAX_NBYTES)


def _drip(run: Run) -> Tally:
    """Single bytes: of the head, of the body, or of the reply that names the URL."""

    def new_fault(service: Service) -> tuple[Fault, float | None]:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 8600\r\n\r\n"
        at, where = run.rng.choice([0, len(head)]), run.rng.choice(["/files/", "/v1/file/"])
        slow = drip(head + bytes(8600), 0.05, at=at)
        return lambda request: slow if request.target.startswith(where) else None, _DEADLINE

    return _downloads(run, new_fault)


class _Payload:
    """Code in the file, which only an unpickler would run."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("this ran",)


def _contents(run: Run) -> bytes:
    """What is no aggregate, or not the one that is wanted."""
    plain = io.BytesIO()
    np.save(plain, np.ones(run.rng.randint(1, 1000), np.float32))
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    described = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    return run.rng.choice(
        [
            run.rng.randbytes(run.rng.randint(1, 10_000)),
            b"",
            json.dumps({"error": "no such file"}).encode(),
            b"<html><body>404 Not Found</body></html>",
            plain.getvalue(),
            head + described + pickle.dumps(_Payload(), 4),
            aggregate(run, (33, 64)),
            aggregate(run) + b"\0",
        ]
    )


def _wrong(run: Run) -> Tally:
    """With status 200 or 404."""

    def new_fault(service: Service) -> tuple[Fault, float | None]:
        body = _contents(run)
        one = reply(200 if run.rng.random() < 0.8 else 404, body)
        return _files(iter([one] * 20)), None

    return _downloads(run, new_fault, download_schema=_SCHEMA)


def _redirect(run: Run) -> Tally:
    """Of the call or of the file, to a host that would serve another good aggregate."""
    with HostileServer(reply(200, aggregate(run))) as elsewhere:

        def new_fault(service: Service) -> tuple[Fault, float | None]:
            where = run.rng.choice(["/files/", "/v1/file/"])
            one = redirect(run.rng.choice([301, 302, 303, 307, 308]), f"{elsewhere.url}/files/x")
            return lambda request: one if request.target.startswith(where) else None, None

        tally = _downloads(run, new_fault)
        tally.add("followed", len(elsewhere.settle()))
    return tally


SCENARIOS = (
    Scenario("truncated", "download: cut at a random byte", _truncated, published=200),
    Scenario("endless", "download: endless", _endless, published=20),
    Scenario("drip", "download: a byte now and then", _drip, published=5),
    Scenario("content", "download: not an aggregate, or another shape", _wrong, published=200),
    Scenario("redirect-download", "download: redirect to another host", _redirect, published=200),
)
