"""`RabbitBroker` sets up, serves and leaves a real RabbitMQ as it must."""

from __future__ import annotations

import logging
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
import requests

from bktransport.errors import BrokerError
from bktransport.sandbox import rabbitmq
from bktransport.sandbox.rabbitmq import RabbitBroker

from ..proxy import TcpProxy
from .rabbitmq import RabbitNode

_CANARY = "canary-4b8e7c"


@pytest.fixture
def tree() -> str:
    return f"tree-{uuid.uuid4()}"


@pytest.fixture(params=["plain", "tls"])
def broker(request: pytest.FixtureRequest, rabbit: RabbitNode) -> Iterator[RabbitBroker]:
    with _broker(rabbit, tls=request.param == "tls") as broker:
        yield broker


def _broker(node: RabbitNode, *, tls: bool = False) -> RabbitBroker:
    if not tls:
        return RabbitBroker(node.amqp_url)  # finds the management API
    return RabbitBroker(node.amqps_url, management_url=node.management_url, cafile=str(node.cafile))


def _connect(
    broker: RabbitBroker, node: RabbitNode, tree: str, user: str, password: str
) -> pika.BlockingConnection:
    tls = ssl.create_default_context(cafile=str(node.cafile))
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            broker.host,
            broker.port,
            tree,
            pika.PlainCredentials(user, password),
            ssl_options=pika.SSLOptions(tls, broker.host) if broker.port == node.tls_port else None,
        )
    )


@pytest.fixture
def connect(
    broker: RabbitBroker, rabbit: RabbitNode
) -> Iterator[Callable[[str, str, str], pika.BlockingConnection]]:
    made: list[pika.BlockingConnection] = []

    def open_one(tree: str, user: str, password: str) -> pika.BlockingConnection:
        made.append(_connect(broker, rabbit, tree, user, password))
        return made[-1]

    yield open_one
    for connection in made:
        if connection.is_open:
            connection.close()


def _names(node: RabbitNode, what: str) -> set[str]:
    with requests.Session() as session:
        session.trust_env = False
        url = f"{node.management_url}/api/{what}"
        return {row["name"] for row in session.get(url, auth=(node.user, node.password)).json()}


def _refused(channel: Any, call: Callable[[Any], Any]) -> int:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
        call(channel)
    return int(refusal.value.reply_code)


def test_it_is_installed(rabbit_installed: str) -> None:
    """Fails where CI has none; elsewhere the summary of skipped tests says what is not proven."""
    assert os.access(rabbit_installed, os.X_OK)


def test_a_leaf_reads_its_queue(broker: RabbitBroker, connect: Any, tree: str) -> None:
    broker.add_leaf(tree, "leaf.1", "secret-1")
    for number in range(3):
        broker.publish(tree, "leaf.1", b"message %d" % number)
    assert broker.depth(tree, "leaf.1") == (3, 0)
    channel = connect(tree, "leaf.1", "secret-1").channel()
    assert channel.queue_declare("leaf.1", passive=True).method.message_count == 3
    channel.basic_qos(prefetch_count=1)
    seen = []
    for method, properties, body in channel.consume("leaf.1", inactivity_timeout=30):
        assert properties.delivery_mode == 2
        assert broker.depth(tree, "leaf.1") == (2 - len(seen), 1)
        channel.basic_ack(method.delivery_tag)
        seen.append(body)
        if len(seen) == 3:
            break
    channel.cancel()
    assert seen == [b"message 0", b"message 1", b"message 2"]
    assert broker.depth(tree, "leaf.1") == (0, 0)


