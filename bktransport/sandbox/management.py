"""RabbitMQ's management HTTP API, as far as the sandbox needs it.

Each answer is asked of RabbitMQ's processes, never of its statistics, which lag by seconds:

    depth         GET /api/queues/VHOST?disable_stats=true&enable_queue_totals=true has every queue
                  of the virtual host count its messages (`rabbit_amqqueue:collect_info_all`)
    connections   GET and DELETE /api/connections/username/USER use the table of tracked
                  connections, which they enter within milliseconds, in the order they opened

Source: rabbit_mgmt_wm_queues.erl, rabbit_mgmt_wm_connection_user_name.erl of RabbitMQ 3.10.8. An
exception of requests holds the request and so the password: none is chained to ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import requests

from bktransport.errors import BrokerError
from bktransport.text import origin, quoted

__all__ = ["Management"]

_TIMEOUT = (5.0, 30.0)  # seconds: to connect, and between two bytes of the reply


class Management:
    """Calls to the first of some addresses at which the API answers."""

    def __init__(
        self, urls: Sequence[str], user: str, password: str, cafile: str | None = None
    ) -> None:
        """Finds the API and checks that the user administers it.

        Args:
            urls: such as `http://127.0.0.1:15672`, tried in this order.
            user: the administrator's name.
            password: of that user.
            cafile: certificate of a private authority, in PEM, for https.

        Raises:
            BrokerError: no API there, a wrong password, or a user who is no administrator.
        """
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, and no password of a .netrc
        self._session.auth = (user, password)
        self._session.verify = cafile or True
        self._user = user
        try:
            self._url = self._find([url.rstrip("/") for url in urls])
        except BaseException:
            self._session.close()
            raise

    def _find(self, urls: list[str]) -> str:
        tried = []
        for url in urls:
            response = self._send("GET", f"{url}/api/whoami")
            if isinstance(response, str):
                tried.append(f"{origin(url)} ({response})")
                continue
            tried.append(f"{origin(url)} ({response.status_code})")
            if response.status_code == 401:
                raise BrokerError(
                    f"RabbitMQ at {origin(url)} refused {quoted(self._user)}: check the name and "
                    f"the password, and that `rabbitmqctl set_user_tags` made it an administrator"
                )
            answer = _json(response)
            if response.status_code == 200 and isinstance(answer, dict) and "tags" in answer:
                if "administrator" not in answer["tags"]:  # a list, and a text before 3.9
                    raise BrokerError(
                        f"RabbitMQ's user {quoted(self._user)} may not make virtual hosts: run "
                        f"`rabbitmqctl set_user_tags USER administrator`"
                    )
                return url
        raise BrokerError(
            f"no RabbitMQ management API at {' or '.join(tried)}: run `rabbitmq-plugins enable "
            f"rabbitmq_management`, or give its address as the management URL"
        )

    def _send(self, method: str, url: str, body: Any = None) -> requests.Response | str:
        """The reply, or the kind of error alone: the error itself holds the password."""
        try:
            return self._session.request(
                method, url, json=body, timeout=_TIMEOUT, allow_redirects=False
            )
        except requests.RequestException as exc:
            return type(exc).__name__

    def call(
        self,
        method: str,
        *path: str,
        query: str = "",
        body: Any = None,
        expected: Sequence[int] = (200, 201, 204),
    ) -> requests.Response:
        """One call.

        Args:
            method: of HTTP.
            path: the parts below /api, quoted here.
            query: of the URL, with its "?".
            body: sent as JSON.
            expected: status codes that are returned; others raise.

        Raises:
            BrokerError: no reply, or another status.
        """
        name = "/".join(quote(part, safe="") for part in path)
        response = self._send(method, f"{self._url}/api/{name}{query}", body)
        what = f"{method} {quoted(name)[1:-1]} at {origin(self._url)}"
        if isinstance(response, str):
            raise BrokerError(f"no reply to {what} ({response}): is RabbitMQ running?")
        if response.status_code not in expected:
            raise BrokerError(
                f"RabbitMQ refused {what}: {response.status_code} {quoted(_reason(response))}"
            )
        return response

    def exists(self, *path: str) -> bool:
        return self.call("GET", *path, expected=(200, 404)).status_code == 200

    def depth(self, virtual_host: str, queue: str) -> tuple[int, int]:
        """Messages ready and unacknowledged, as the queue itself counts them at this moment."""
        query = "?disable_stats=true&enable_queue_totals=true"
        rows = _json(self.call("GET", "queues", virtual_host, query=query))
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, dict) and row.get("name") == queue:
                ready, unacknowledged = (
                    row.get("messages_ready"),
                    row.get("messages_unacknowledged"),
                )
                if isinstance(ready, int) and isinstance(unacknowledged, int):
                    return ready, unacknowledged
                raise BrokerError(
                    f"RabbitMQ does not count the messages of {quoted(queue)}: 3.10 or later "
                    f"does, while the node that holds the queue is up"
                )
        raise BrokerError(f"RabbitMQ has no queue {quoted(queue)} in {quoted(virtual_host)}")

    def connections(self, user: str) -> int:
        """How many connections of a user RabbitMQ tracks."""
        found = _json(self.call("GET", "connections", "username", user))
        return len(found) if isinstance(found, list) else 0

    def close_connections(self, user: str) -> int:
        """Closes by force every connection of a user that is tracked; how many there were."""
        count = self.connections(user)
        if count:
            self.call("DELETE", "connections", "username", user)
        return count

    def close(self) -> None:
        self._session.close()


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _reason(response: requests.Response) -> str:
    answer = _json(response)
    return str(answer.get("reason", "")) if isinstance(answer, dict) else ""
