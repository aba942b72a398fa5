"""Who may call: random leaves of one branch, and the account of the performance analyser."""

from __future__ import annotations

import hmac
import secrets
import uuid
from typing import Any, NamedTuple

from pydantic import SecretStr

from bktransport.messages import Topology

__all__ = ["Accounts", "Leaf"]


class Leaf(NamedTuple):
    """One leaf; the repr does not show its token."""

    leaf_id: str
    leaf_name: str
    token: SecretStr


class Accounts:
    """The leaves of one branch.

    Attributes:
        topology: the tree and branch, new for each sandbox.
        leaves: in the order of their numbers.
    """

    def __init__(self, leaves: int) -> None:
        self.topology = Topology(str(uuid.uuid4()), str(uuid.uuid4()))
        self.leaves = tuple(
            Leaf(str(uuid.uuid4()), f"leaf-{number}", SecretStr(secrets.token_urlsafe(32)))
            for number in range(1, leaves + 1)
        )
        self._by_id = {leaf.leaf_id: leaf for leaf in self.leaves}
        self._analyser = f"analyser-{secrets.token_hex(4)}"
        self._analyser_password = SecretStr(secrets.token_urlsafe(32))
        # Compared where the leaf is unknown, so that both take the same time.
        self._nobody = Leaf("", "", SecretStr(secrets.token_urlsafe(32)))

    def leaf(self, leaf_id: str, token: str) -> Leaf | None:
        """The leaf with these credentials, or None."""
        leaf = self._by_id.get(leaf_id, self._nobody)
        return leaf if _same(token, leaf.token) and leaf is not self._nobody else None

    def is_analyser(self, name: str, password: str) -> bool:
        """Whether these are the credentials of the performance analyser."""
        named = hmac.compare_digest(_encoded(name), _encoded(self._analyser))
        return _same(password, self._analyser_password) and named

    def knows(self, leaf_id: object) -> bool:
        """Whether there is a leaf of this id."""
        return isinstance(leaf_id, str) and leaf_id in self._by_id

    def credentials(self, url: str, broker_host: str, broker_port: int) -> list[dict[str, Any]]:
        """What each leaf is given, secrets in the clear."""
        return [
            {
                "leaf_name": leaf.leaf_name,
                "leaf_id": leaf.leaf_id,
                "leaf_session_token": leaf.token.get_secret_value(),
                "performance_analyser_username": self._analyser,
                "performance_analyser_password": self._analyser_password.get_secret_value(),
                "response_host": broker_host,
                "port": broker_port,
                "host": url,
            }
            for leaf in self.leaves
        ]


def _same(given: str, secret: SecretStr) -> bool:
    return hmac.compare_digest(_encoded(given), _encoded(secret.get_secret_value()))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