def test_a_leaf_may_do_nothing_else(broker: RabbitBroker, connect: Any, tree: str) -> None:
    broker.add_leaf(tree, "leaf.1", "secret-1")
    broker.add_leaf(tree, "leafx1", "secret-2")  # what an unescaped pattern would let pass
    broker.add_leaf(f"{tree}-b", "leaf-3", "secret-3")
    connection = connect(tree, "leaf.1", "secret-1")
    refused = [
        _refused(connection.channel(), call)
        for call in (
            lambda channel: channel.basic_get("leafx1"),
            lambda channel: channel.queue_declare("new", durable=True),
            lambda channel: channel.queue_delete("leaf.1"),
            lambda channel: channel.queue_bind("leaf.1", "amq.fanout"),
            lambda channel: (channel.confirm_delivery(), channel.basic_publish("", "leaf.1", b"x")),
        )
    ]
    assert refused == [403] * 5
    assert broker.depth(tree, "leaf.1") == (0, 0)
    for elsewhere, user, password in (
        (f"{tree}-b", "leaf.1", "secret-1"),
        ("/", "leaf.1", "secret-1"),
        (tree, "leaf.1", "secret-2"),
        (tree, "leaf-3", "secret-3"),
    ):
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connect(elsewhere, user, password)


def test_the_depth_never_lags(broker: RabbitBroker, connect: Any, tree: str) -> None:
    broker.add_leaf(tree, "leaf", "secret")
    for number in range(20):
        broker.publish(tree, "leaf", b"x")
        assert broker.depth(tree, "leaf") == (number + 1, 0)
    connection = connect(tree, "leaf", "secret")
    channel = connection.channel()
    for number in range(20):
        assert channel.basic_get("leaf")[0]
        assert broker.depth(tree, "leaf") == (19 - number, number + 1)
    connection.close()
    assert broker.depth(tree, "leaf") == (20, 0)


def test_publishing_needs_a_leaf(broker: RabbitBroker, tree: str) -> None:
    with pytest.raises(BrokerError, match="no leaf"):
        broker.publish(tree, "leaf", b"x")
    broker.add_leaf(tree, "leaf", "secret")
    with pytest.raises(BrokerError, match="UnroutableError"):
        broker.publish(tree, "other", b"x")
    with pytest.raises(BrokerError, match="no queue 'other'"):
        broker.depth(tree, "other")
    broker.publish(tree, "leaf", b"x")
    assert broker.depth(tree, "leaf") == (1, 0)


