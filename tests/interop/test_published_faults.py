"""What the published client gets wrong with files and HTTP, and that ours does not.

`CLAUSES` names the tests of each fault, of what comes by the broker too. A test named
`test_comparison_...` runs the unmodified `branchkey==2.4.2` in a process of its own and shows the
fault; should one fail, the published client has changed, not ours.
"""

from __future__ import annotations

import functools
import gzip
import importlib
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bkformat
from bkformat import InvalidUpdateError, UpdateChangedError, build_update, validate_file
from bktransport import (
    Client,
    InvalidAggregateError,
    InvalidMessageError,
    NoResponseError,
    OutcomeUnknownError,
    ResponseError,
)

from .environments import environment, run
from .odd_service import BRANCH, TOKEN, Exchange, OddService, until
from .published import LATER, OURS, Peer, broker_at_5672, published

_BROKER = "test_published_faults_broker:"

CLAUSES = {
    "1 code in the file runs": [
        "test_code_in_a_file_does_not_run",
        "test_comparison_published_client_runs_code_in_a_file",
    ],
    "1 what is sent is not what was validated": [
        "test_a_file_changed_on_its_way_is_never_whole_at_the_service",
        "test_a_file_swapped_after_validation_is_not_sent",
        "test_comparison_published_client_sends_what_it_did_not_validate",
    ],
    "2 no timeouts": [
        "test_a_stalled_service_is_left",
        "test_comparison_published_client_waits_for_ever",
    ],
    "2 no retries": [
        "test_a_busy_service_is_asked_again",
        "test_comparison_published_client_gives_up_on_a_busy_service",
    ],
    "2 later clients store two copies when a reply is lost": [
        "test_a_lost_reply_is_no_reason_to_store_twice",
        "test_comparison_later_client_stores_twice",
    ],
    "3 whole files in memory": [
        "test_memory_stays_flat",
        "test_comparison_published_client_holds_whole_files",
    ],
    "3 a small gzip reply becomes a large file": [
        "test_a_gzip_reply_is_not_unpacked",
        "test_comparison_published_client_unpacks_gzip",
    ],
    "4 garbage, a 404 body or a truncated body becomes the aggregate": [
        "test_only_an_aggregate_becomes_the_aggregate",
        "test_comparison_published_client_saves_anything",
    ],
    "4 the good file is overwritten": [
        "test_a_failure_leaves_the_good_file",
        "test_a_full_disk_leaves_the_good_file",
        "test_comparison_published_client_overwrites_the_good_file",
        "test_comparison_published_client_destroys_the_file_before_it_fails",
    ],
    "4 ../ in a file_id escapes": [
        "test_an_id_that_is_no_name_is_refused",
        "test_comparison_published_client_writes_outside",
        _BROKER + "test_an_id_that_is_no_name_is_not_offered",
    ],
    "4 any download URL is fetched": [
        "test_odd_download_urls_are_not_fetched",
        "test_a_public_service_leads_nobody_inside",
        "test_comparison_published_client_is_led_inside",
    ],
    "5 follows a 307": [
        "test_redirects_are_not_followed",
        "test_comparison_published_client_follows_redirects",
    ],
    "5 netrc passwords go to the download host": [
        "test_netrc_is_not_read",
        "test_comparison_published_client_sends_netrc_passwords",
    ],
    "6 signed URLs in logs and exceptions": [
        "test_signed_urls_are_nowhere",
        "test_comparison_published_client_shows_signed_urls",
    ],
    "6 the token in public attributes": [
        "test_the_token_is_in_no_public_attribute",
        "test_comparison_published_client_shows_the_token",
    ],
    "7 run_status and unknown messages are never acknowledged": [
        _BROKER + "test_every_message_is_acknowledged",
        _BROKER + "test_comparison_published_client_acknowledges_no_status",
    ],
    "7 malformed messages kill the consumer for good": [
        _BROKER + "test_malformed_messages_block_nothing",
        _BROKER + "test_comparison_published_client_dies_of_malformed_messages",
    ],
    "7 no reconnection": [
        _BROKER + "test_connections_come_back",
        _BROKER + "test_comparison_published_client_never_reconnects",
    ],
    "7 acknowledged before the application has it": [
        _BROKER + "test_a_killed_application_gets_everything_again",
        _BROKER + "test_comparison_published_client_loses_messages",
    ],
    "8 sys.exit in the library": [
        _BROKER + "test_no_broker_ends_no_process",
        _BROKER + "test_comparison_published_client_ends_the_process_at_a_tls_broker",
    ],
    "8 print": [
        _BROKER + "test_nothing_is_printed",
        _BROKER + "test_comparison_published_client_prints",
    ],
    "8 no way to close": [
        _BROKER + "test_close_ends_everything",
        _BROKER + "test_comparison_published_client_can_not_be_closed",
    ],
    "8 plain AMQP only": [
        _BROKER + "test_the_broker_may_speak_tls",
        _BROKER + "test_comparison_published_client_ends_the_process_at_a_tls_broker",
    ],
}

