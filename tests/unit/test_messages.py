"""The dialect: what is written, and what is made of anything that comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bktransport.errors import InvalidMessageError
from bktransport.messages import (
    AggregationReady,
    RunStatusChanged,
    Topology,
    checked_id,
    download_path,
    metrics_body,
    read_authentication,
    read_download,
    read_error,
    read_event,
    read_upload,
    upload_fields,
    write_event,
)

_GARBAGE = [
    b"", b"null", b"7", b"[]", b'"text"', b"{}", b"\xff\xfe", b"\x00", b"{" * 100_000,
    b'{"a":' * 100_000, b'{"data": null}', b'{"data": []}', b'{"data": "x"}', b'{"data": {}}',
    b"1" * 100_000, b'{"data": {"file_id": null}}', b'{"data": {"file_id": {}}}',
    b'{"data": {"file_id": ""}}', b'{"data": {"file_id": "../x"}}',
    b'{"data": {"file_id": "a\\u0000"}}', b'{"data": {"download_url": ""}}',
    b'{"data": {"tree_id": "t"}}', b'{"data": {"tree_id": "t", "branch_id": "a/b"}}',
    b"\xef\xbb\xbf{}", b"NaN",
]  # fmt: skip


@pytest.mark.parametrize("body", _GARBAGE, ids=lambda body: repr(body[:30]))
@pytest.mark.parametrize("read", [read_authentication, read_upload, read_download, read_event])
def test_anything_else_is_one_error(read: Any, body: bytes) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        read(body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", [*_GARBAGE, b'{"error": 7}', b'{"error": null}', b'{"error": []}'])
def test_a_refusal_may_say_nothing(body: bytes) -> None:
    assert read_error(body) == ""


def test_good_replies() -> None:
    data = b'{"data": {"tree_id": "t-1", "branch_id": "b_2", "more": 1}, "x": 2}'
    assert read_authentication(data) == Topology("t-1", "b_2")
    assert read_upload(b'{"data": {"file_id": "a.b"}}') == "a.b"
    assert read_download(b'{"data": {"download_url": "http://x"}}') == "http://x"
    assert read_error(b'{"error": "no"}') == "no"
    assert read_error(b'{"message": "no"}') == "no"


@pytest.mark.parametrize(
    "event", [AggregationReady("id-1"), *map(RunStatusChanged, ("start", "stop", "pause"))]
)
def test_events_come_back(event: Any) -> None:
    assert read_event(write_event(event)) == event


@pytest.mark.parametrize(
    "message",
    [
        {"message_type": "aggregation_status", "body": {"aggregation_id": "../x"}},
        {"message_type": "aggregation_status", "body": {"aggregation_id": 7}},
        {"message_type": "aggregation_status", "body": []},
        {"message_type": "aggregation_status"},
        {"message_type": "run_status", "body": {"run_status": "halt"}},
        {"message_type": "run_status", "body": {"run_status": []}},
        {"message_type": ["run_status"], "body": {}},
        {"message_type": "x" * 10_000, "body": {}},
    ],
)
def test_other_events_are_refused(message: Any) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        read_event(json.dumps(message).encode())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("given", ["a", "0", "_x", "a.b-c_d", "x" * 128])
def test_ids(given: str) -> None:
    assert checked_id(given, "id") == given
    assert download_path(given) == f"/v1/file/download/{given}"


@pytest.mark.parametrize(
    "given", ["", ".", "..", ".a", "-a", "a/b", "a\\b", "a b", "a\n", "\u0663", "x" * 129, None, 7]
)
def test_no_ids(given: Any) -> None:
    with pytest.raises(ValueError, match="is no id"):
        download_path(given)


def test_what_the_published_client_sends() -> None:
    assert upload_fields("site") == {
        "data": "{\"leaf_name\": \"site\", \"metadata\": \"{'key1':'value1', 'key2':'value2'}\"}"
    }
    body = metrics_body(Topology("t", "b"), "leaf", "id-1", "{}", "non-federated")
    assert json.loads(body) == {
        "mode": "non-federated", "aggregation_id": "id-1", "leaf_id": "leaf", "branch_id": "b",
        "tree_id": "t", "data": "{}",
    }  # fmt: skip
    with pytest.raises(ValueError, match="none of test, train, non-federated"):
        metrics_body(Topology("t", "b"), "leaf", "id-1", "{}", "tes")