def test_threads_publish_at_once(broker: RabbitBroker, tree: str) -> None:
    broker.add_leaf(tree, "leaf", "secret")
    threads = [
        threading.Thread(
            target=lambda: [broker.publish(tree, "leaf", b"x" * 200_000) for _ in range(10)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert broker.depth(tree, "leaf") == (40, 0)


def test_connections_are_closed_by_force(broker: RabbitBroker, connect: Any, tree: str) -> None:
    for leaf in ("one", "two"):
        broker.add_leaf(tree, leaf, "secret")
        broker.publish(tree, leaf, b"x")
    assert broker.close_connections() == 0
    connections = [connect(tree, leaf, "secret") for leaf in ("one", "one", "two")]
    connections[0].channel().basic_get("one")
    assert broker.depth(tree, "one") == (0, 1)
    assert broker.close_connections() == 3
    for connection in connections:
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.process_data_events(30)
        assert closed.value.reply_code == 320
    assert broker.depth(tree, "one") == (1, 0)
    broker.publish(tree, "one", b"the publisher's own connection is none of them")
    assert broker.depth(tree, "one") == (2, 0)


def test_new_connections_are_closed_too(broker: RabbitBroker, connect: Any, tree: str) -> None:
    broker.add_leaf(tree, "leaf", "secret")
    for _ in range(30):
        connection = connect(tree, "leaf", "secret")
        connection.channel()
        assert broker.close_connections() == 1
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
            connection.process_data_events(30)


def test_publishing_reconnects(broker: RabbitBroker, rabbit: RabbitNode, tree: str) -> None:
    broker.add_leaf(tree, "leaf", "secret")
    for number in range(3):
        broker.publish(tree, "leaf", b"x")
        assert broker.depth(tree, "leaf") == (number + 1, 0)
        deadline = time.monotonic() + 30
        while not broker._management.close_connections(rabbit.user):  # tracked a little later
            assert time.monotonic() < deadline


def test_nothing_is_left_behind(rabbit: RabbitNode, tree: str) -> None:
    users, hosts = _names(rabbit, "users"), _names(rabbit, "vhosts")
    with _broker(rabbit) as broker:
        broker.add_leaf(tree, "leaf-1", "secret")
        broker.add_leaf(tree, "leaf/2 %", "secret")
        broker.add_leaf(f"{tree}/b", "leaf-3", "secret")
        broker.publish(tree, "leaf/2 %", b"x")
        assert _names(rabbit, "users") - users == {"leaf-1", "leaf/2 %", "leaf-3"}
        assert _names(rabbit, "vhosts") - hosts == {tree, f"{tree}/b"}
    broker.close()  # again: nothing happens
    assert _names(rabbit, "users") == users
    assert _names(rabbit, "vhosts") == hosts


def test_what_was_there_is_not_touched(rabbit: RabbitNode, tree: str) -> None:
    with _broker(rabbit) as broker, _broker(rabbit) as second:
        broker.add_leaf(tree, "leaf", "secret")
        with pytest.raises(BrokerError, match="virtual host"):
            second.add_leaf(tree, "other", "secret")
        with pytest.raises(BrokerError, match="virtual host '/'"):
            second.add_leaf("/", "other", "secret")
        with pytest.raises(BrokerError, match="a user 'leaf' already"):
            second.add_leaf(f"{tree}-b", "leaf", "stolen")
        with pytest.raises(BrokerError, match="a user"):
            second.add_leaf(f"{tree}-b", rabbit.user, "stolen")
        second.close()
        broker.publish(tree, "leaf", b"x")
        _connect(broker, rabbit, tree, "leaf", "secret").close()
        assert rabbit.user in _names(rabbit, "users")


def test_messages_outlive_a_killed_node(rabbit_installed: str, tree: str) -> None:
    with RabbitNode() as node, _broker(node) as broker:
        broker.add_leaf(tree, "leaf", "secret")
        for number in range(50):
            broker.publish(tree, "leaf", b"%d" % number)
        before = node.pid
        node.kill()
        with pytest.raises(BrokerError, match="did not take a message"):
            broker.publish(tree, "leaf", b"lost, and said so")
        with pytest.raises(BrokerError, match="is RabbitMQ running"):
            broker.depth(tree, "leaf")
        node.start()
        assert node.pid != before
        broker.publish(tree, "leaf", b"50")
        connection = _connect(broker, node, tree, "leaf", "secret")
        channel = connection.channel()
        bodies = [channel.basic_get("leaf", auto_ack=True)[2] for _ in range(51)]
        assert bodies == [b"%d" % number for number in range(51)]
        connection.close()
        node.stop()
        with pytest.raises(BrokerError, match="keeps what the sandbox made"):
            broker.close()


def test_the_consumer_timeout_closes_a_channel(rabbit_installed: str, tree: str) -> None:
    with RabbitNode(consumer_timeout=1) as node, _broker(node) as broker:
        broker.add_leaf(tree, "leaf", "secret")
        broker.publish(tree, "leaf", b"x")
        connection = _connect(broker, node, tree, "leaf", "secret")
        channel = connection.channel()
        channel.basic_consume("leaf", lambda *_: None)
        deadline = time.monotonic() + 60
        while channel.is_open and time.monotonic() < deadline:
            connection.process_data_events(1)
        assert channel.is_closed
        assert connection.is_open
        connection.close()
        assert broker.depth(tree, "leaf") == (1, 0)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="NOT PROVEN: no setpriv, of Linux")
def test_a_node_does_not_outlive_the_tests(rabbit_installed: str) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from rabbitmq import RabbitNode\n"
        "node = RabbitNode(); print(node.folder, node.pid, node._epmd.pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        folder, *pids = tests.stdout.readline().split()
        assert all(Path("/proc", pid).exists() for pid in pids)
        tests.kill()
    deadline = time.monotonic() + 60
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shutil.rmtree(folder)


def _hides_the_password(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert _CANARY not in str(error) + repr(error) + caplog.text


def test_a_wrong_password(rabbit: RabbitNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = rabbit.amqp_url.replace(rabbit.password, _CANARY)
    with pytest.raises(BrokerError, match="refused 'sandbox-admin': check the name") as failure:
        RabbitBroker(url)
    _hides_the_password(failure.value, caplog)


def test_a_user_who_is_no_administrator(rabbit: RabbitNode, tree: str) -> None:
    with _broker(rabbit) as broker:
        broker.add_leaf(tree, "leaf", "secret")
        url = f"amqp://leaf:secret@127.0.0.1:{rabbit.port}"
        with pytest.raises(BrokerError, match="rabbitmqctl set_user_tags"):
            RabbitBroker(url)
        body = {"password": "secret", "tags": "management"}
        broker._management.call("PUT", "users", "leaf", body=body)
        with pytest.raises(BrokerError, match="may not make virtual hosts"):
            RabbitBroker(url)


def test_no_management_api(rabbit: RabbitNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"amqp://admin:{_CANARY}@127.0.0.1:{rabbit.port}"
    advice = "rabbitmq-plugins enable rabbitmq_management"
    for port in (rabbit.port, rabbit.tls_port):  # they listen, and do not speak HTTP
        with pytest.raises(BrokerError, match=advice) as failure:
            RabbitBroker(url, management_url=f"http://127.0.0.1:{port}")
        _hides_the_password(failure.value, caplog)
    with pytest.raises(BrokerError, match=advice) as failure:
        RabbitBroker(f"amqp://admin:{_CANARY}@127.0.0.1:{1}")
    _hides_the_password(failure.value, caplog)


def test_a_node_without_the_plugin(rabbit_installed: str) -> None:
    with (
        RabbitNode(management=False) as node,
        pytest.raises(BrokerError, match="rabbitmq-plugins enable rabbitmq_management"),
    ):
        RabbitBroker(node.amqp_url, management_url=node.management_url)


def test_no_log_holds_a_password(
    broker: RabbitBroker, rabbit: RabbitNode, tree: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker.add_leaf(tree, "leaf", _CANARY)
    broker.publish(tree, "leaf", b"x")
    assert caplog.records
    assert rabbit.password not in caplog.text + repr(broker) + repr(vars(broker))
    assert _CANARY not in caplog.text + repr(vars(broker))


def test_tls_is_verified(rabbit: RabbitNode, tree: str) -> None:
    with RabbitBroker(rabbit.amqps_url, management_url=rabbit.management_url) as broker:
        broker.add_leaf(tree, "leaf", "secret")
        with pytest.raises(BrokerError, match="did not take a message"):
            broker.publish(tree, "leaf", b"x")


def test_a_cafile_that_is_not_there(rabbit: RabbitNode, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        RabbitBroker(rabbit.amqps_url, cafile=str(tmp_path / "none.pem"))


def test_a_silent_broker_is_given_up(
    rabbit: RabbitNode, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "_HEARTBEAT", 1)
    monkeypatch.setattr(rabbitmq, "_SECONDS", 1.0)
    with TcpProxy("127.0.0.1", rabbit.port) as proxy:
        url = rabbit.amqp_url.replace(f":{rabbit.port}/", f":{proxy.port}/")
        with RabbitBroker(url, management_url=rabbit.management_url) as broker:
            broker.add_leaf(tree, "leaf", "secret")
            broker.publish(tree, "leaf", b"x")
            proxy.black_hole()
            with pytest.raises(BrokerError, match="did not take a message"):
                broker.publish(tree, "leaf", b"y")
            proxy.heal()
            broker.publish(tree, "leaf", b"z")
            assert broker.depth(tree, "leaf") == (2, 0)


def test_a_lost_confirmation_is_asked_for_again(rabbit: RabbitNode, tree: str) -> None:
    with TcpProxy("127.0.0.1", rabbit.port) as proxy:
        url = rabbit.amqp_url.replace(f":{rabbit.port}/", f":{proxy.port}/")
        with RabbitBroker(url, management_url=rabbit.management_url) as broker:
            broker.add_leaf(tree, "leaf", "secret")
            broker.publish(tree, "leaf", b"x")
            proxy.cut_after(0, "down")
            broker.publish(tree, "leaf", b"y")
            assert broker.depth(tree, "leaf") == (3, 0)  # twice, as the docstring says
