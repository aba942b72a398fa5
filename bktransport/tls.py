"""TLS for the broker, by what the caller gives."""

from __future__ import annotations

import os
import ssl

__all__ = ["broker_context"]


def broker_context(given: bool | str | os.PathLike[str] | ssl.SSLContext) -> ssl.SSLContext | None:
    """None for plain AMQP; True takes the system's CAs, a path the private CA in that file.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no certificate.
        TypeError: none of these.
    """
    if isinstance(given, ssl.SSLContext):
        return given
    if isinstance(given, bool):
        return ssl.create_default_context() if given else None
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"broker_tls is a bool, path or SSLContext, not {type(given).__name__}")
    try:
        return ssl.create_default_context(cafile=os.fspath(given))
    except ssl.SSLError:
        raise ValueError(f"broker_tls: no CA certificate in {os.fspath(given)!a}") from None
