"""Secrets in what strangers write, and urllib3's log."""

from __future__ import annotations

import base64
import logging
import threading

import pytest
import requests  # noqa: F401 - so that urllib3 has all its loggers

from bktransport.redaction import Redactor, muted_urllib3
from bktransport.text import origin, quoted

_SECRET = 'a "s3cret"/+~\N{SNOWMAN}'  # noqa: S105 - to be looked for


@pytest.mark.parametrize(
    "text",
    [
        _SECRET,
        f"before {_SECRET} after",
        "Basic " + base64.b64encode(f"leaf:{_SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"leaf:{_SECRET}".encode()).decode().rstrip("="),
        "a%20%22s3cret%22/%2B~%E2%98%83",
        "a%20%22s3cret%22%2F%2B~%E2%98%83",
        r"a \"s3cret\"/+~\u2603",
        f"https://user:{_SECRET}@host/",
        "see https://host/path?sig=s3cret and s3://bucket/s3cret",
        "/path?sig=s3cret",
        "path&sig=s3cret&more",
        "x" * 75 + _SECRET,
    ],
)
def test_no_form_of_a_secret_is_shown(text: str) -> None:
    shown = Redactor(("leaf", _SECRET), ("other", "x")).shown(text)
    assert "s3cret" not in shown
    assert base64.b64encode(b"s3cret").decode()[:6] not in shown
    assert len(shown) <= 80


def test_plain_words_are_shown() -> None:
    redactor = Redactor(("leaf", _SECRET), ("other", "x"))
    assert redactor.shown("the leaf is not known: x") == "'the leaf is not known: x'"
    assert redactor.shown("two\nlines \x1b[31m") == r"'two\nlines \x1b[31m'"
    assert repr(redactor) == "<Redactor>"


def test_urllib3_is_silent_in_this_thread_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = [name for name in logging.root.manager.loggerDict if name.startswith("urllib3.")]
    own = [name for name in names if logging.getLogger(name).filters]
    assert {"urllib3.connectionpool", "urllib3.response", "urllib3.util.retry"} <= set(own)

    def say(what: str) -> None:
        for name in own:
            logging.getLogger(name).error(what)

    with muted_urllib3(), muted_urllib3():
        say("ours")
        other = threading.Thread(target=say, args=["another's"])
        other.start()
        other.join()
    say("later")
    assert "ours" not in caplog.messages
    assert caplog.messages.count("another's") == caplog.messages.count("later") == len(own)


def test_every_logger_of_urllib3_is_known() -> None:
    """One that a new release brings must be looked at."""
    import re
    from importlib.resources import files

    import urllib3

    root = files(urllib3)
    known = {"connection", "connectionpool", "poolmanager", "response", "retry"}
    found = {
        path.name.removesuffix(".py")
        for folder in (root, root / "util")
        for path in folder.iterdir()
        if path.name.endswith(".py") and re.search(r"getLogger\(__name__\)\n", path.read_text())
    }
    assert found <= known | {"__init__"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host:8443/path?sig=x#y", "https://host:8443"),
        ("http://[::1]:80/x", "http://[::1]:80"),
        ("HTTP://HOST", "http://host"),
        ("http://host:x/", "(not a URL)"),
        ("http://[::1/", "(not a URL)"),
        ("", "://?"),
    ],
)
def test_origin(url: str, shown: str) -> None:
    assert origin(url) == shown


def test_quoted_is_one_short_line() -> None:
    assert quoted("a\nb") == r"'a\nb'"
    assert quoted("x" * 500) == "'" + "x" * 75 + "...'"
    assert len(quoted("\x00" * 500)) == 80
    assert quoted("\N{SNOWMAN}\ud800").isascii()
    assert quoted(["'"]).isascii()
