"""Download URLs that expire: an id, a time and an HMAC-SHA256 over both."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlencode

__all__ = ["FILES_PATH", "Signer"]

FILES_PATH = "/sandbox/files/"


class Signer:
    """Signs paths with a random key of its own, so no other sandbox's URLs are good here.

    Args:
        lifetime: seconds that a URL is good for.
    """

    def __init__(self, lifetime: float) -> None:
        self._key = secrets.token_bytes(32)
        self._lifetime = lifetime

    def path(self, file_id: str) -> str:
        """Path and query of a URL for this file; a secret."""
        expires = str(time.time_ns() // 1_000_000 + int(self._lifetime * 1000))
        query = urlencode({"expires": expires, "signature": self._signature(file_id, expires)})
        return f"{FILES_PATH}{file_id}?{query}"

    def trouble(self, file_id: str, expires: str, signature: str) -> str | None:
        """What is wrong with a URL, or None; the time is believed only where it is signed."""
        wanted = self._signature(file_id, expires)
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace")):
            return "the signature does not fit the URL"
        if time.time_ns() // 1_000_000 > int(expires):
            return "the URL is no longer good: its time is over"
        return None

    def _signature(self, file_id: str, expires: str) -> str:
        text = f"{file_id}\n{expires}".encode("utf-8", "replace")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()