_ARRAY = np.arange(12, dtype="float32").reshape(3, 4)
_UPDATE = build_update(7, [_ARRAY])
_LOGIN = "c = Client(credentials, host)\nassert c.authenticate()\n"
_UPLOAD = _LOGIN + "tell(c.file_upload('update.npy'))\n"
_DOWNLOAD = _LOGIN + "tell(bool(c.file_download('agg-1')))\n"


def test_every_clause_has_its_tests() -> None:
    """Ours, and a comparison; and no test is left out of the table."""
    here = [importlib.import_module(__name__.rpartition(".")[0] + ".test_published_faults_broker")]
    found = {_BROKER + name for name in vars(here[0]) if name.startswith("test_")}
    found |= {name for name in globals() if name.startswith("test_")}
    named = {name for names in CLAUSES.values() for name in names}
    assert found - named == {"test_every_clause_has_its_tests"}
    assert named <= found
    for names in CLAUSES.values():
        assert {"test_comparison_" in name for name in names} == {True, False}


@pytest.fixture
def service() -> Iterator[OddService]:
    with broker_at_5672() as broker, OddService(broker) as odd:
        odd.files["agg-1"] = _UPDATE
        yield odd


@pytest.fixture(scope="module")
def theirs() -> Peer:
    return published()


@pytest.fixture
def client(service: OddService, tmp_path: Path) -> Iterator[Client]:
    with _ours(service, tmp_path) as ours:
        ours.authenticate()
        yield ours


def _ours(service: OddService, folder: Path, url: str | None = None, **options: Any) -> Client:
    usual = {"timeout": 5.0, "deadline": 30.0, "notifications": False, "proxies": {}}
    place = {"state": folder / "ours" / "state", "output": folder / "ours" / "aggregated_output"}
    return Client(service.credentials(), url or service.url, **place, **(usual | options))


