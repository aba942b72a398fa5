"""Keeps secrets out of what the service says, and out of what urllib3 logs.

urllib3 logs the target of every request at DEBUG, and what it can't parse of a reply at WARNING. A
signed URL is as good as a password until it expires, and a reply may repeat what was sent. So
urllib3 logs nothing of our exchanges; the logger `bktransport` says what can be said.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

from bktransport.muting import Muting
from bktransport.text import quoted

__all__ = ["Redactor", "muted_urllib3"]

# Whole URLs, and targets that have a query: what is signed is signed there.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S+|\S*[?&][^\s=&]+=\S*")
_SHORTEST = 4
_LOGGERS = ("connection", "connectionpool", "poolmanager", "response", "util.retry")

muted_urllib3 = Muting(*(f"urllib3.{name}" for name in _LOGGERS)).on_this_thread
"""A context manager: while its block runs, urllib3 logs nothing of this thread."""


class Redactor:
    """Replaces secrets, and every URL, in what a stranger wrote.

    Args:
        logins: pairs of user and password, which Basic authentication sends as one.
    """

    __slots__ = ("_secrets",)

    def __init__(self, *logins: tuple[str, str]) -> None:
        # Replacing a secret of a letter or two would only garble texts.
        forms = (_forms(user, secret) for user, secret in logins if len(secret) >= _SHORTEST)
        self._secrets = sorted({form for some in forms for form in some}, key=len, reverse=True)

    def __repr__(self) -> str:
        return "<Redactor>"

    def shown(self, text: str) -> str:
        """The text, quoted and cut, without secrets and URLs."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return quoted(_URL.sub("(URL)", text))


def _forms(user: str, secret: str) -> Iterator[str]:
    """A secret as it may be written."""
    yield from (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    for text in (secret, f"{user}:{secret}"):
        coded = base64.b64encode(text.encode()).decode()
        yield from (coded, coded.rstrip("="), coded.translate({43: "-", 47: "_"}))
