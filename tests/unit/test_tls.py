"""What the caller gives for the broker's TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from bktransport.tls import broker_context


def test_every_kind(tmp_path: Path) -> None:
    assert broker_context(False) is None
    context = broker_context(True)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert broker_context(context) is context
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    for given in (path, str(path)):
        private = broker_context(given)
        assert private is not None
        assert len(private.get_ca_certs()) == 1
        assert private.check_hostname


def test_what_is_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(ValueError, match=r"no CA certificate in .*empty\.pem"):
        broker_context(empty)
    with pytest.raises(FileNotFoundError):
        broker_context(tmp_path / "none.pem")
    other: Any
    for other in (None, 1, b"x"):
        with pytest.raises(TypeError, match="bool, path or SSLContext"):
            broker_context(other)
