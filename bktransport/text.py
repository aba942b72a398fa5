"""What a stranger wrote, made fit for a message: one line, short, no signed URL."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["origin", "quoted"]

_LONGEST = 80


def quoted(text: object) -> str:
    """The repr in ASCII, cut at 80 characters."""
    shown = ascii(text if isinstance(text, str) else str(text))
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 4] + "..." + shown[0]


def origin(url: str) -> str:
    """Scheme, host and port of a URL alone: paths and queries of signed URLs are secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname or "?"
    except ValueError:
        return "(not a URL)"
    host = f"[{host}]" if ":" in host else host
    return quoted(f"{parts.scheme}://{host}{port}")[1:-1]
