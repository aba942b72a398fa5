"""Calls of a leaf, as a client would make them, by requests and pika."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pika
import requests

from bkformat import build_update
from bktransport.sandbox import Sandbox

TIMEOUT = 20
"""Seconds; generous, since only a failure waits so long."""


def auth(sandbox: Sandbox, leaf: int = 0) -> tuple[str, str]:
    given = sandbox.credentials[leaf]
    return given["leaf_id"], given["leaf_session_token"]


def analyser(sandbox: Sandbox) -> tuple[str, str]:
    given = sandbox.credentials[0]
    return given["performance_analyser_username"], given["performance_analyser_password"]


def an_update(value: float = 1, num_samples: int = 7, *, size: int = 3, dtype: str = "f4") -> bytes:
    return build_update(num_samples, [np.full(size, value, dtype)])


def get(sandbox: Sandbox, path: str, **options: Any) -> requests.Response:
    return requests.get(sandbox.url + path, timeout=TIMEOUT, **options)


def post(sandbox: Sandbox, path: str, **options: Any) -> requests.Response:
    return requests.post(sandbox.url + path, timeout=TIMEOUT, **options)


def upload(sandbox: Sandbox, data: bytes | None = None, leaf: int = 0) -> requests.Response:
    """An upload with the form that 2.4.2 sends."""
    fields = {"data": json.dumps({"leaf_name": f"leaf-{leaf + 1}", "metadata": "{}"})}
    files = {"file": ("update.npy", an_update() if data is None else data)}
    return post(sandbox, "/v1/file/upload", auth=auth(sandbox, leaf), data=fields, files=files)


def download_url(sandbox: Sandbox, file_id: str, leaf: int = 0) -> str:
    answer = get(sandbox, f"/v1/file/download/{file_id}", auth=auth(sandbox, leaf))
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["data"]["download_url"]
    return url


def error(answer: requests.Response, status_code: int) -> str:
    """The text of a refusal, which must be JSON and hold nothing else."""
    assert answer.status_code == status_code, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    assert "Traceback" not in answer.text
    return str(said["error"])


def wait_until(happened: Callable[[], Any]) -> Any:
    until = time.monotonic() + TIMEOUT
    while not (found := happened()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
    return found


def ended_round(sandbox: Sandbox, number: int = 1) -> dict[str, Any]:
    """The round, once it is over."""

    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = sandbox.state()["rounds"][number - 1]
        return found if found["status"] in ("done", "failed") else None

    wait_until(lambda: len(sandbox.state()["rounds"]) > number)
    return wait_until(over)  # type: ignore[no-any-return]


def connect(sandbox: Sandbox, leaf: int = 0) -> pika.BlockingConnection:
    given = sandbox.credentials[leaf]
    user = pika.PlainCredentials(given["leaf_id"], given["leaf_session_token"])
    host, port, tree_id = given["response_host"], given["port"], sandbox.topology.tree_id
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, tree_id, user))


def messages(sandbox: Sandbox, count: int, leaf: int = 0) -> list[bytes]:
    """The next so many messages of a leaf's queue, acknowledged."""
    found: list[bytes] = []
    with closing(connect(sandbox, leaf)) as connection:
        channel = connection.channel()
        for method, _, body in channel.consume(
            sandbox.credentials[leaf]["leaf_id"], inactivity_timeout=TIMEOUT
        ):
            assert method is not None, f"{len(found)} of {count} messages came"
            channel.basic_ack(method.delivery_tag)
            found.append(body)
            if len(found) == count:
                break
    return found


def raw(sandbox: Sandbox) -> socket.socket:
    """A plain connection to the HTTP side."""
    parts = urlsplit(sandbox.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)


def all_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def multipart(data: bytes, name: str = "file", boundary: str = "xyz") -> Iterator[bytes]:
    """The pieces of a form: before the file, the file, after it."""
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="data"\r\n\r\n{{}}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.npy"\r\n\r\n'
    ).encode()
    yield data
    yield f"\r\n--{boundary}--\r\n".encode()
