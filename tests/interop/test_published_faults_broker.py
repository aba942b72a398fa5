"""What the published client gets wrong with messages and as a library, and that ours does not.

The table of all clauses is in `test_published_faults`. A test named `test_comparison_...` runs the
unmodified `branchkey==2.4.2` in a process of its own and shows the fault.
"""

from __future__ import annotations

import os
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from bkformat import build_update
from bktransport import BrokerError, Client

from .odd_service import TREE, OddService, until
from .published import OURS, Peer, broker_at_5672, published

_STATUS = b'{"message_type": "run_status", "body": {"run_status": "start"}}'
_UNKNOWN = b'{"message_type": "weather_status", "body": {"sun": true}}'
_MALFORMED = {
    "no text": b"\xff\xfe",
    "no JSON": b"{not JSON",
    "no type": b"{}",
    "no body": b'{"message_type": "aggregation_status"}',
}
_LOGIN = "c = Client(credentials, host)\nc.authenticate()\n"


@pytest.fixture
def service() -> Iterator[OddService]:
    with broker_at_5672() as broker, OddService(broker, leaves=len(_MALFORMED)) as odd:
        yield odd


@pytest.fixture(scope="module")
def theirs() -> Peer:
    return published()


@pytest.fixture
def client(service: OddService, tmp_path: Path) -> Iterator[Client]:
    with _ours(service, tmp_path) as ours:
        ours.authenticate()
        yield ours


def _ours(service: OddService, folder: Path, leaf: int = 0, **options: Any) -> Client:
    place = {"state": folder / f"state-{leaf}", "output": folder / "aggregated_output"}
    return Client(
        service.credentials(leaf), service.url, deadline=30.0, proxies={}, **place, **options
    )


def _taken(client: Client, count: int) -> list[str]:
    return [client.queue.get(timeout=30) for _ in range(count)]


# --- 7: messages ----------------------------------------------------------------------------


def test_every_message_is_acknowledged(service: OddService, client: Client) -> None:
    service.publish(_STATUS, _UNKNOWN, "agg-1")
    assert _taken(client, 1) == ["agg-1"]
    until(lambda: service.depth() == (0, 0), "all acknowledged")
    assert client.run_status == "start"


# Waits until what was published is handled, and leaves without a word.
_HANDLE = _LOGIN + "while c.queue.empty(): time.sleep(0.01)\nos._exit(0)\n"


