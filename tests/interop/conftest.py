"""One real RabbitMQ for all tests of a run, started by the first that asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .rabbitmq import RabbitNode, find


@pytest.fixture(scope="session")
def rabbit_installed() -> str:
    """Where the server is; without it a test fails in CI, and is skipped loudly elsewhere."""
    server, reason = find()
    if server is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must prove the transport on a real RabbitMQ: {reason}", pytrace=False)
        pytest.skip(f"NOT PROVEN on a real RabbitMQ: {reason}")
    return reason


@pytest.fixture(scope="session")
def rabbit(rabbit_installed: str) -> Iterator[RabbitNode]:
    """A node that a test leaves as it found it; those who kill or reconfigure it make their own."""
    with RabbitNode() as node:
        yield node
