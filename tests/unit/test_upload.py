"""An update leaves: the gate, and the three ways in which an upload ends."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import tenacity.nap

from bkformat import (
    UpdateChangedError,
    UpdateSchema,
    ValidatedUpdate,
    infer_schema,
    validate_bytes,
    validate_file,
)
from bktransport.errors import (
    AuthenticationError,
    DeadlineError,
    NoResponseError,
    OutcomeUnknownError,
    ResponseError,
)
from bktransport.upload import Uploader, check_gate

from ..hostile_http import (
    Behaviour,
    HostileServer,
    bomb,
    chunked,
    drip,
    early,
    endless,
    lost_reply,
    raw,
    redirect,
    reply,
    reset,
    sleeper,
    stall,
    truncated,
)
from .transport import (
    AGGREGATE,
    LOGIN,
    STORED,
    TOKEN,
    UPDATE,
    connector,
    deadline,
    write_update_file,
)

_BIG = 8 << 20


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are not slept through."""
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", Mock(sleep=pauses.append))
    return pauses


@pytest.fixture
def proof() -> Iterator[ValidatedUpdate]:
    with validate_bytes(UPDATE) as update:
        yield update


@pytest.fixture
def big(tmp_path: Path) -> Iterator[ValidatedUpdate]:
    """More than the buffers of a connection hold."""
    with validate_file(write_update_file(tmp_path, _BIG)) as update:
        yield update


def _upload(server: HostileServer, update: ValidatedUpdate, **options: Any) -> str:
    timeout, seconds = options.pop("timeout", 20.0), options.pop("seconds", 40.0)
    uploader = Uploader(connector(timeout=timeout), server.url, LOGIN, "site 1")
    return uploader.upload(update, deadline(seconds), **options)


# --- the gate ----------------------------------------------------------------------------------


class _Liar:
    """Says that it is a proof."""

    __class__ = ValidatedUpdate  # type: ignore[assignment]
    kind, values_checked, closed, schema = "update", True, False, None


@pytest.mark.parametrize(
    "given",
    [
        UPDATE,
        bytearray(UPDATE),
        "update.npy",
        Path("update.npy"),
        None,
        7,
        object.__new__(ValidatedUpdate),
        _Liar(),
        Mock(spec=ValidatedUpdate, kind="update", values_checked=True, closed=False, schema=None),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_gate_lets_no_other_object_pass(given: object) -> None:
    with pytest.raises(TypeError, match="or a ValidatedUpdate can be uploaded, not "):
        check_gate(given, None)


def test_the_gate_lets_no_other_proof_pass() -> None:
    with (
        validate_bytes(AGGREGATE, kind="aggregate") as aggregate,
        pytest.raises(TypeError, match="this is an aggregate"),
    ):
        check_gate(aggregate, None)
    with (
        validate_bytes(UPDATE, values=False) as unchecked,
        pytest.raises(TypeError, match="values were not checked"),
    ):
        check_gate(unchecked, None)
    closed = validate_bytes(UPDATE)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        check_gate(closed, None)


def test_the_gate_wants_the_schema_of_the_client() -> None:
    with validate_bytes(UPDATE) as update:
        schema = infer_schema(update.layout)
        with pytest.raises(TypeError, match="not judged by the client's schema"):
            check_gate(update, schema)
    with (
        validate_bytes(UPDATE, schema=UpdateSchema(version=1)) as update,
        pytest.raises(TypeError, match="not judged by the client's schema"),
    ):
        check_gate(update, schema)
    with validate_bytes(UPDATE, schema=schema) as update:
        equal = UpdateSchema.model_validate_json(schema.model_dump_json())
        assert check_gate(update, equal) is update
        assert check_gate(update, None) is update


# --- stored ------------------------------------------------------------------------------------


def _parts(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Multipart, as another implementation reads it."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): part
        for part in message.iter_parts()
    }


def test_what_the_service_gets(proof: ValidatedUpdate) -> None:
    with HostileServer(STORED) as server:
        assert _upload(server, proof) == "file-1"
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/file/upload")
    assert request.complete
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == (
        "Basic " + b64encode(f"leaf-1:{TOKEN}".encode()).decode()
    )
    parts = _parts(request.headers, bytes(request.body))
    assert list(parts) == ["data", "file"]
    told = json.loads(parts["data"].get_payload())
    assert told == {"leaf_name": "site 1", "metadata": "{'key1':'value1', 'key2':'value2'}"}
    content = parts["file"].get_payload(decode=True)
    assert hashlib.sha256(content).hexdigest() == proof.sha256
    assert parts["file"].get_filename() == "update.npy"


def test_metadata_and_progress(big: ValidatedUpdate) -> None:
    told: list[tuple[int, int | None]] = []
    with HostileServer(STORED) as server:
        _upload(server, big, metadata="mine", progress=lambda *step: told.append(step))
    (request,) = server.requests
    assert json.loads(_parts(request.headers, bytes(request.body))["data"].get_payload()) == {
        "leaf_name": "site 1", "metadata": "mine",
    }  # fmt: skip
    assert len(told) > 8
    assert told == sorted(told)
    assert {total for _, total in told} == {len(request.body)}
    assert told[-1][0] == len(request.body)


def test_a_reply_in_chunks_is_a_reply(proof: ValidatedUpdate) -> None:
    with HostileServer(chunked(201, b'{"data": {"file_id": "file-2"}}', nbytes=3)) as server:
        assert _upload(server, proof) == "file-2"


# --- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 301, 307, 308])
def test_a_refusal_is_final(proof: ValidatedUpdate, status: int) -> None:
    with HostileServer(reply(status, {"error": "no, not this"}, Location="/x")) as server:
        with pytest.raises(ResponseError, match=f"HTTP {status}.*'no, not this'") as caught:
            _upload(server, proof)
        assert len(server.settle()) == 1
    assert caught.value.status_code == status
    assert isinstance(caught.value, AuthenticationError) == (status in (401, 403))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 307, 308, 302, 303])
