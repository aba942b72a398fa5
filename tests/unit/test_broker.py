"""The embedded broker, seen by pika: what RabbitMQ would do, and the faults on request."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
import pytest
from pika import spec

from bktransport.sandbox.broker import EmbeddedBroker

from .amqp import (
    HEADER,
    LEAF,
    OPEN,
    PASSWORD,
    TREE,
    Raw,
    broker,
    connection,
    contexts,
    eventually,
    get,
    login,
    tune,
)

BIG = bytes(range(256)) * 2048  # four frames and a bit


@pytest.fixture
def made() -> Iterator[EmbeddedBroker]:
    with broker() as one:
        yield one


def publish(made: EmbeddedBroker, *bodies: bytes) -> None:
    for body in bodies:
        made.publish(TREE, LEAF, body)


def closed_channel(opened: Any, channel: Any, code: int) -> str:
    """Waits until the broker closes the channel; the text it gives."""
    eventually(lambda: not channel.is_open, opened)
    assert opened.is_open
    reason = channel._impl._closing_reason
    assert reason.reply_code == code
    return str(reason.reply_text)


# Construction, the leaves, and what is published


@pytest.mark.parametrize("bind", ["0.0.0.0", "10.0.0.1", "::", "localhost", "", "127.0.0.1\n"])  # noqa: S104
def test_only_loopback_is_bound(bind: str) -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        EmbeddedBroker(bind=bind)


def test_a_port_in_use_is_an_os_error_at_once(made: EmbeddedBroker) -> None:
    with pytest.raises(OSError, match="in use"):
        EmbeddedBroker(port=made.port)


def test_closing_frees_the_port_and_ends_the_thread() -> None:
    before = threading.active_count()
    with broker() as made, connection(made) as opened:
        made.close()
        made.close()
        assert threading.active_count() == before
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            opened.process_data_events(1)
    with broker(port=made.port), pytest.raises(ValueError, match="closed"):
        made.restart()


def test_what_is_not_there(made: EmbeddedBroker) -> None:
    with pytest.raises(KeyError):
        made.publish(TREE, "nobody", b"")
    with pytest.raises(KeyError):
        made.depth("no-tree", LEAF)
    with pytest.raises(ValueError, match="another tree"):
        made.add_leaf("tree-2", LEAF, "x")
    with pytest.raises(ValueError, match="tree_id"):
        made.add_leaf("x" * 256, "leaf-2", "x")


def test_a_leaf_is_kept_and_its_password_changed(made: EmbeddedBroker) -> None:
    publish(made, b"a")
    other = PASSWORD + "other"
    made.add_leaf(TREE, LEAF, other)
    assert made.depth(TREE, LEAF) == (1, 0)
    with connection(made, password=other):
        pass
    with pytest.raises(pika.exceptions.ProbableAuthenticationError), connection(made):
        pass


@pytest.mark.parametrize("body", [b"", b"x", BIG, b"y" * 131064, b"y" * 131065])
def test_bodies_of_any_size(made: EmbeddedBroker, body: bytes) -> None:
    with connection(made) as opened:
        channel = opened.channel()
        publish(made, body, b"next")
        assert get(channel, auto_ack=True)[1] == body
        assert get(channel, auto_ack=True)[1] == b"next"


def test_small_frames_are_agreed_on(made: EmbeddedBroker) -> None:
    with connection(made, frame_max=4096) as opened:
        publish(made, BIG)
        assert get(opened.channel())[1] == BIG


# Logging in


@pytest.mark.parametrize(("user", "password"), [(LEAF, "wrong"), (LEAF, ""), ("no\x00", "x")])
def test_a_wrong_login_is_refused(made: EmbeddedBroker, user: str, password: str) -> None:
    with (
        pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"),
        connection(made, user=user, password=password),
    ):
        pass


def test_virtual_hosts_of_others_are_refused(made: EmbeddedBroker) -> None:
    made.add_leaf("tree-2", "leaf-2", "x")
    for tree, said in (("tree-2", "access to vhost 'tree-2' refused"), ("tree-3", "not found")):
        with (
            pytest.raises(pika.exceptions.ProbableAccessDeniedError, match=f"530.*{said}"),
            connection(made, tree=tree),
        ):
            pass


def test_neither_log_nor_repr_shows_the_password(
    made: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "bktransport")
    with connection(made) as opened:
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            connection(made, password=PASSWORD + "x").__enter__()
        opened.channel().basic_ack(9)
        made.close_connections()
        with pytest.raises(pika.exceptions.AMQPError):
            opened.process_data_events(5)
    assert "refused a login" in caplog.text
    ours = "".join(one.getMessage() for one in caplog.records if one.name.startswith("bk"))
    assert PASSWORD not in ours + repr(made) + str(vars(made)) + str(vars(made._directory))


# Reading


def test_messages_come_in_order_with_prefetch_1(made: EmbeddedBroker) -> None:
    bodies = [str(number).encode() for number in range(300)]
    publisher = threading.Thread(target=publish, args=(made, *bodies))
    with connection(made) as opened:
        channel = opened.channel()
        channel.basic_qos(prefetch_count=1)
        publisher.start()
        got = []
        for delivered, _, body in channel.consume(LEAF):
            assert not delivered.redelivered
            assert delivered.delivery_tag == len(got) + 1
            assert made.depth(TREE, LEAF)[1] == 1
            got.append(body)
            channel.basic_ack(delivered.delivery_tag)
            if len(got) == len(bodies):
                break
        publisher.join()
        assert got == bodies
        eventually(lambda: made.depth(TREE, LEAF) == (0, 0), opened)


@pytest.mark.parametrize("limit", [1, 3, 0])
def test_prefetch_is_enforced(made: EmbeddedBroker, limit: int) -> None:
    with connection(made) as opened:
        channel, got = opened.channel(), []
        channel.basic_qos(prefetch_count=limit)
        channel.basic_consume(LEAF, lambda _c, delivered, _p, _b: got.append(delivered))
        publish(made, *[b"x"] * 8)
        expected = limit or 8
        assert made.depth(TREE, LEAF) == (8 - expected, expected)
        eventually(lambda: len(got) == expected, opened)
        channel.basic_ack(got[-1].delivery_tag)
        eventually(lambda: sum(made.depth(TREE, LEAF)) == 7, opened)
        assert made.depth(TREE, LEAF)[1] == min(expected, 7)


def test_prefetch_of_the_whole_channel(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel = opened.channel()
        channel.basic_qos(prefetch_count=2, global_qos=True)
        for _ in range(2):
            channel.basic_consume(LEAF, lambda *_: None)
        publish(made, *[b"x"] * 8)
        assert made.depth(TREE, LEAF) == (6, 2)


def test_auto_ack_and_cancel(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel, got = opened.channel(), []
        tag = channel.basic_consume(LEAF, lambda *given: got.append(given[3]), auto_ack=True)
        publish(made, b"a", b"b")
        assert made.depth(TREE, LEAF) == (0, 0)
        eventually(lambda: got == [b"a", b"b"], opened)
        channel.basic_cancel(tag)
        publish(made, b"c")
        assert made.depth(TREE, LEAF) == (1, 0)


def test_what_is_unacknowledged_survives_a_cancel(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel, got = opened.channel(), []
        tag = channel.basic_consume(LEAF, lambda *given: got.append(given[1]))
        publish(made, b"a")
        eventually(lambda: got, opened)
        channel.basic_cancel(tag)
        assert made.depth(TREE, LEAF) == (0, 1)
        channel.basic_ack(got[0].delivery_tag)
        eventually(lambda: made.depth(TREE, LEAF) == (0, 0), opened)


def test_consumers_take_turns(made: EmbeddedBroker) -> None:
    with connection(made) as one, connection(made) as other:
        got: dict[int, list[bytes]] = {0: [], 1: []}
        for index, opened in enumerate((one, other)):
            channel = opened.channel()
            channel.basic_consume(LEAF, lambda *given, at=index: got[at].append(given[3]))
        publish(made, b"0", b"1", b"2", b"3")
        eventually(lambda: len(got[0]) == 2, one)
        eventually(lambda: len(got[1]) == 2, other)
        assert got == {0: [b"0", b"2"], 1: [b"1", b"3"]}


def test_an_exclusive_consumer_stays_alone(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        tag = (first := opened.channel()).basic_consume(LEAF, lambda *_: None, exclusive=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="in exclusive use"):
            opened.channel().basic_consume(LEAF, lambda *_: None)
        first.basic_cancel(tag)
        opened.channel().basic_consume(LEAF, lambda *_: None)


def test_get_and_declare_tell_how_much_there_is(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel = opened.channel()
        assert channel.basic_get(LEAF) == (None, None, None)
        publish(made, b"a", b"b", b"c")
        first, body = get(channel)
        assert (first.delivery_tag, first.message_count, body) == (1, 2, b"a")
        declared = channel.queue_declare(LEAF, passive=True).method
        assert (declared.queue, declared.message_count, declared.consumer_count) == (LEAF, 2, 0)
        assert get(channel, auto_ack=True)[0].message_count == 1
        assert made.depth(TREE, LEAF) == (1, 1)


# Acknowledging


def test_acknowledging_many(made: EmbeddedBroker) -> None:
    publish(made, *[b"x"] * 5)
    with connection(made) as opened:
        channel = opened.channel()
        tags = [get(channel)[0].delivery_tag for _ in range(5)]
        channel.basic_ack(tags[1], multiple=True)
        eventually(lambda: made.depth(TREE, LEAF) == (0, 3), opened)
        channel.basic_ack(0, multiple=True)
        eventually(lambda: made.depth(TREE, LEAF) == (0, 0), opened)
        channel.basic_ack(0, multiple=True)  # of nothing: no fault
        assert channel.basic_get(LEAF)[0] is None


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_what_is_returned_stands_where_it_stood(made: EmbeddedBroker, how: str) -> None:
    publish(made, b"a", b"b", b"c", b"d")
    with connection(made) as opened:
        channel = opened.channel()
        got = [get(channel)[0] for _ in range(3)]
        back = getattr(channel, f"basic_{how}")
        back(got[2].delivery_tag, requeue=True)
        back(got[1].delivery_tag, requeue=True)
        back(got[0].delivery_tag, requeue=False)
        again = [get(channel) for _ in range(3)]
        assert [(one.redelivered, body) for one, body in again] == [
            (True, b"b"), (True, b"c"), (False, b"d"),
        ]  # fmt: skip


def test_nack_of_many_and_recover(made: EmbeddedBroker) -> None:
    publish(made, b"a", b"b", b"c")
    with connection(made) as opened:
        channel = opened.channel()
        tags = [get(channel)[0].delivery_tag for _ in range(3)]
        channel.basic_nack(tags[1], multiple=True, requeue=True)
        eventually(lambda: made.depth(TREE, LEAF) == (2, 1), opened)
        channel.basic_recover(requeue=True)
        assert made.depth(TREE, LEAF) == (3, 0)
        assert [get(channel)[1] for _ in range(3)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(("tag", "multiple"), [(7, False), (0, False), (7, True)])
@pytest.mark.parametrize("how", ["ack", "nack"])
def test_an_unknown_tag_closes_the_channel(
    made: EmbeddedBroker, tag: int, multiple: bool, how: str
) -> None:
    publish(made, b"a")
    with connection(made) as opened:
        channel = opened.channel()
        get(channel)
        getattr(channel, f"basic_{how}")(tag, multiple)
        assert closed_channel(opened, channel, 406).endswith(f"unknown delivery tag {tag}")
        assert made.depth(TREE, LEAF) == (1, 0)
        assert get(opened.channel())[0].redelivered


def test_acknowledged_twice(made: EmbeddedBroker) -> None:
    publish(made, b"a")
    with connection(made) as opened:
        channel = opened.channel()
        tag = get(channel)[0].delivery_tag
        channel.basic_ack(tag)
        channel.basic_ack(tag)
        closed_channel(opened, channel, 406)
        assert made.depth(TREE, LEAF) == (0, 0)


# What a leaf may not do


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda channel: channel.queue_declare("none", passive=True), 404),
        (lambda channel: channel.queue_declare("", passive=True), 404),
        (lambda channel: channel.queue_declare("leaf-2", passive=True), 403),
        (lambda channel: channel.queue_declare(LEAF, durable=True), 403),
        (lambda channel: channel.queue_declare("new"), 403),
        (lambda channel: channel.queue_purge(LEAF), 403),
        (lambda channel: channel.queue_delete(LEAF), 403),
        (lambda channel: channel.queue_bind(LEAF, "amq.direct"), 403),
        (lambda channel: channel.exchange_declare("x"), 403),
        (lambda channel: channel.basic_consume("leaf-2", lambda *_: None), 403),
        (lambda channel: channel.basic_get("leaf-2"), 403),
        (lambda channel: channel.basic_get("none"), 403),
        (lambda channel: channel.basic_get(""), 404),
    ],
)
def test_a_leaf_may_only_read_its_queue(made: EmbeddedBroker, call: Any, code: int) -> None:
    made.add_leaf(TREE, "leaf-2", "x")
    made.publish(TREE, "leaf-2", b"secret")
    with connection(made) as opened:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            call(opened.channel())
        assert caught.value.reply_code == code
        assert opened.channel().basic_get(LEAF)[0] is None  # the connection still works
        assert made.depth(TREE, "leaf-2") == (1, 0)


@pytest.mark.parametrize("body", [b"", b"x", BIG])
def test_a_leaf_may_not_publish(made: EmbeddedBroker, body: bytes) -> None:
    with connection(made) as opened:
        channel = opened.channel()
        channel.basic_publish("", LEAF, body)
        assert "access to exchange" in closed_channel(opened, channel, 403)
        confirming = opened.channel()
        confirming.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            confirming.basic_publish("", LEAF, body)
        assert made.depth(TREE, LEAF) == (0, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: channel.tx_select(),
        lambda channel: channel.basic_recover(requeue=False),
        lambda channel: channel.basic_qos(prefetch_size=1),
        lambda channel: channel.flow(active=False),
    ],
)
def test_what_is_not_implemented_says_so(made: EmbeddedBroker, call: Any) -> None:
    with connection(made) as opened:
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
            call(opened.channel())
        assert caught.value.reply_code == 540


# Losing and returning


def consume_two(made: EmbeddedBroker, opened: Any) -> Any:
    """Publishes three messages and has two of them unacknowledged."""
    publish(made, b"a", b"b", b"c")
    channel, got = opened.channel(), []
    channel.basic_qos(prefetch_count=2)
    channel.basic_consume(LEAF, lambda *given: got.append(given[3]))
    eventually(lambda: got == [b"a", b"b"], opened)
    return channel


def assert_returned(made: EmbeddedBroker) -> None:
    eventually(lambda: made.depth(TREE, LEAF) == (3, 0))
    with connection(made) as opened:
        channel = opened.channel()
        got = [get(channel) for _ in range(3)]
        assert [body for _, body in got] == [b"a", b"b", b"c"]
        assert [one.redelivered for one, _ in got] == [True, True, False]


def test_a_closed_channel_gives_back(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        consume_two(made, opened).close()
        assert_returned(made)


def test_a_lost_connection_gives_back(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        consume_two(made, opened)
        opened._impl._transport._sock.shutdown(socket.SHUT_RDWR)
        assert_returned(made)
        with pytest.raises(pika.exceptions.AMQPError):
            opened.process_data_events(5)


def test_what_is_given_back_goes_to_the_others(made: EmbeddedBroker) -> None:
    with connection(made) as one, connection(made) as other:
        got: list[bytes] = []
        channel = other.channel()
        first = consume_two(made, one)
        channel.basic_consume(LEAF, lambda *given: got.append(given[3]))
        first.close()
        eventually(lambda: got == [b"c", b"a", b"b"], other)


def test_forced_close(made: EmbeddedBroker) -> None:
    def wait(opened: Any, said: list[BaseException]) -> None:
        try:
            opened.process_data_events(20)
        except pika.exceptions.AMQPError as exc:
            said.append(exc)

    with connection(made) as opened:
        consume_two(made, opened)
        said: list[BaseException] = []
        client = threading.Thread(target=wait, args=(opened, said))
        client.start()
        assert made.close_connections() == 1
        assert made.connections() == 0
        client.join()
        assert isinstance(said[0], pika.exceptions.ConnectionClosedByBroker)
        assert said[0].reply_code == 320
        assert said[0].reply_text == "CONNECTION_FORCED - Closed via management plugin"
        assert_returned(made)


def test_forced_close_of_one_that_does_not_answer(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        consume_two(made, opened)
        assert made.close_connections() == 1
        assert_returned(made)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="320"):
            opened.process_data_events(5)


def test_a_lost_consumer_takes_nothing_more(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        opened.channel().basic_consume(LEAF, lambda *_: None)
        publish(made, b"a")
        assert made.depth(TREE, LEAF) == (0, 1)
        made.drop_connections()
        publish(made, b"b")
        assert made.depth(TREE, LEAF) == (2, 0)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            opened.process_data_events(5)


def test_reset(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        consume_two(made, opened)
        assert made.drop_connections() == 1
        assert made.drop_connections() == 0
        with pytest.raises(pika.exceptions.StreamLostError, match="reset"):
            opened.process_data_events(5)
        assert_returned(made)


def test_stop_and_restart(made: EmbeddedBroker) -> None:
    port = made.port
    with connection(made) as opened:
        consume_two(made, opened)
        made.stop()
        made.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((made.host, port))
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            opened.process_data_events(5)
    made.restart()
    assert made.port == port
    assert_returned(made)
    made.restart()
    with connection(made) as opened:
        assert get(opened.channel())[1] == b"a"


def test_a_removed_queue_cancels_its_consumers(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel, told = consume_two(made, opened), []
        channel.add_on_cancel_callback(told.append)
        made.remove_queue(TREE, LEAF)
        eventually(lambda: told, opened)
        channel.basic_ack(1)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
            channel.basic_consume(LEAF, lambda *_: None)
        made.add_leaf(TREE, LEAF, PASSWORD)
        assert made.depth(TREE, LEAF) == (0, 0)


# Time


def test_consumer_timeout() -> None:
    with broker(consumer_timeout=0.3) as made, connection(made) as opened:
        channel = consume_two(made, opened)
        other = opened.channel()
        text = closed_channel(opened, channel, 406)
        assert "delivery acknowledgement on channel 1 timed out. Timeout value used: 300" in text
        assert other.is_open
        assert_returned(made)


def test_an_acknowledged_delivery_does_not_time_out() -> None:
    with broker(consumer_timeout=0.3) as made, connection(made) as opened:
        publish(made, b"a")
        channel = opened.channel()
        channel.basic_ack(get(channel)[0].delivery_tag)
        opened.process_data_events(0.7)
        assert channel.is_open


def test_heartbeats_keep_a_silent_connection() -> None:
    with broker(heartbeat=1) as made, connection(made) as opened:
        opened.process_data_events(3.5)  # sends them, and nothing else
        assert opened.is_open
        assert made.connections() == 1


def test_a_silent_client_is_disconnected() -> None:
    with broker(heartbeat=1) as made, connection(made) as opened:
        consume_two(made, opened)
        eventually(lambda: made.connections() == 0)  # nobody ticks pika meanwhile
        assert_returned(made)
        with pytest.raises(pika.exceptions.AMQPError):
            opened.process_data_events(5)


def test_without_heartbeats_silence_is_no_offence() -> None:
    with broker(heartbeat=1) as made, connection(made, heartbeat=0) as opened:
        time.sleep(2.5)
        opened.process_data_events(0)
        assert made.connections() == 1


def test_frozen_nothing_moves(made: EmbeddedBroker) -> None:
    with connection(made) as opened:
        channel, got = opened.channel(), []
        channel.basic_consume(LEAF, lambda *given: got.append(given[3]))
        made.freeze()
        publish(made, b"a")
        opened.process_data_events(0.3)
        assert not got
        with socket.create_connection((made.host, made.port), timeout=0.3) as late:
            late.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                late.recv(1)
            made.thaw()
            made.thaw()
            eventually(lambda: got == [b"a"], opened)
            late.settimeout(20)
            assert late.recv(8) == b"AMQP\x00\x00\x09\x01"


def test_frozen_no_heartbeats_are_sent_nor_missed(made: EmbeddedBroker) -> None:
    with Raw(made, HEADER + login() + tune(heartbeat=1) + OPEN) as raw:
        raw.until(spec.Connection.OpenOk)
        assert next(raw.frames()).NAME == "Heartbeat"
        made.freeze()
        raw.sock.settimeout(2.5)
        with pytest.raises(TimeoutError):
            raw.sock.recv(1)
        made.thaw()
        raw.sock.settimeout(20)
        assert next(raw.frames()).NAME == "Heartbeat"
        assert set(raw.rest()) <= {"Heartbeat"}  # then it is us who are silent for too long


@pytest.mark.parametrize("end", ["close", "drop_connections", "close_connections", "restart"])
def test_frozen_it_can_still_be_ended(made: EmbeddedBroker, end: str) -> None:
    with connection(made) as opened:
        made.freeze()
        getattr(made, end)()
        made.thaw()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            opened.process_data_events(5)


# TLS


def test_tls() -> None:
    server, client = contexts()
    options = pika.SSLOptions(client, "127.0.0.1")
    with broker(ssl_context=server) as made, connection(made, ssl_options=options) as opened:
        channel = opened.channel()
        publish(made, BIG, *[b"x"] * 50)
        assert get(channel)[1] == BIG
        for _ in range(50):
            channel.basic_ack(get(channel)[0].delivery_tag)
        made.close_connections()
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
            opened.process_data_events(5)


def test_tls_strangers_do_no_harm() -> None:
    server, client = contexts()
    options = pika.SSLOptions(client, "127.0.0.1")
    with broker(ssl_context=server) as made, contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_connection((made.host, made.port)))
        with pytest.raises(pika.exceptions.AMQPConnectionError), connection(made):  # plain
            pass
        untrusting = pika.SSLOptions(ssl.create_default_context(), "127.0.0.1")
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            connection(made, ssl_options=untrusting),
        ):
            pass
        opened = stack.enter_context(connection(made, ssl_options=options))
        publish(made, b"a")
        assert get(opened.channel())[1] == b"a"
        assert silent.fileno() >= 0