def _update(folder: Path, data: bytes = _UPDATE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "update.npy"
    path.write_bytes(data)
    return path


def _uploads(service: OddService) -> list[Any]:
    return service.requests_for("POST /v1/file/upload")


# --- 1: what a file may do ------------------------------------------------------------------


class _Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _with_code(marker: Path) -> bytes:
    """A file that the published client takes for an update."""
    root = np.empty(2, dtype=object)
    root[:] = 7, [np.zeros(2, "float32"), _Marker(marker)]
    header = build_update(7, [_ARRAY])[:128]
    assert header.endswith(b"\n")
    return header + pickle.dumps(root, protocol=4)


def test_code_in_a_file_does_not_run(service: OddService, client: Client, tmp_path: Path) -> None:
    path = _update(tmp_path, _with_code(tmp_path / "marker"))
    with pytest.raises(InvalidUpdateError):
        client.file_upload(path)
    with open(path, "rb") as file, pytest.raises(InvalidUpdateError):
        client.validate_weight_shape(file)
    assert not (tmp_path / "marker").exists()
    assert not _uploads(service)


def test_comparison_published_client_runs_code_in_a_file(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    _update(tmp_path, _with_code(tmp_path / "marker"))
    outcome = theirs.run(_UPLOAD, tmp_path, service.credentials(), service.url)
    assert (tmp_path / "marker").is_dir()
    assert outcome.told == ["file-1"]  # and it was sent on to whoever takes part
    assert len(_uploads(service)) == 1


def _large(fill: float) -> bytes:
    return build_update(7, [np.full(1 << 20, fill, "float32")])


def test_a_file_changed_on_its_way_is_never_whole_at_the_service(
    service: OddService, client: Client, tmp_path: Path
) -> None:
    service.answers["POST /v1/file/upload"] = lambda exchange: exchange.reply(201, {})
    path = _update(tmp_path, _large(1))
    other = _large(2)

    def swap(done: int, _: int | None) -> None:
        with open(path, "r+b") as file:
            file.write(other)

    with pytest.raises(UpdateChangedError):
        client.file_upload(path, progress=swap)
    assert not any(asked.whole for asked in _uploads(service))
    assert [record.state for record in client.uploads()] == ["refused"]


def test_a_file_swapped_after_validation_is_not_sent(
    service: OddService, client: Client, tmp_path: Path
) -> None:
    """Another file of the same name has no say: the judged one is open."""
    path = _update(tmp_path, _UPDATE)
    with validate_file(path) as update:
        (tmp_path / "other").write_bytes(_with_code(tmp_path / "marker"))
        os.replace(tmp_path / "other", path)
        assert client.file_upload(update) == "file-1"
    (asked,) = _uploads(service)
    assert _UPDATE in asked.body


def test_comparison_published_client_sends_what_it_did_not_validate(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    """The subclass stands for another process that writes at that moment."""
    script = """
class Unlucky(Client):
    def validate_weight_shape(self, file):
        verdict = super().validate_weight_shape(file)
        with open('update.npy', 'wb') as swapped:
            swapped.write(b'never validated')
        return verdict
Client = Unlucky
"""
    _update(tmp_path)
    outcome = theirs.run(script + _UPLOAD, tmp_path, service.credentials(), service.url)
    assert outcome.told == ["file-1"], outcome.stderr
    (asked,) = _uploads(service)
    assert b"\r\n\r\nnever validated\r\n" in asked.body


# --- 2: time and retries --------------------------------------------------------------------

_STALLED = ("GET /v1/leaf", "POST /v1/file/upload", "GET /v1/file/download", "GET /files/")


@pytest.mark.parametrize("where", [*_STALLED, "POST /v1/performance"])
def test_a_stalled_service_is_left(service: OddService, tmp_path: Path, where: str) -> None:
    path = _update(tmp_path)
    with _ours(service, tmp_path, timeout=0.5, deadline=0.7) as client:
        if where != _STALLED[0]:
            client.authenticate(deadline=30)
        service.answers[where] = Exchange.stall
        calls: dict[str, Callable[[], object]] = {
            "GET /v1/leaf": client.authenticate,
            "POST /v1/file/upload": lambda: client.file_upload(path),
            "POST /v1/performance": lambda: client.send_performance_metrics("a", "{}", "test"),
        }
        call = calls.get(where, lambda: client.file_download("agg-1"))
        with pytest.raises((NoResponseError, OutcomeUnknownError)):
            call()


def test_comparison_published_client_waits_for_ever(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    """For an upload and for a download; three seconds stand for ever."""
    _update(tmp_path)
    service.answers["POST /v1/file/upload"] = service.answers["GET /files/"] = Exchange.stall
    with (
        theirs.started(_UPLOAD, tmp_path, service.credentials(), service.url) as first,
        theirs.started(_DOWNLOAD, tmp_path / "b", service.credentials(), service.url) as second,
    ):
        until(lambda: _uploads(service) and service.requests_for("GET /files/"), "both ask")
        with pytest.raises(TimeoutError):
            _wait(first.poll, second.poll)


def _wait(*ended: Callable[[], int | None]) -> None:
    try:
        until(lambda: any(poll() is not None for poll in ended), "an end", seconds=3)
    except AssertionError:
        raise TimeoutError from None


def _busy_once(service: OddService) -> None:
    def busy(exchange: Exchange) -> None:
        del service.answers["POST /v1/file/upload"]
        exchange.reply(503, {"error": "busy"}, Retry_After="0")

    service.answers["POST /v1/file/upload"] = busy


def test_a_busy_service_is_asked_again(service: OddService, client: Client, tmp_path: Path) -> None:
    _busy_once(service)
    assert client.file_upload(_update(tmp_path)) == "file-1"
    assert len(_uploads(service)) == 2


def test_comparison_published_client_gives_up_on_a_busy_service(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    _busy_once(service)
    _update(tmp_path)
    outcome = theirs.run(_UPLOAD, tmp_path, service.credentials(), service.url)
    assert (outcome.code, outcome.told) == (1, [])
    assert len(_uploads(service)) == 1


def _lose_reply(exchange: Exchange) -> None:
    """What came is stored, and nobody is told."""
    exchange.receive()


def test_a_lost_reply_is_no_reason_to_store_twice(
    service: OddService, client: Client, tmp_path: Path
) -> None:
    service.answers["POST /v1/file/upload"] = _lose_reply
    path = _update(tmp_path)
    with pytest.raises(OutcomeUnknownError) as caught:
        client.file_upload(path)
    assert [asked.whole for asked in _uploads(service)] == [True]
    (record,) = client.uploads()
    assert (record.state, record.sha256) == ("unknown", caught.value.sha256)
    with validate_file(path) as update:
        assert record.sha256 == update.sha256


@pytest.mark.parametrize("version", LATER)
def test_comparison_later_client_stores_twice(
    service: OddService, tmp_path: Path, version: str
) -> None:
    """They speak another dialect; the session is the one that their uploads use."""
    script = (
        "import sys\n"
        "from branchkey import RetryConfig\n"
        "session = RetryConfig(max_retries=1).create_session()\n"
        "try:\n"
        "    session.post(sys.argv[1], files={'file': ('u.npz', b'an update')}, timeout=20)\n"
        "except Exception as exc:\n"
        "    print(type(exc).__name__)\n"
    )
    service.answers["POST /api/v1/file/upload"] = _lose_reply
    command = [str(environment(f"branchkey=={version}")), "-c", script]
    run([*command, f"{service.url}/api/v1/file/upload"], version, cwd=tmp_path, timeout=60)
    stored = [asked for asked in service.asked if b"an update" in asked.body and asked.whole]
    assert len(stored) == 2


# --- 3: memory ------------------------------------------------------------------------------

_NBYTES = 64 << 20
_MEASURED = """
import resource
def peak():
    # Linux counts the peak of the process that started this one too, where getrusage is asked.
    try:
        with open("/proc/self/status") as file:
            return int(file.read().partition("VmHWM:")[2].split()[0]) * 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
c = Client(credentials, host)
c.authenticate()
c.file_upload("small.npy")
c.file_download("small")
before = peak()
c.file_upload("update.npy")
middle = peak()
c.file_download("agg-1")
tell([middle - before, peak() - middle])
"""


def _memory(peer: Peer, service: OddService, folder: Path) -> list[int]:
    """Bytes that an upload, and then a download, of 64 MiB add."""
    data = build_update(7, [np.ones(_NBYTES // 4, "float32")])
    service.files |= {"agg-1": data, "small": _UPDATE}
    _update(folder, data)
    (folder / "small.npy").write_bytes(_UPDATE)
    outcome = peer.run(_MEASURED, folder, service.credentials(), service.url)
    assert outcome.code == 0, outcome.stderr
    assert (folder / "aggregated_output" / "agg-1.npy").read_bytes() == data
    (added,) = outcome.told
    return list(added)


def test_memory_stays_flat(service: OddService, tmp_path: Path) -> None:
    added = _memory(OURS, service, tmp_path)
    assert max(added) < 16 << 20


def test_comparison_published_client_holds_whole_files(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    up, _ = _memory(theirs, service, tmp_path)
    assert up >= _NBYTES  # what the upload took serves the download too


@functools.cache
def _packed() -> bytes:
    """An aggregate in gzip, about 1/250 of its size."""
    return gzip.compress(build_update(7, [np.zeros(_NBYTES // 4, "float32")]), 1)


def _bomb(exchange: Exchange) -> None:
    assert len(_packed()) < _NBYTES // 200
    exchange.reply(200, _packed(), Content_Encoding="gzip")


def test_a_gzip_reply_is_not_unpacked(service: OddService, client: Client, tmp_path: Path) -> None:
    service.answers["GET /files/"] = _bomb
    with pytest.raises(InvalidMessageError, match="compressed"):
        client.file_download("agg-1")
    (asked,) = service.requests_for("GET /files/")
    assert asked.headers["accept-encoding"] == "identity"
    assert not _written(tmp_path / "ours")


def test_comparison_published_client_unpacks_gzip(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    service.answers["GET /files/"] = _bomb
    outcome = theirs.run(_DOWNLOAD, tmp_path, service.credentials(), service.url)
    assert outcome.told == [True]
    assert (tmp_path / "aggregated_output" / "agg-1.npy").stat().st_size > _NBYTES


def _written(folder: Path) -> list[str]:
    """Every file of the folder for downloads, temporary ones too."""
    return sorted(path.name for path in (folder / "aggregated_output").glob("**/*"))


# --- 4: what becomes the aggregate ----------------------------------------------------------

_WRONG: dict[str, Callable[[Exchange], None]] = {
    "garbage": lambda exchange: exchange.reply(200, b"<html>no aggregate</html>"),
    "404 body": lambda exchange: exchange.reply(404, b"<Error><Code>NoSuchKey</Code></Error>"),
    "truncated": lambda exchange: exchange.reply(200, _UPDATE[:-9], length=-1),
}


@pytest.mark.parametrize("what", [*_WRONG, "truncated, and it shows"])
def test_only_an_aggregate_becomes_the_aggregate(
    service: OddService, tmp_path: Path, what: str
) -> None:
    service.answers["GET /files/"] = _WRONG.get(
        what, lambda exchange: exchange.reply(200, _UPDATE[:-9], length=len(_UPDATE))
    )
    expected = {"404 body": ResponseError, "truncated, and it shows": NoResponseError}
    with _ours(service, tmp_path, deadline=1.0) as client:
        client.authenticate()
        with pytest.raises(expected.get(what, InvalidAggregateError)) as caught:
            client.file_download("agg-1")
        if what == "404 body":
            assert caught.value.status_code == 404
    assert not _written(tmp_path / "ours")


_ALL_WRONG = _LOGIN + "for id in 'agg-1', 'agg-2', 'agg-3': tell(c.file_download(id))\n"


def test_comparison_published_client_saves_anything(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    for number, answer in enumerate(_WRONG.values(), start=1):
        service.answers[f"GET /files/agg-{number}"] = answer
    outcome = theirs.run(_ALL_WRONG, tmp_path, service.credentials(), service.url)
    assert outcome.told == [True, True, True]
    for number in (1, 2, 3):
        saved = tmp_path / "aggregated_output" / f"agg-{number}.npy"
        assert not bkformat.check_file(saved, kind="aggregate").valid


def test_a_failure_leaves_the_good_file(
    service: OddService, client: Client, tmp_path: Path
) -> None:
    good = client.file_download("agg-1")
    for answer in _WRONG.values():
        service.answers["GET /files/"] = answer
        with pytest.raises(ResponseError):
            client.file_download("agg-1")
        assert good.read_bytes() == _UPDATE
        assert _written(tmp_path / "ours") == ["agg-1.npy"]


def test_comparison_published_client_overwrites_the_good_file(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    service.answers["GET /files/"] = _WRONG["garbage"]
    good = tmp_path / "aggregated_output" / "agg-1.npy"
    good.parent.mkdir()
    good.write_bytes(_UPDATE)
    theirs.run(_DOWNLOAD, tmp_path, service.credentials(), service.url)
    assert good.read_bytes() == b"<html>no aggregate</html>"


# A file may not grow past this, as if the disk were full.
_FULL = """
import resource
c = Client(credentials, host)
c.authenticate()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    c.file_download("agg-1")
except Exception as exc:
    tell(isinstance(exc, OSError))
"""


def _download_on_a_full_disk(peer: Peer, service: OddService, folder: Path) -> tuple[Any, bytes]:
    good = folder / "aggregated_output" / "agg-1.npy"
    good.parent.mkdir()
    good.write_bytes(_UPDATE)
    service.files["agg-1"] = _large(3)
    outcome = peer.run(_FULL, folder, service.credentials(), service.url)
    assert outcome.code == 0, outcome.stderr
    return outcome.told, good.read_bytes()


def test_a_full_disk_leaves_the_good_file(service: OddService, tmp_path: Path) -> None:
    told, content = _download_on_a_full_disk(OURS, service, tmp_path)
    assert told == [True]
    assert content == _UPDATE
    assert _written(tmp_path) == ["agg-1.npy"]


def test_comparison_published_client_destroys_the_file_before_it_fails(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    told, content = _download_on_a_full_disk(theirs, service, tmp_path)
    assert told == [False]  # a bare Exception
    assert content == _large(3)[: 1 << 20]


@pytest.mark.parametrize(
    "name", ["../escaped", "a/b", "/x", "..", ".", "", "a\0b", "a\\b", "%2e%2e"]
)
def test_an_id_that_is_no_name_is_refused(
    service: OddService, client: Client, tmp_path: Path, name: str
) -> None:
    asked = len(service.asked)
    with pytest.raises(ValueError, match="file_id"):
        client.file_download(name)
    assert len(service.asked) == asked
    assert not _written(tmp_path / "ours")


def test_comparison_published_client_writes_outside(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    # What the id makes of the request's path is normalised by requests.
    location = {"data": {"download_url": f"{service.url}/files/agg-1"}}
    service.answers["GET /v1/escaped"] = lambda exchange: exchange.reply(200, location)
    script = _LOGIN + "c.file_download('../../escaped')\n"
    theirs.run(script, tmp_path / "home", service.credentials(), service.url)
    assert (tmp_path / "escaped.npy").read_bytes() == _UPDATE


def _leads_to(service: OddService, url: str) -> None:
    service.answers["GET /v1/file/download/"] = lambda exchange: exchange.reply(
        200, {"data": {"download_url": url}}
    )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname", "ftp://{place}/files/agg-1", "//{place}/files/agg-1",
        "/files/agg-1", "http://user:word@{place}/files/agg-1", "http://:{port}/",
        "http://{place}/files/agg-1 x", "http://localhost:{port}/files/agg-1",
        "gopher://{place}/", "",
    ],
)  # fmt: skip
def test_odd_download_urls_are_not_fetched(service: OddService, tmp_path: Path, url: str) -> None:
    """Nor hosts that are not listed, if some are."""
    place = service.url.removeprefix("http://")
    _leads_to(service, url.format(place=place, port=service.port))
    with _ours(service, tmp_path, download_hosts=[service.broker.host]) as client:
        client.authenticate()
        with pytest.raises(InvalidMessageError):
            client.file_download("agg-1")
        assert not _written(tmp_path / "ours")
        assert [asked.path.split("/")[1] for asked in service.asked] == ["v1", "v1"]
        _leads_to(service, f"http://{place}/files/agg-1")
        client.file_download("agg-1")


_INSIDE = "http://169.254.169.254/latest/meta-data/"


def _serve_as_proxy(service: OddService) -> str:
    """A service of a public name is reached through this proxy; so would be what lies inside."""
    public = "http://service.example"

    def authenticate(exchange: Exchange) -> None:
        exchange.reply(200, {"data": {"tree_id": "tree-1", "branch_id": BRANCH}})

    def locate(exchange: Exchange) -> None:
        exchange.reply(200, {"data": {"download_url": _INSIDE}})

    service.answers |= {
        f"GET {public}/v1/leaf/authenticate": authenticate,
        f"GET {public}/v1/file/download/": locate,
        f"GET {_INSIDE}": lambda exchange: exchange.reply(200, b"the machine's own secret"),
    }
    return public


def test_a_public_service_leads_nobody_inside(service: OddService, tmp_path: Path) -> None:
    public = _serve_as_proxy(service)
    with _ours(service, tmp_path, public, proxies={"http": service.url}) as client:
        client.authenticate()
        with pytest.raises(InvalidMessageError):
            client.file_download("agg-1")
    assert service.requests_for(f"GET {public}/v1/file/download/agg-1")
    assert not service.requests_for(f"GET {_INSIDE}")


def test_comparison_published_client_is_led_inside(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    public = _serve_as_proxy(service)
    proxy = {"http_proxy": service.url}
    outcome = theirs.run(_DOWNLOAD, tmp_path, service.credentials(), public, proxy)
    assert outcome.told == [True], outcome.stderr
    saved = tmp_path / "aggregated_output" / "agg-1.npy"
    assert saved.read_bytes() == b"the machine's own secret"


# --- 5: who gets what -----------------------------------------------------------------------


@pytest.fixture
def elsewhere(service: OddService) -> Iterator[OddService]:
    """Another service, which has no business with the leaf."""
    with OddService(service.broker) as other:
        other.files["agg-1"] = _UPDATE
        yield other


def _redirect(service: OddService, other: OddService, start: str, status: int) -> None:
    service.answers[start] = lambda exchange: exchange.reply(
        status, b"", Location=other.url + exchange.path
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    service: OddService, elsewhere: OddService, tmp_path: Path, status: int
) -> None:
    path = _update(tmp_path)
    with _ours(service, tmp_path) as client:
        client.authenticate()
        calls: dict[str, Callable[[], object]] = {
            "GET /v1/leaf/authenticate": client.authenticate,
            "POST /v1/file/upload": lambda: client.file_upload(path),
            "GET /v1/file/download/": lambda: client.file_download("agg-1"),
            "POST /v1/perf": lambda: client.send_performance_metrics("agg-1", "{}", "test"),
            "GET /files/": lambda: client.file_download("agg-1"),
        }
        for start, call in calls.items():
            _redirect(service, elsewhere, start, status)
            with pytest.raises((ResponseError, OutcomeUnknownError), match=rf"HTTP {status}"):
                call()
            del service.answers[start]
    assert not elsewhere.asked
    assert not _written(tmp_path / "ours")


def test_comparison_published_client_follows_redirects(
    service: OddService, elsewhere: OddService, theirs: Peer, tmp_path: Path
) -> None:
    _redirect(service, elsewhere, "POST /v1/file/upload", 307)
    _update(tmp_path)
    outcome = theirs.run(_UPLOAD, tmp_path, service.credentials(), service.url)
    assert outcome.told == ["file-1"]
    (asked,) = _uploads(elsewhere)
    assert _UPDATE in asked.body


def _netrc(folder: Path, service: OddService) -> dict[str, str]:
    path = folder / "netrc"
    path.write_text(f"machine {service.broker.host} login someone password else\n", "utf-8")
    path.chmod(0o600)
    return {"NETRC": str(path)}


def test_netrc_is_not_read(
    service: OddService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", _netrc(tmp_path, service)["NETRC"])
    client.file_download("agg-1")
    (asked,) = service.requests_for("GET /files/")
    assert not {"authorization", "cookie"} & set(asked.headers)


def test_comparison_published_client_sends_netrc_passwords(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    environ = _netrc(tmp_path, service)
    theirs.run(_DOWNLOAD, tmp_path, service.credentials(), service.url, environ)
    (asked,) = service.requests_for("GET /files/")
    assert asked.headers["authorization"].startswith("Basic ")


# --- 6: secrets -----------------------------------------------------------------------------

_SIGNATURE = "canary-signature-90ab"


def _sign(service: OddService) -> None:
    """A good URL for agg-1; that of agg-2 leads to where nobody listens."""
    for name, url in (("agg-1", service.url), ("agg-2", f"http://{service.broker.host}:1")):
        signed = {"data": {"download_url": f"{url}/files/{name}?signature={_SIGNATURE}"}}
        service.answers[f"GET /v1/file/download/{name}"] = lambda exchange, signed=signed: (
            exchange.reply(200, signed)
        )


def test_signed_urls_are_nowhere(
    service: OddService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _sign(service)
    caplog.set_level(logging.DEBUG)
    with _ours(service, tmp_path, deadline=1.0) as client:
        client.authenticate()
        client.file_download("agg-1")
        with pytest.raises(NoResponseError) as caught:
            client.file_download("agg-2")
    assert any(_SIGNATURE in asked.path for asked in service.asked)  # the good one was fetched
    whole = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert service.url.removeprefix("http://") in whole
    for secret in (_SIGNATURE, TOKEN):
        assert secret not in whole


def test_comparison_published_client_shows_signed_urls(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    _sign(service)
    script = f"import logging\nlogging.basicConfig(level='DEBUG')\n{_DOWNLOAD}"
    script += "try:\n    c.file_download('agg-2')\nexcept Exception as exc:\n    tell(str(exc))\n"
    outcome = theirs.run(script, tmp_path, service.credentials(), service.url)
    done, text = outcome.told
    assert done is True
    assert _SIGNATURE in text
    assert _SIGNATURE in outcome.stderr


# repr of what is public, two steps deep.
_PUBLIC = """
def public(thing):
    yield repr(thing)
    for name in dir(thing):
        if not name.startswith("_"):
            yield repr(getattr(thing, name))
c = Client(credentials, host)
c.authenticate()
tell([text for text in public(c) if credentials["leaf_session_token"] in text])
"""


def test_the_token_is_in_no_public_attribute(
    service: OddService, client: Client, tmp_path: Path
) -> None:
    outcome = OURS.run(_PUBLIC, tmp_path, service.credentials(), service.url)
    assert outcome.told == [[]], outcome.stderr
    with pytest.raises(TypeError, match="credentials"):
        pickle.dumps(client)
    assert client.session_token.get_secret_value() == TOKEN


def test_comparison_published_client_shows_the_token(
    service: OddService, theirs: Peer, tmp_path: Path
) -> None:
    outcome = theirs.run(_PUBLIC, tmp_path, service.credentials(), service.url)
    (shown,) = outcome.told
    assert len(shown) == 2  # session_token and rabbit_credentials
