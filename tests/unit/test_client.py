"""The client's own promises, beside those of its parts: its life, the run, what marks as done."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pytest

from bkformat import UpdateSchema, build_update, validate_bytes
from bktransport import (
    AuthenticationError,
    BrokerError,
    Client,
    DeadlineError,
    InvalidAggregateError,
    StateError,
)
from bktransport.sandbox import Sandbox

WAIT = 60.0  # seconds; generous: what is waited for comes soon, or never


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(leaves=1) as one:
        yield one


@pytest.fixture
def client(sandbox: Sandbox, tmp_path: Path) -> Iterator[Client]:
    with _client(sandbox, tmp_path) as one:
        yield one


def _client(sandbox: Sandbox, tmp_path: Path, **options: Any) -> Client:
    options = {"state": tmp_path / "state", "output": tmp_path / "out", **options}
    return Client(sandbox.credentials[0], **options)


def _upload(client: Client, shape: tuple[int, ...] = (2, 3)) -> str:
    with validate_bytes(build_update(10, [np.ones(shape, "float32")])) as update:
        return client.file_upload(update)


def test_a_call_before_authentication_says_so(client: Client) -> None:
    assert not client.is_authenticated
    for call in (
        lambda: _upload(client),
        lambda: client.file_download("some-id"),
        lambda: client.send_performance_metrics("some-id", "{}", "test"),
        lambda: client.topology,
    ):
        with pytest.raises(AuthenticationError, match=r"call authenticate\(\) first"):
            call()
    assert client.uploads() == []


def test_a_closed_client_says_so(client: Client) -> None:
    client.authenticate()
    client.close()
    client.close()
    for call in (
        client.authenticate,
        lambda: _upload(client),
        lambda: client.file_download("some-id"),
        lambda: client.send_performance_metrics("some-id", "{}", "test"),
        client.wait_for_run,
    ):
        with pytest.raises(ValueError, match="this Client is closed"):
            call()
    with pytest.raises(StateError, match="closed"):
        client.queue.get()


def test_the_state_folder_is_free_again_after_close(sandbox: Sandbox, tmp_path: Path) -> None:
    for _ in range(2):
        with _client(sandbox, tmp_path) as client:
            with pytest.raises(StateError, match=r"in use by process \d+ \(this one\)"):
                _client(sandbox, tmp_path)
            assert client.authenticate() is True


def test_a_client_that_can_not_be_made_leaves_the_folder_free(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="heartbeat must be 1 to 65535 seconds, not 0"):
        _client(sandbox, tmp_path, heartbeat=0)
    _client(sandbox, tmp_path).close()


def test_authenticating_again_is_fine(client: Client, sandbox: Sandbox) -> None:
    assert client.authenticate() is client.authenticate() is True
    assert client.topology == sandbox.topology
    _upload(client)
    assert client.queue.get(timeout=WAIT)
    with pytest.raises(Empty):
        client.queue.get(timeout=0.2)


def test_a_download_marks_as_done(client: Client, sandbox: Sandbox, tmp_path: Path) -> None:
    client.authenticate()
    _upload(client)
    aggregation_id = client.queue.get(timeout=WAIT)
    client.file_download(aggregation_id)
    with pytest.raises(ValueError, match="no aggregation is taken"):
        client.queue.task_done()
    client.close()
    with _client(sandbox, tmp_path) as again:
        again.authenticate()
        assert again.queue.empty()


def test_a_failed_download_is_offered_again(sandbox: Sandbox, tmp_path: Path) -> None:
    schema = UpdateSchema.model_validate(
        {"version": 1, "parameters": [{"dtype": "float32", "shape": [7]}]}
    )
    with _client(sandbox, tmp_path, download_schema=schema) as client:
        client.authenticate()
        _upload(client)
        aggregation_id = client.queue.get(timeout=WAIT)
        with pytest.raises(InvalidAggregateError, match="BK503") as caught:
            client.file_download(aggregation_id)
        assert caught.value.report is not None
        assert list((tmp_path / "out").iterdir()) == []
    with _client(sandbox, tmp_path) as client:
        client.authenticate()
        assert client.queue.get(timeout=WAIT) == aggregation_id


def test_the_schema_of_uploads_leaves_the_count_of_aggregates_free(tmp_path: Path) -> None:
    schema = UpdateSchema.model_validate({"version": 1, "num_samples": {"max": 15}})
    with (
        Sandbox(leaves=2) as sandbox,
        _client(sandbox, tmp_path, schema=schema) as client,
        Client(sandbox.credentials[1], state=tmp_path / "other") as other,
    ):
        other.authenticate()
        client.authenticate()
        data = build_update(10, [np.ones(3, "float32")])
        for one in (client, other):
            with validate_bytes(data, schema=schema) as update:
                one.file_upload(update)
        assert client.file_download(client.queue.get(timeout=WAIT)).exists()  # of 20 samples


def test_an_aggregate_that_can_not_be_marked_is_still_here(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client.authenticate()
    _upload(client)
    aggregation_id = client.queue.get(timeout=WAIT)

    def full(_: str) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(client.queue, "downloaded", full)
    with caplog.at_level(logging.WARNING, "bktransport"):
        assert client.file_download(aggregation_id).exists()
    assert "can't be marked as done: the disk is full" in caplog.text


class TestRun:
    def test_waiting_ends_when_it_is_told(self, client: Client, sandbox: Sandbox) -> None:
        client.authenticate()
        sandbox.set_run("stop")
        assert client.wait_for_run(["start", "stop"], timeout=WAIT) == "stop"
        assert client.run_status == "stop"

    def test_it_is_known_after_a_restart(
        self, client: Client, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        client.authenticate()
        sandbox.set_run("start")
        client.wait_for_run(timeout=WAIT)
        client.close()
        with _client(sandbox, tmp_path) as again:
            assert again.run_status == "start"

    def test_waiting_has_an_end(self, client: Client) -> None:
        with pytest.raises(DeadlineError, match=r"still at 'pause' after 0\.05 s"):
            client.wait_for_run(timeout=0.05)

    def test_an_unknown_status_would_never_come(self, client: Client) -> None:
        with pytest.raises(ValueError, match="none of start, stop, pause"):
            client.wait_for_run("started", timeout=WAIT)  # type: ignore[arg-type]

    def test_without_notifications_it_would_never_come(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        with (
            _client(sandbox, tmp_path, notifications=False) as client,
            pytest.raises(ValueError, match="no notifications"),
        ):
            client.wait_for_run(timeout=WAIT)

    def test_closing_ends_the_waiting(self, client: Client) -> None:
        timer = threading.Timer(0.1, client.close)
        timer.start()
        with pytest.raises(StateError, match="closed while it waited"):
            client.wait_for_run(timeout=WAIT)
        timer.join()


def test_a_broker_that_refuses_does_not_keep_from_uploading(tmp_path: Path) -> None:
    with Sandbox(leaves=1) as sandbox:
        given = sandbox.credentials[0]
        sandbox.broker.add_leaf(sandbox.topology.tree_id, given["leaf_id"], "another-password")
        with _client(sandbox, tmp_path) as client:
            with pytest.raises(BrokerError, match="ACCESS_REFUSED"):
                client.authenticate()
            assert client.broker_error is not None
            assert _upload(client)


def test_a_broker_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with Sandbox(leaves=1) as sandbox, _client(sandbox, tmp_path) as client:
        sandbox.broker.stop()  # type: ignore[attr-defined]
        assert client.authenticate(deadline=5) is True
        assert isinstance(client.broker_error, BrokerError)
        _upload(client)
        sandbox.broker.restart()  # type: ignore[attr-defined]
        assert client.queue.get(timeout=WAIT)
        assert client.broker_error is None


def test_what_is_wrong_with_a_call_is_found_before_a_byte_leaves(client: Client) -> None:
    client.authenticate()
    with pytest.raises(TypeError, match="metadata must be a text, not int"):
        client.file_upload(b"", metadata=3)  # type: ignore[arg-type]
    with (
        validate_bytes(build_update(10, [np.ones(3, "float32")])) as update,
        pytest.raises(TypeError, match="progress must be a function, not int"),
    ):
        client.file_upload(update, progress=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only a path or a ValidatedUpdate can be uploaded"):
        client.file_upload(None)  # type: ignore[arg-type]
    assert client.uploads() == []


def test_an_interrupted_upload_says_how_much_had_left(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.authenticate()

    def interrupt(sent: int, total: int | None) -> None:
        if sent > 300_000:
            raise KeyboardInterrupt

    with (
        validate_bytes(build_update(10, [np.ones(1 << 18, "float32")])) as update,
        caplog.at_level(logging.WARNING, "bktransport"),
        pytest.raises(KeyboardInterrupt),
    ):
        client.file_upload(update, progress=interrupt)
    (record,) = client.uploads()
    assert record.state == "unknown"
    assert re.fullmatch(r"interrupted when \d+ of \d+ bytes had left", record.detail or "")
    assert f"the upload of {record.sha256} has no known outcome" in caplog.text


def test_messages_of_no_protocol_are_told_and_kept(
    client: Client, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    client.authenticate()
    with caplog.at_level(logging.WARNING, "bktransport"):
        sandbox.broker.publish(sandbox.topology.tree_id, client.leaf_id, b"{")
        sandbox.set_run("stop")
        client.wait_for_run("stop", timeout=WAIT)
    assert [aside.body for aside in client.kept_aside()] == [b"{"]
    assert "kept aside: the message is no JSON object (1 bytes)" in caplog.text
