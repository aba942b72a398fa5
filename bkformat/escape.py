"""What a stranger wrote, made safe to show: file names, names from pickles and schemas."""

from __future__ import annotations

import unicodedata

__all__ = ["as_utf8", "github_property", "github_text", "printable"]

# Control, format (bidirectional overrides among them), surrogate, private, unassigned, separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """Text without control characters, line ends and lone surrogates: they become escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escaped(char) if unicodedata.category(char) in _UNSAFE else char for char in text
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def as_utf8(text: str) -> str:
    """A file name that JSON may hold: bytes of it that are not UTF-8 become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def github_text(text: str) -> str:
    """The message of a workflow command."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def github_property(text: str) -> str:
    """A property of a workflow command."""
    return github_text(text).replace(":", "%3A").replace(",", "%2C")
