"""Keeps secrets out of texts, and signed URLs out of urllib3's log.

urllib3 logs the target of every request at DEBUG; that of a signed URL is as good as a password
until it expires. While we fetch one, its parts are replaced in what urllib3 logs.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests

from bktransport.text import quoted

__all__ = ["Redactor", "hidden_target"]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S+")
_SHORTEST = 4


class Redactor:
    """Replaces secrets, and every URL, in what a stranger wrote."""

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str | None) -> None:
        # Replacing a secret of a letter or two would only garble texts.
        self._secrets = [secret for secret in secrets if secret and len(secret) >= _SHORTEST]

    def __repr__(self) -> str:
        return "<Redactor>"

    def shown(self, text: str) -> str:
        """The text, quoted and cut, without secrets and URLs."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return quoted(_URL.sub("(URL)", text))


class _HideTargets(logging.Filter):
    """Replaces the targets that are being fetched in records that would show them."""

    def __init__(self) -> None:
        super().__init__()
        self._targets: list[str] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hiding(self, target: str) -> Iterator[None]:
        with self._lock:
            self._targets.append(target)
        try:
            yield
        finally:
            with self._lock:
                self._targets.remove(target)

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            targets = list(self._targets)
        if targets:
            text = record.getMessage()
            for target in targets:
                text = text.replace(target, "/***")
            record.msg, record.args = text, ()
        return True


_HIDE = _HideTargets()
logging.getLogger("urllib3.connectionpool").addFilter(_HIDE)


@contextlib.contextmanager
def hidden_target(url: str) -> Iterator[None]:
    """While the block runs, urllib3 does not log the path and query of this URL."""
    try:
        sent = requests.Request("GET", url).prepare().url or url  # requests quotes anew
    except ValueError:
        sent = url  # it will not be sent either
    parts = urlsplit(sent)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    with _HIDE.hiding(target if len(target) > 1 else url):
        yield
