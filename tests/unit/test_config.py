"""Credentials from a dict, a file and the environment."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from bktransport.config import (
    Credentials,
    as_credentials,
    checked_host,
    credentials_from,
    load_credentials,
)

from .transport import CREDENTIALS, TOKEN


def test_the_dict_of_the_service() -> None:
    given = {key: value for key, value in CREDENTIALS.items() if key != "port"}
    credentials = as_credentials({**given, "unknown": 7})
    assert credentials.leaf_id == "leaf-1"
    assert credentials.port == 5672
    assert credentials.leaf_session_token.get_secret_value() == TOKEN
    assert as_credentials(credentials) is credentials
    assert as_credentials({**given, "port": "5673"}).port == 5673


@pytest.mark.parametrize("missing", ["leaf_name", "leaf_id", "leaf_session_token", "response_host"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing}: missing"):
        as_credentials({key: value for key, value in CREDENTIALS.items() if key != missing})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("leaf_id", "a:b"), ("leaf_id", "../x"), ("leaf_id", ".x"), ("leaf_id", ""),
        ("leaf_id", "a\n"), ("leaf_id", "x" * 129), ("leaf_id", 7), ("leaf_name", "a\nb"),
        ("leaf_session_token", ""), ("leaf_session_token", "a\r\nb"),
        ("leaf_session_token", None), ("performance_analyser_password", "\x00"),
        ("response_host", "a/b"), ("response_host", "a b"), ("response_host", "u@h"),
        ("port", 0), ("port", 65536), ("port", "x"), ("port", 1.5),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"credentials: {key}: ") as caught:
        as_credentials({**CREDENTIALS, key: value})
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("given", [None, "x", [], 7])
def test_no_mapping(given: Any) -> None:
    with pytest.raises(TypeError, match="credentials must be a dict"):
        as_credentials(given)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "leaf.json"
    path.write_text(json.dumps({**CREDENTIALS, "host": "http://api"}))
    assert load_credentials(path).host == "http://api"
    for content in (b"", b"[]", b"\xff", b"{" * 60000, b" " * 70000, b"{}", b'{"leaf_id": '):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"leaf\.json") as caught:
            load_credentials(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        load_credentials(tmp_path / "none")


def test_the_environment(tmp_path: Path) -> None:
    named = {f"BKTRANSPORT_{key.upper()}": str(value) for key, value in CREDENTIALS.items()}
    assert credentials_from(named) == as_credentials(CREDENTIALS)
    path = tmp_path / "leaf.json"
    path.write_text(json.dumps(CREDENTIALS))
    both = {"BKTRANSPORT_CREDENTIALS": str(path), "BKTRANSPORT_LEAF_SESSION_TOKEN": "other"}
    credentials = credentials_from(both)
    assert credentials.leaf_session_token.get_secret_value() == "other"
    assert credentials.leaf_id == "leaf-1"
    with pytest.raises(ValueError, match="or BKTRANSPORT_CREDENTIALS"):
        credentials_from({})
    with pytest.raises(ValueError, match="leaf_name: missing"):
        credentials_from({"BKTRANSPORT_LEAF_ID": "leaf-1"})


def test_credentials_are_frozen() -> None:
    credentials: Any = as_credentials(CREDENTIALS)
    with pytest.raises(ValueError, match="frozen"):
        credentials.port = 1
    assert isinstance(credentials, Credentials)


@pytest.mark.parametrize(
    ("url", "good"),
    [("http://api", "http://api"), ("https://api:8443/base/", "https://api:8443/base"),
     ("http://[::1]:80", "http://[::1]:80"), ("HTTPS://Api", "HTTPS://Api")],
)  # fmt: skip
def test_hosts(url: str, good: str) -> None:
    assert checked_host(url) == good


@pytest.mark.parametrize(
    "url",
    ["", "api", "ftp://api", "http://", "http:///x", "http://u@api", "http://u:p@api",
     "http://api?x", "http://api?", "http://api#", "http://a b", "http://api\n", "http://api:x",
     "http://api:99999", "http://[::1", "http://a\\b", "http://\N{SNOWMAN}", "file:///x", None, 7,
     "http://a\x00"],
)  # fmt: skip
def test_what_is_no_host(url: Any) -> None:
    with pytest.raises(ValueError, match=r"^host: ") as caught:
        checked_host(url)
    assert "\n" not in str(caught.value)


def test_a_secret_is_in_no_pickle_and_may_be_copied() -> None:
    token = as_credentials(CREDENTIALS).leaf_session_token
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(token, protocol)
    assert copy.deepcopy(token) is copy.copy(token) is token


def test_an_empty_secret_is_none() -> None:
    with pytest.raises(ValueError, match=r"^credentials: leaf_session_token: empty$"):
        as_credentials({**CREDENTIALS, "leaf_session_token": ""})


def test_credentials_that_others_can_read_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "leaf.json"
    path.write_text(json.dumps(CREDENTIALS))
    for mode, told in ((0o600, 0), (0o640, 1)):
        path.chmod(mode)
        caplog.clear()
        with caplog.at_level("INFO", "bktransport"):
            load_credentials(path)
        assert caplog.text.count("other users can read these credentials") == told
