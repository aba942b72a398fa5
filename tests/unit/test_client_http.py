"""The client's calls of the HTTP service; notifications are tested elsewhere."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tenacity.nap

from bkformat import (
    InvalidUpdateError,
    UpdateChangedError,
    ValidatedUpdate,
    infer_schema,
    load_file,
    validate_bytes,
    validate_file,
)
from bktransport.client import Client
from bktransport.errors import (
    AuthenticationError,
    DeadlineError,
    InvalidAggregateError,
    InvalidMessageError,
    NoResponseError,
    OutcomeUnknownError,
    ResponseError,
    StateError,
)
from bktransport.journal import Journal

from ..hostile_http import HostileServer, lost_reply, reply, reset, stall
from .files import FIXTURES, aggregate, update
from .transport import (
    AGGREGATE,
    CREDENTIALS,
    PASSWORD,
    STORED,
    TOKEN,
    UPDATE,
    located,
    write_update_file,
)

_TOPOLOGY = reply(200, {"data": {"tree_id": "tree-1", "branch_id": "branch-1"}})


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", Mock(sleep=pauses.append))
    return pauses


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(_TOPOLOGY) as server:
        yield server


@pytest.fixture
def make(server: HostileServer, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(**options: Any) -> Client:
        given = {"state": tmp_path / "state", "output": tmp_path / "out", "proxies": {},
                 "notifications": False, **options}  # fmt: skip
        made.append(Client(CREDENTIALS, server.url, **given))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make: Callable[..., Client], server: HostileServer) -> Client:
    """Authenticated."""
    client = make()
    assert client.authenticate() is True
    server.requests.clear()
    return client


# --- the gate ----------------------------------------------------------------------------------


def test_nothing_unjudged_causes_a_request(
    client: Client, server: HostileServer, tmp_path: Path
) -> None:
    invalid = sorted((FIXTURES / "invalid").glob("BK2*.npy"))[0]
    bare = tmp_path / "bare.npy"
    bare.write_bytes(AGGREGATE)
    spoiled = tmp_path / "nan.npy"
    spoiled.write_bytes(update(np.array([np.nan], "f4")))
    for path in (invalid, str(invalid), bare, spoiled):
        with pytest.raises(InvalidUpdateError):
            client.file_upload(path)
    with pytest.raises(FileNotFoundError):
        client.file_upload(tmp_path / "none")
    unchecked = validate_bytes(UPDATE, values=False)
    other_kind = validate_bytes(AGGREGATE, kind="aggregate")
    given: Any
    for given in (UPDATE, None, 7, unchecked, other_kind, object.__new__(ValidatedUpdate)):
        with pytest.raises(TypeError):
            client.file_upload(given)
    assert server.num_connections == 1
    assert client.uploads() == []


def test_the_schema_of_the_client_judges(
    make: Callable[..., Client], server: HostileServer, tmp_path: Path
) -> None:
    with validate_bytes(update(np.zeros(3, "f4"))) as good:
        client = make(schema=infer_schema(good.layout))
        client.authenticate()
        path = write_update_file(tmp_path)
        with pytest.raises(InvalidUpdateError):
            client.file_upload(path)
        with pytest.raises(TypeError, match="client's schema"):
            client.file_upload(good)
        assert server.num_connections == 1
    server.then(STORED)
    path.write_bytes(update(np.zeros(3, "f4")))
    assert client.file_upload(path) == "file-1"


def test_without_authentication_nothing_is_sent(
    make: Callable[..., Client], server: HostileServer, tmp_path: Path
) -> None:
    client = make()
    for call in (
        lambda: client.file_upload(write_update_file(tmp_path)),
        lambda: client.file_download("id-1"),
        lambda: client.send_performance_metrics("id-1", "{}", "test"),
    ):
        with pytest.raises(AuthenticationError, match=r"call authenticate\(\) first"):
            call()
    assert server.num_connections == 0
    assert not client.is_authenticated


# --- the calls -----------------------------------------------------------------------------------


def test_authentication(make: Callable[..., Client], server: HostileServer) -> None:
    client = make()
    server.then(reply(401, {"error": "unknown leaf"}))
    with pytest.raises(AuthenticationError, match="'unknown leaf'"):
        client.authenticate()
    server.then(reply(200, {"data": {"tree_id": "../x", "branch_id": "b"}}))
    with pytest.raises(InvalidMessageError):
        client.authenticate()
    assert not client.is_authenticated
    server.then(reset(0), reply(503), _TOPOLOGY)
    assert client.authenticate() is True
    assert client.is_authenticated
    (first, *_) = server.settle()
    assert (first.method, first.target) == ("GET", "/v1/leaf/authenticate")
    assert len(server.requests) == 5


def test_metrics(client: Client, server: HostileServer) -> None:
    server.then(reply(201))
    assert client.send_performance_metrics("id-1", {"loss": 0.5}, "test") is True
    (request,) = server.settle()
    assert (request.method, request.target) == ("POST", "/v1/performance/analysis")
    assert request.headers["content-type"] == "application/json"
    coded = b64encode(f"analyser:{PASSWORD}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {coded}"
    assert json.loads(bytes(request.body)) == {
        "mode": "test", "aggregation_id": "id-1", "leaf_id": "leaf-1", "branch_id": "branch-1",
        "tree_id": "tree-1", "data": '{"loss": 0.5}',
    }  # fmt: skip
    for arguments in (("id-1", "{}", "tes"), ("../x", "{}", "test")):
        with pytest.raises(ValueError, match=r"none of test|no id"):
            client.send_performance_metrics(*arguments)
    assert len(server.requests) == 1


def test_metrics_are_not_sent_twice(client: Client, server: HostileServer) -> None:
    server.then(lost_reply())
    with pytest.raises(NoResponseError):
        client.send_performance_metrics("id-1", "{}", "test")
    server.then(reply(500))
    with pytest.raises(ResponseError):
        client.send_performance_metrics("id-1", "{}", "test")
    assert len(server.settle()) == 2
    server.then(reply(503), reply(201))
    assert client.send_performance_metrics("id-1", "{}", "test") is True


def test_a_download(client: Client, server: HostileServer, tmp_path: Path) -> None:
    with HostileServer(reply(200, AGGREGATE)) as files:
        server.then(located(files.url + "/file"))
        path = client.file_download("id-1")
        assert path == tmp_path / "out" / "id-1.npy"
        assert load_file(path, kind="aggregate").parameters[0].shape == (3000,)
        assert client.file_download("id-1", path=tmp_path / "mine.npy") == tmp_path / "mine.npy"
    with pytest.raises(ValueError, match="is no id"):
        client.file_download("../../x")


def test_an_aggregate_must_fit_the_schema_but_for_its_count(
    make: Callable[..., Client], server: HostileServer
) -> None:
    with validate_bytes(update(np.zeros(3, "f4"), num_samples=7)) as proof:
        schema = infer_schema(proof.layout)
    bounded = schema.model_copy(
        update={"num_samples": type(schema).model_validate(
            {"version": 1, "num_samples": {"min": 1, "max": 9}}
        ).num_samples}
    )  # fmt: skip
    client = make(schema=bounded)
    client.authenticate()
    good = update(np.zeros(3, "f4"), num_samples=900)
    with HostileServer(reply(200, good)) as files:
        server.then(located(files.url + "/file"))
        client.file_download("id-1")
        files.then(reply(200, aggregate(np.zeros(4, "f4"))))
        with pytest.raises(InvalidAggregateError):
            client.file_download("id-2")


def test_every_call_takes_a_deadline(client: Client, server: HostileServer, tmp_path: Path) -> None:
    server.then(stall())
    path = write_update_file(tmp_path)
    with pytest.raises(DeadlineError):
        client.authenticate(deadline=0.3)
    with pytest.raises(DeadlineError):
        client.file_download("id-1", deadline=0.3)
    with pytest.raises(DeadlineError):
        client.send_performance_metrics("id-1", "{}", "test", deadline=0.3)
    with pytest.raises(OutcomeUnknownError):
        client.file_upload(path, deadline=0.3)


# --- the journal ---------------------------------------------------------------------------------


def test_the_journal_knows_how_each_upload_ended(
    client: Client, server: HostileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_update_file(tmp_path)
    server.then(STORED, reply(413, {"error": "no"}), lost_reply())
    assert client.file_upload(path) == "file-1"
    with pytest.raises(ResponseError):
        client.file_upload(path)
    with pytest.raises(OutcomeUnknownError) as caught:
        client.file_upload(path)
    with validate_file(path) as proof:
        path.write_bytes(b"x" * 9)
        with pytest.raises(UpdateChangedError):
            client.file_upload(proof)
        assert any("has no known outcome" in message for message in caplog.messages)

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.file_upload(write_update_file(tmp_path), progress=interrupt)
    found = client.uploads()
    assert [record.state for record in found] == [
        "stored", "refused", "unknown", "refused", "unknown",
    ]  # fmt: skip
    assert {record.sha256 for record in found} == {caught.value.sha256, proof.sha256}
    assert [record.file_id for record in found] == ["file-1", None, None, None, None]
    assert TOKEN not in repr(found)


def test_a_journal_that_can_not_be_written_hides_no_ending(
    client: Client, server: HostileServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = write_update_file(tmp_path)
    caplog.set_level(logging.WARNING, "bktransport")
    monkeypatch.setattr(Journal, "finish", Mock(side_effect=StateError("disk full")))
    server.then(STORED, reply(400), lost_reply())
    assert client.file_upload(path) == "file-1"
    with pytest.raises(ResponseError):
        client.file_upload(path)
    with pytest.raises(OutcomeUnknownError):
        client.file_upload(path)
    assert sum("the journal can't say so" in message for message in caplog.messages) == 3


def test_without_a_journal_nothing_is_sent(
    client: Client, server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "begin", Mock(side_effect=StateError("disk full")))
    with pytest.raises(StateError):
        client.file_upload(write_update_file(tmp_path))
    assert server.num_connections == 1


# --- the rest ------------------------------------------------------------------------------------


def test_names_of_the_published_client(make: Callable[..., Client], tmp_path: Path) -> None:
    client = make()
    assert client.validate_weight_shape(write_update_file(tmp_path)) is True
    assert client.convert_pytorch_numpy([("a", np.ones(2))], 3)[0] == 3
    assert (client.leaf_id, client.run_status) == ("leaf-1", "pause")
    assert client.session_token.get_secret_value() == TOKEN
    with pytest.warns(UserWarning, match="certificates are not checked"):
        assert client.disable_ssl_verification() is False
    assert client.disable_ssl_verification(enabled=True) is True


def test_arguments_are_looked_at_first(make: Callable[..., Client], tmp_path: Path) -> None:
    wrong: Any
    for wrong in ({"timeout": 0}, {"proxies": {"http": "socks5://x"}}):
        with pytest.raises(ValueError, match=r"timeout|proxies"):
            make(**wrong)
    with pytest.raises(FileNotFoundError):
        make(verify=tmp_path / "none.pem")
    with pytest.raises(ValueError, match="deadline"):
        make().authenticate(deadline=0)
