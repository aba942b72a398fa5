"""The sandbox on a real RabbitMQ: the same loop, and nothing left behind."""

from __future__ import annotations

import pika
import pika.exceptions
import pytest

from bktransport.messages import AggregationReady, RunStatusChanged, read_event
from bktransport.sandbox import Sandbox
from bktransport.sandbox.faults import POISONS

from ..unit.sandbox_calls import TIMEOUT, connect, ended_round, messages, upload
from .rabbitmq import RabbitNode


def _sandbox(node: RabbitNode, *fail: str) -> Sandbox:
    return Sandbox(leaves=2, amqp_url=node.amqp_url, management_url=node.management_url, fail=fail)


def test_the_loop(rabbit: RabbitNode) -> None:
    with _sandbox(rabbit, "poison") as sandbox:
        assert sandbox.amqp == f"{sandbox.broker.host}:{sandbox.broker.port}"
        assert rabbit.password not in repr(sandbox) + str(sandbox.credentials)
        sandbox.set_run("start")
        for leaf in (0, 1):
            assert upload(sandbox, leaf=leaf).status_code == 201
        ready = AggregationReady(ended_round(sandbox)["aggregation_id"])
        for leaf in (0, 1):
            found = messages(sandbox, len(POISONS) + 2, leaf)
            assert found[: len(POISONS)] == list(POISONS)
            assert [read_event(one) for one in found[-2:]] == [RunStatusChanged("start"), ready]
        tree = sandbox.credentials[0]["leaf_id"]
    with Sandbox(leaves=1, amqp_url=rabbit.amqp_url) as another:
        assert another.credentials[0]["leaf_id"] != tree


def test_drop(rabbit: RabbitNode) -> None:
    with _sandbox(rabbit, "drop") as sandbox:
        connection = connect(sandbox)
        sandbox.set_run("stop")
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.process_data_events(TIMEOUT)
        assert read_event(messages(sandbox, 1)[0]) == RunStatusChanged("stop")
