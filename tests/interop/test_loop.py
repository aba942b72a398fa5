"""The whole loop of two leaves, on the embedded broker and a real RabbitMQ, plain and over TLS."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import trustme

from bkformat import load_file, write_update
from bktransport import Client
from bktransport.sandbox import Sandbox
from bktransport.sandbox.broker import EmbeddedBroker

WAIT = 60.0  # seconds; generous: what is waited for comes soon, or never
SHAPES = [(3, 4), (4,), ()]


class Setting:
    """A sandbox, and what its leaves must be told to reach it."""

    def __init__(self, sandbox: Sandbox, port: int | None = None, **options: Any) -> None:
        self.sandbox = sandbox
        self._port = port
        self._options = options

    @contextlib.contextmanager
    def leaves(self, folder: Path) -> Iterator[list[Client]]:
        with contextlib.ExitStack() as stack:
            clients = []
            for index, given in enumerate(self.sandbox.credentials):
                credentials = {**given, "port": self._port or given["port"]}
                place = folder / str(index)
                client = Client(
                    credentials, state=place / "state", output=place / "out", **self._options
                )
                clients.append(stack.enter_context(client))
            yield clients


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["embedded", "embedded-tls", "rabbitmq", "rabbitmq-tls"])
def setting(
    request: pytest.FixtureRequest, tmp_path: Path, authority: trustme.CA
) -> Iterator[Setting]:
    kind = request.param
    if kind == "embedded":
        with Sandbox(leaves=2, quorum=2) as sandbox:
            yield Setting(sandbox)
    elif kind == "embedded-tls":
        cafile = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(cafile)
        context = _server_context(authority)
        broker = EmbeddedBroker(ssl_context=context)
        with Sandbox(leaves=2, quorum=2, broker=broker, ssl_context=context) as sandbox:
            yield Setting(sandbox, verify=cafile, broker_tls=cafile)
    else:
        node = request.getfixturevalue("rabbit")
        with Sandbox(leaves=2, quorum=2, amqp_url=node.amqp_url) as sandbox:
            if kind == "rabbitmq":
                yield Setting(sandbox)
            else:
                port = urlsplit(node.amqps_url).port
                yield Setting(sandbox, port, broker_tls=node.cafile)


def _train(folder: Path, index: int, start: list[np.ndarray[Any, Any]]) -> Path:
    """Each leaf moves each value by its own step."""
    path = folder / f"update-{index}.npy"
    write_update(
        path, 10 * (index + 1), [np.asarray(array + (index + 1)) for array in start]
    ).close()
    return path


def test_three_rounds(setting: Setting, tmp_path: Path) -> None:
    model = [np.zeros(shape, "float32") for shape in SHAPES]
    with setting.leaves(tmp_path) as clients:
        for client in clients:
            assert client.authenticate() is True
        for round_number in range(1, 4):
            for index, client in enumerate(clients):
                client.file_upload(_train(tmp_path, index, model))
            ids = [client.queue.get(timeout=WAIT) for client in clients]
            assert ids[0] == ids[1]
            paths = [client.file_download(ids[0]) for client in clients]
            assert paths[0].read_bytes() == paths[1].read_bytes()
            model = load_file(paths[0], kind="aggregate", mmap=False).parameters
            # 10 samples moved it by 1, 20 by 2: 50/30 a round
            for array in model:
                assert array == pytest.approx(round_number * 5 / 3, rel=1e-6)
            for client in clients:
                metrics = json.dumps({"round": round_number})
                assert client.send_performance_metrics(ids[0], metrics, "test") is True
        state = setting.sandbox.state()
        assert [row["status"] for row in state["rounds"]] == ["done", "done", "done", "open"]
        assert len(state["metrics"]) == 6
        assert all(client.queue.empty() for client in clients)
        assert [record.state for client in clients for record in client.uploads()] == ["stored"] * 6


def test_the_run_reaches_every_leaf(setting: Setting, tmp_path: Path) -> None:
    with setting.leaves(tmp_path) as clients:
        for client in clients:
            client.authenticate()
            assert client.run_status == "pause"
        setting.sandbox.set_run("start")
        assert {client.wait_for_run(timeout=WAIT) for client in clients} == {"start"}
        setting.sandbox.set_run("stop")
        assert {client.wait_for_run("stop", timeout=WAIT) for client in clients} == {"stop"}


def test_what_was_told_while_away_is_offered_afterwards(setting: Setting, tmp_path: Path) -> None:
    start = [np.zeros(3, "float32")]
    with setting.leaves(tmp_path) as clients:
        for index, client in enumerate(clients):
            client.authenticate()
            client.close()
            client = Client(  # uploads alone, beside which another may receive
                setting.sandbox.credentials[index],
                state=tmp_path / str(index) / "state",
                notifications=False,
                **{k: v for k, v in setting._options.items() if k == "verify"},
            )
            with client:
                client.authenticate()
                client.file_upload(_train(tmp_path, index, start))
    with setting.leaves(tmp_path) as clients:
        for client in clients:
            client.authenticate()
            taken = client.queue.get(timeout=WAIT)
    with setting.leaves(tmp_path) as clients:  # not marked done, so offered again, at once
        for client in clients:
            assert client.queue.get(block=False) == taken
            client.queue.task_done()
    with setting.leaves(tmp_path) as clients:
        assert all(client.queue.empty() for client in clients)


def test_another_dialer_of_the_sandbox_needs_credentials(setting: Setting) -> None:
    url = setting.sandbox.url + "/v1/leaf/authenticate"
    verify = setting._options.get("verify", True)
    reply = requests.get(url, timeout=WAIT, verify=str(verify) if verify is not True else True)
    assert reply.status_code == 401