def test_no_redirect_is_followed(proof: ValidatedUpdate, status: int) -> None:
    with HostileServer(STORED) as other, HostileServer(redirect(status, other.url)) as server:
        with pytest.raises((ResponseError, OutcomeUnknownError), match=f"HTTP {status}"):
            _upload(server, proof)
        assert other.num_connections == 0
        assert len(server.settle()) == 1


@pytest.mark.parametrize("status", [301, 307])
def test_the_body_of_a_redirect_is_not_taken_in(proof: ValidatedUpdate, status: int) -> None:
    """Requests reads it whole, and decodes it, redirects allowed or not."""
    head = f"HTTP/1.1 {status} X\r\nLocation: /x\r\n".encode()
    with (
        HostileServer(raw(head + b"Content-Length: 99999999\r\n\r\n ")) as server,
        pytest.raises(ResponseError, match=f"HTTP {status}, a redirect"),
    ):
        _upload(server, proof)


@pytest.mark.parametrize("reset_after", [False, True])
def test_an_early_refusal_is_heard(big: ValidatedUpdate, reset_after: bool) -> None:
    refusal = early(413, {"error": "too large"}, read=100_000, reset=reset_after)
    with HostileServer(refusal) as server:
        with pytest.raises((ResponseError, OutcomeUnknownError)) as caught:
            _upload(server, big)
        (request,) = server.settle()
    assert not request.complete
    # An RST may overtake the reply; then nothing but the bytes that left is known.
    if isinstance(caught.value, OutcomeUnknownError):
        assert reset_after
        assert caught.value.nbytes_sent < caught.value.nbytes
    else:
        assert caught.value.status_code == 413


@pytest.mark.parametrize(
    "unreadable",
    [
        endless(413),
        truncated(413, b'{"error": "too'),
        bomb(413, 50 << 20),
        reply(413, b"x" * (2 << 20)),
        reply(413, b"[" * 100_000),
        chunked(413, b"{}", cut=5),
        raw(b"HTTP/1.1 413 X\r\n\r\n\xff\xfe"),
    ],
)
def test_a_refusal_stands_whatever_it_says(proof: ValidatedUpdate, unreadable: Behaviour) -> None:
    with HostileServer(unreadable) as server:
        with pytest.raises(ResponseError) as caught:
            _upload(server, proof)
        assert len(server.settle()) == 1
    assert caught.value.status_code == 413


# --- tried again -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_busy_is_tried_again(proof: ValidatedUpdate, slept: list[float], status: int) -> None:
    busy = reply(status, {"error": "later"}, Retry_After="7")
    with HostileServer(busy, reply(status), STORED) as server:
        assert _upload(server, proof) == "file-1"
        assert len(server.settle()) == 3
    bodies = [_parts(each.headers, bytes(each.body)) for each in server.requests]
    assert {part["file"].get_payload(decode=True) for part in bodies} == {UPDATE}
    assert slept[0] == 7.0
    assert 0 < slept[1] <= 5.0


def test_busy_for_good_is_a_refusal(proof: ValidatedUpdate, slept: list[float]) -> None:
    with HostileServer(reply(503, {"error": "later"}, Retry_After="0")) as server:
        with pytest.raises(ResponseError) as caught:
            _upload(server, proof)
        assert len(server.settle()) == 5
    assert caught.value.status_code == 503
    assert slept == [0.0] * 4