def test_comparison_published_client_acknowledges_no_status(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    """They come again whenever it starts, for ever."""
    service.publish(_STATUS, _UNKNOWN, "agg-1")
    theirs.run(_HANDLE, tmp_path, service.credentials(), service.url)
    until(lambda: service.depth() == (2, 0), "both are back")
    service.publish("agg-2")
    theirs.run(_HANDLE, tmp_path, service.credentials(), service.url)
    until(lambda: service.depth() == (2, 0), "both are back")


def test_malformed_messages_block_nothing(service: OddService, client: Client) -> None:
    service.publish(*_MALFORMED.values(), "agg-1", *_MALFORMED.values(), "agg-2")
    assert _taken(client, 2) == ["agg-1", "agg-2"]
    until(lambda: service.depth() == (0, 0), "all acknowledged")
    assert client.broker_error is None


def test_an_id_that_is_no_name_is_not_offered(service: OddService, client: Client) -> None:
    service.publish("../../escaped", 7, None, "", "agg-1")
    assert _taken(client, 1) == ["agg-1"]
    assert client.queue.empty()


# Each leaf has its own malformed message, and a good one behind it.
_ENDS = """
for leaf in range(4):
    c = Client(dict(credentials, leaf_id="leaf-%d" % leaf), host)
    c.authenticate()
    c.consumer.join(30)
    tell([c.consumer.is_alive(), c.queue.empty()])
"""


def test_comparison_published_client_dies_of_malformed_messages(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    """In the second process, too."""
    for leaf, body in enumerate(_MALFORMED.values()):
        service.publish(body, "agg-1", leaf=leaf)
    for number in (1, 2):
        outcome = theirs.run(_ENDS, tmp_path / str(number), service.credentials(), service.url)
        assert outcome.told == [[False, True]] * 4, outcome.stderr
    for leaf in range(4):
        until(lambda leaf=leaf: service.depth(leaf) == (2, 0), "both still wait")


def test_connections_come_back(service: OddService, client: Client) -> None:
    seen = []
    for number in range(3):
        service.publish(f"agg-{number}")
        seen += _taken(client, 1)
        assert service.broker.close_connections() == 1
        service.publish(f"late-{number}")
        seen += _taken(client, 1)
    assert seen == ["agg-0", "late-0", "agg-1", "late-1", "agg-2", "late-2"]


_CLOSED = (
    _LOGIN
    + """
tell("in")
c.consumer.join(30)
tell([c.consumer.is_alive(), c.queue.qsize()])
"""
)


def test_comparison_published_client_never_reconnects(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    with theirs.started(_CLOSED, tmp_path, service.credentials(), service.url) as process:
        until(service.broker.connections, "it is connected")
        service.publish("agg-1")
        until(lambda: service.depth() == (0, 0), "it has the first")
        assert service.broker.close_connections() == 1
        service.publish("agg-2")
        process.wait(60)
    assert (tmp_path / "told.jsonl").read_text("utf-8").splitlines() == ['"in"', "[false, 1]"]
    assert service.depth() == (1, 0)


# The first process is killed when it has all twenty and has used one; the second has a second.
_KILLED = (
    _LOGIN
    + """
while c.queue.qsize() < 20: time.sleep(0.01)
tell(c.queue.get())
os.kill(os.getpid(), 9)
"""
)
_AGAIN = (
    _LOGIN
    + """
end = time.monotonic() + 2
while time.monotonic() < end and c.queue.qsize() < 20: time.sleep(0.01)
for _ in range(c.queue.qsize()): tell(c.queue.get())
"""
)


def _killed_once(peer: Peer, service: OddService, folder: Path) -> list[str]:
    """What the application was offered, in both processes."""
    service.publish(*(f"agg-{number}" for number in range(20)))
    outcome = peer.run(_KILLED, folder, service.credentials(), service.url)
    assert outcome.code == -signal.SIGKILL, outcome.stderr
    return peer.run(_AGAIN, folder, service.credentials(), service.url).told


def test_a_killed_application_gets_everything_again(service: OddService, tmp_path: Path) -> None:
    """What it had taken comes again as well, for nobody knows what became of it."""
    offered = _killed_once(OURS, service, tmp_path)
    assert offered == ["agg-0", *(f"agg-{number}" for number in range(20))]


def test_comparison_published_client_loses_messages(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    assert _killed_once(theirs, service, tmp_path) == ["agg-0"]
    assert service.depth() == (0, 0)


# --- 8: a library ---------------------------------------------------------------------------


def _refuse(service: OddService) -> None:
    """The service lets the leaf in, and the broker does not."""
    service.broker.add_leaf(TREE, "leaf-0", "another password")


def test_no_broker_ends_no_process(service: OddService, client: Client, tmp_path: Path) -> None:
    """Neither one that refuses, nor one that is away: that one is waited for."""
    service.broker.stop()
    with _ours(service, tmp_path, leaf=1) as waiting:
        assert waiting.authenticate(deadline=1.0) is True
        assert isinstance(waiting.broker_error, BrokerError)
        service.broker.restart()
        service.publish("agg-1", leaf=1)
        assert _taken(waiting, 1) == ["agg-1"]
        assert waiting.broker_error is None
    _refuse(service)
    client.close()
    with _ours(service, tmp_path) as refused, pytest.raises(BrokerError):
        refused.authenticate()


_WHOLE = (
    _LOGIN
    + """
c.file_download("agg-1")
c.send_performance_metrics("agg-1", "{}", "test")
"""
)


def _printed(peer: Peer, service: OddService, folder: Path) -> tuple[str, str]:
    service.files["agg-1"] = build_update(7, [np.ones(3)])
    outcome = peer.run(_WHOLE, folder, service.credentials(), service.url)
    assert (folder / "aggregated_output" / "agg-1.npy").exists()
    return outcome.stdout, outcome.stderr


def test_nothing_is_printed(service: OddService, tmp_path: Path) -> None:
    """Not even by an application that forgets to close it."""
    assert _printed(OURS, service, tmp_path) == ("", "")


def test_comparison_published_client_prints(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    stdout, _ = _printed(theirs, service, tmp_path)
    assert len(stdout.splitlines()) == 4


def test_close_ends_everything(service: OddService, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    files = len(os.listdir("/dev/fd"))
    client = _ours(service, tmp_path)
    client.authenticate()
    assert service.broker.connections() == 1
    client.close()
    client.close()
    until(lambda: not service.broker.connections(), "the broker is left")
    until(lambda: set(threading.enumerate()) <= before, "no thread is left")
    until(lambda: len(os.listdir("/dev/fd")) <= files, "no file is left open")
    with _ours(service, tmp_path) as again:  # the state folder is free
        assert again.authenticate()


def test_comparison_published_client_can_not_be_closed(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    script = _LOGIN + "tell([hasattr(c, n) for n in ('close', 'stop', '__exit__')])\n"
    script += "tell(c.consumer.is_alive())\n"
    outcome = theirs.run(script, tmp_path, service.credentials(), service.url)
    assert outcome.told == [[False] * 3, True]


@pytest.fixture
def tls_service(tmp_path: Path) -> Iterator[OddService]:
    """Its broker speaks TLS, by a private CA."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Names, not addresses: one certificate is good for all of 127.x.
    authority.issue_cert(*(f"127.0.0.{number}" for number in range(1, 60))).configure_cert(context)
    with broker_at_5672(ssl_context=context) as broker, OddService(broker) as odd:
        yield odd


def test_the_broker_may_speak_tls(tls_service: OddService, tmp_path: Path) -> None:
    tls_service.publish("agg-1")
    authority = tmp_path / "ca.pem"
    for given in (authority, ssl.create_default_context(cafile=authority)):
        with _ours(tls_service, tmp_path, broker_tls=given) as client:
            client.authenticate()
            assert client.broker_error is None
            assert _taken(client, 1) == ["agg-1"]  # not done, so it comes again
    with _ours(tls_service, tmp_path, broker_tls=True) as client, pytest.raises(BrokerError):
        client.authenticate()  # no CA of the system's vouches for it


_REFUSED = """
c = Client(credentials, host)
try:
    c.authenticate()
except Exception as exc:
    tell(type(exc).__name__)
"""


def test_comparison_published_client_ends_the_process_at_a_tls_broker(
    tls_service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    """No `except Exception` of the application helps."""
    outcome = theirs.run(_REFUSED, tmp_path, tls_service.credentials(), tls_service.url)
    assert (outcome.code, outcome.told) == (1, [])
    assert "[Consumer] Error while connecting to rabbitmq" in outcome.stderr
    assert not tls_service.broker.connections()