@pytest.mark.parametrize("pause", ["61", "99999999999999999999", "9" * 5000])
def test_too_long_a_pause_is_told(proof: ValidatedUpdate, slept: list[float], pause: str) -> None:
    with HostileServer(reply(503, Retry_After=pause)) as server:
        with pytest.raises(ResponseError) as caught:
            _upload(server, proof, seconds=100)
        assert len(server.settle()) == 1
    assert caught.value.retry_after == float(pause)
    assert slept == []


def test_a_pause_past_the_deadline_is_not_begun(proof: ValidatedUpdate, slept: list[float]) -> None:
    with HostileServer(reply(503, Retry_After="30")) as server:
        with pytest.raises(ResponseError):
            _upload(server, proof, seconds=20)
        assert len(server.settle()) == 1
    assert slept == []


def test_no_connection_is_tried_again(proof: ValidatedUpdate, slept: list[float]) -> None:
    with HostileServer(STORED) as server:
        pass  # closed again: nobody listens there
    with pytest.raises(NoResponseError, match=r"Connection refused") as caught:
        _upload(server, proof)
    assert not isinstance(caught.value, DeadlineError)
    assert len(slept) == 4


# --- not known ---------------------------------------------------------------------------------

_UNKNOWN: dict[str, Behaviour] = {
    "lost reply": lost_reply(),
    "reset after the body": lambda exchange: (exchange.read_body(), exchange.reset())[1],
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9\r\n"),
    "zeros": raw(bytes(10_000)),
    "huge headers": raw(b"HTTP/1.1 201 X\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n{}"),
    "many headers": raw(b"HTTP/1.1 201 X\r\n" + b"A: x\r\n" * 1000 + b"\r\n{}"),
    "201 cut": truncated(201, b'{"data": {"file_id": "file-1"}}'),
    "201 in cut chunks": chunked(201, b'{"data": {"file_id": "file-1"}}', cut=5),
    "201 as gzip": bomb(201, 10 << 20),
    "201 endless": endless(201),
    "201 endless in chunks": endless(201, chunks=True),
    "201 of 2 MB": reply(201, b'{"data": {"file_id": "file-1"}}' + b" " * (2 << 20)),
    "201 nested": reply(201, b'{"data":' * 100_000),
    "201 no JSON": reply(201, b"<html>stored</html>"),
    "201 empty": reply(201),
    "201 a list": reply(201, []),
    "201 no data": reply(201, {"file_id": "file-1"}),
    "201 data is text": reply(201, {"data": "file-1"}),
    "201 no file_id": reply(201, {"data": {}}),
    "201 a number": reply(201, {"data": {"file_id": 7}}),
    "201 a path": reply(201, {"data": {"file_id": "../../x"}}),
    "201 a hidden name": reply(201, {"data": {"file_id": ".x"}}),
    "201 a line end": reply(201, {"data": {"file_id": "file-1\n"}}),
    "200": reply(200, {"data": {"file_id": "file-1"}}),
    "202": reply(202, {"data": {"file_id": "file-1"}}),
    "204": raw(b"HTTP/1.1 204 X\r\n\r\n"),
    "302": redirect(302, "/somewhere"),
    "303": redirect(303, "/somewhere"),
    "500": reply(500, {"error": "failed"}),
    "502": reply(502),
    "504": reply(504, Retry_After="1"),
    "103 alone": raw(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", _UNKNOWN.values(), ids=_UNKNOWN)
def test_a_lost_reply_is_not_known_and_not_sent_again(
    proof: ValidatedUpdate, slept: list[float], behaviour: Behaviour
) -> None:
    with HostileServer(behaviour, STORED) as server:
        with pytest.raises(OutcomeUnknownError) as caught:
            _upload(server, proof)
        (request,) = server.settle()
    assert request.complete
    assert (caught.value.sha256, caught.value.nbytes) == (proof.sha256, len(request.body))
    assert caught.value.nbytes_sent == len(request.body)
    assert "\n" not in str(caught.value)
    assert slept == []


@pytest.mark.parametrize("nbytes", [1, 100_000, 4 << 20])
def test_a_reset_in_the_middle_is_not_sent_again(
    big: ValidatedUpdate, slept: list[float], nbytes: int
) -> None:
    with HostileServer(reset(nbytes), STORED) as server:
        with pytest.raises(OutcomeUnknownError) as caught:
            _upload(server, big)
        (request,) = server.settle()
    assert not request.complete
    assert 0 < caught.value.nbytes_sent < caught.value.nbytes
    assert slept == []


def test_201_before_the_whole_body_is_not_believed(big: ValidatedUpdate) -> None:
    with (
        HostileServer(early(201, {"data": {"file_id": "file-1"}}, read=100_000)) as server,
        pytest.raises(OutcomeUnknownError) as caught,
    ):
        _upload(server, big)
    assert caught.value.nbytes_sent < caught.value.nbytes


# --- time --------------------------------------------------------------------------------------

_REPLY = b'HTTP/1.1 201 X\r\nContent-Length: 31\r\n\r\n{"data": {"file_id": "file-1"}}'
_SLOW: dict[str, Behaviour] = {
    "no answer": stall(),
    "drip in the headers": drip(_REPLY),
    "drip in the body": drip(_REPLY, at=40),
    "drip of no length": drip(b"HTTP/1.1 201 X\r\n\r\n" + b" " * 1000, at=18),
    "drip of 100 Continue": drip(b"HTTP/1.1 100 X\r\n\r\n" * 1000, 0.01),
}


@pytest.mark.parametrize("behaviour", _SLOW.values(), ids=_SLOW)
def test_the_deadline_ends_every_wait(proof: ValidatedUpdate, behaviour: Behaviour) -> None:
    with HostileServer(behaviour) as server:
        with pytest.raises(OutcomeUnknownError, match=r"not done within 0\.7 s"):
            _upload(server, proof, seconds=0.7)
        assert len(server.settle()) == 1


@pytest.mark.parametrize("behaviour", [stall(read=False), sleeper(100_000, 0.1)])
def test_the_deadline_ends_an_upload_that_is_not_read(
    big: ValidatedUpdate, behaviour: Behaviour
) -> None:
    with HostileServer(behaviour) as server:
        with pytest.raises(OutcomeUnknownError, match=r"not done within 0\.7 s"):
            _upload(server, big, seconds=0.7)
        server.close()
    (request,) = server.requests
    assert not request.complete


def test_a_step_may_not_take_longer_than_the_timeout(big: ValidatedUpdate) -> None:
    with (
        HostileServer(stall(read=False)) as server,
        pytest.raises(OutcomeUnknownError, match=r"no answer within 0\.3 s"),
    ):
        _upload(server, big, timeout=0.3)


def test_retries_end_with_the_deadline(proof: ValidatedUpdate) -> None:
    with HostileServer(reply(503)) as server:
        with pytest.raises((ResponseError, DeadlineError)):
            _upload(server, proof, seconds=1.0)
        assert 1 <= len(server.settle()) < 5


# --- what goes wrong here ----------------------------------------------------------------------


@pytest.mark.parametrize("change", ["content", "cut"])
def test_a_changed_file_never_arrives_whole(tmp_path: Path, change: str) -> None:
    path = write_update_file(tmp_path, _BIG)
    with validate_file(path) as update, HostileServer(STORED) as server:
        with path.open("r+b") as file:
            if change == "cut":
                file.truncate(_BIG // 2)
            else:
                file.seek(_BIG - 5)
                file.write(b"x")
        with pytest.raises(UpdateChangedError):
            _upload(server, update)
        (request,) = server.settle()
    assert not request.complete
    assert len(request.body) < int(request.headers["content-length"])


def test_a_file_that_changes_on_its_way_never_arrives_whole(tmp_path: Path) -> None:
    path = write_update_file(tmp_path, _BIG)

    def progress(done: int, total: int | None) -> None:
        if done > _BIG // 4:
            with path.open("r+b") as file:
                file.seek(_BIG - 5)
                file.write(b"x")

    with validate_file(path) as update, HostileServer(STORED) as server:
        with pytest.raises(UpdateChangedError):
            _upload(server, update, progress=progress)
        (request,) = server.settle()
    assert not request.complete


def test_what_is_sent_is_the_judged_file_not_its_name(tmp_path: Path) -> None:
    path = write_update_file(tmp_path)
    was = path.read_bytes()
    with validate_file(path) as update, HostileServer(STORED) as server:
        other = tmp_path / "other"
        other.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        os.replace(other, path)
        _upload(server, update)
    (request,) = server.requests
    assert was in request.body


@pytest.mark.timeout(60)  # were it taken for trouble of the network, a reply would be waited for
@pytest.mark.parametrize(
    "failure",
    [BrokenPipeError(32, "pipe"), ConnectionResetError(104, "reset"), TimeoutError(),
     ValueError("mine"), KeyboardInterrupt(), UpdateChangedError("mine")],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
def test_what_the_progress_raises_comes_out_at_once(
    big: ValidatedUpdate, failure: BaseException, slept: list[float]
) -> None:
    def progress(done: int, total: int | None) -> None:
        if done > _BIG // 4:
            raise failure

    with HostileServer(STORED) as server:
        with pytest.raises(type(failure)) as caught:
            _upload(server, big, progress=progress, timeout=1000, seconds=1000)
        (request,) = server.settle()
    assert caught.value is failure
    assert not request.complete
    assert slept == []
