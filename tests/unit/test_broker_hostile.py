"""Whatever bytes a client sends, the one outcome is the end of that connection, and of no other."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pika import data, frame, spec

from bktransport.sandbox.amqp_frames import Fault
from bktransport.sandbox.broker import EmbeddedBroker

from .amqp import (
    CHANNEL,
    HEADER,
    LEAF,
    OPEN,
    START,
    TREE,
    Raw,
    broker,
    connection,
    contexts,
    eventually,
    get,
    login,
    method,
    tune,
)


@pytest.fixture
def made() -> Iterator[EmbeddedBroker]:
    """A broker that still serves an old client and a new one when the test is over."""
    with broker() as one, connection(one, heartbeat=0) as old:
        channel = old.channel()
        yield one
        # What a client had when it left comes back once the broker has noticed.
        eventually(lambda: one.depth(TREE, LEAF)[1] == 0)
        for _ in range(one.depth(TREE, LEAF)[0]):
            get(channel, auto_ack=True)
        with connection(one) as new:
            for each in (channel, new.channel()):
                one.publish(TREE, LEAF, b"still here")
                assert get(each, auto_ack=True)[1] == b"still here"


def alone(made: EmbeddedBroker) -> None:
    """All but the old client are gone."""
    eventually(lambda: len(made._peers) == 1)


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"AMQP\x01\x01\x00\x0a", b"\x16\x03\x01"],
)
def test_another_protocol_is_told_ours(made: EmbeddedBroker, sent: bytes) -> None:
    with Raw(made, sent) as raw:
        assert raw.sock.recv(100) == HEADER
        assert raw.sock.recv(100) == b""
    alone(made)


@pytest.mark.parametrize(
    "sent",
    [
        tune(),
        OPEN,
        CHANNEL,
        HEADER,
        login(mechanism="EXTERNAL"),
        login() + OPEN,
        login() + tune(frame_max=0) + OPEN,
        login() + tune(frame_max=100) + OPEN,
        login() + tune(frame_max=1 << 20) + OPEN,
        login() + tune(channel_max=0) + OPEN,
        login() + tune() + CHANNEL,
        frame.Body(0, b"x").marshal(),
        b"\x01\x00\x00\x00\x00\x20\x00",  # over 8 KiB before the login
    ],
)
def test_a_bad_start_ends(made: EmbeddedBroker, sent: bytes) -> None:
    with Raw(made, HEADER + sent) as raw:
        assert "Connection.OpenOk" not in raw.rest()
    alone(made)


def test_a_refused_login_is_not_told_to_others(made: EmbeddedBroker) -> None:
    with Raw(made, HEADER + login("wrong", told=False)) as raw:
        assert raw.rest() == ["Connection.Start"]


def test_a_refused_login_is_told_to_who_wants_to_know(made: EmbeddedBroker) -> None:
    with Raw(made, HEADER + login("wrong")) as raw:
        said = raw.until(spec.Connection.Close)
        assert (said.reply_code, said.class_id) == (403, 0)
        raw.send(method(0, spec.Connection.CloseOk()))
        assert raw.rest() == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x05\x00\x00\x00\x00\x00\x00\xce", 501),
        (b"\x01\x00\x00\x00\x00\x00\x04abcd\xcd", 501),
        (b"\x03\x00\x01\xff\xff\xff\xff", 501),
        (b"\x03\x00\x01\x00\x01\xff\xf9", 501),  # one over
        (frame.Header(1, 3, spec.BasicProperties()).marshal(), 505),
        (frame.Body(1, b"abc").marshal(), 505),
        (frame.Body(0, b"abc").marshal(), 505),
        (b"\x08\x00\x01\x00\x00\x00\x00\xce", 505),
        (b"\x01\x00\x01\x00\x00\x00\x00\xce", 540),  # no method at all
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x03\xe7\xce", 540),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x14\x00\xce", 501),
        (login(), 504),
        (method(0, spec.Basic.Get(queue=LEAF)), 504),
        (method(1, spec.Connection.Close(200, "", 0, 0)), 503),
        (method(2, spec.Basic.Get(queue=LEAF)), 504),
        (CHANNEL, 504),
        (method(2048, spec.Channel.Open()), 530),
        (method(1, spec.Basic.Consume(queue=LEAF, consumer_tag="x")) * 2, 530),
        (b"".join(method(1, spec.Basic.Consume(queue=LEAF)) for _ in range(101)), 530),
        (method(1, spec.Basic.Consume(queue=LEAF, consumer_tag=b"\xff")), 502),
    ],
)
def test_a_broken_rule_closes_the_connection(made: EmbeddedBroker, sent: bytes, code: int) -> None:
    made.publish(TREE, LEAF, b"a")
    with Raw(made, START) as raw:
        raw.until(spec.Channel.OpenOk)
        raw.send(sent)
        assert raw.until(spec.Connection.Close).reply_code == code
        eventually(lambda: made.depth(TREE, LEAF) == (1, 0))
        raw.send(method(0, spec.Connection.CloseOk()))
        assert raw.rest() == []
    alone(made)


def test_a_faulty_channel_ignores_the_rest(made: EmbeddedBroker) -> None:
    close_ok = method(1, spec.Channel.CloseOk())
    with Raw(
        made, START + method(1, spec.Basic.Get(queue="none")) + frame.Body(1, b"").marshal()
    ) as raw:
        assert raw.until(spec.Channel.Close).reply_code == 403
        raw.send(close_ok + CHANNEL + method(1, spec.Basic.Get(queue=LEAF)))
        raw.until(spec.Basic.GetEmpty)


def test_names_that_are_no_text(made: EmbeddedBroker) -> None:
    for sent in (
        spec.Queue.Declare(queue=b"\xff\xfe", passive=True),
        spec.Basic.Get(queue=b"\xff"),
    ):
        with Raw(made, START + method(1, sent)) as raw:
            assert raw.until(spec.Channel.Close).reply_code in (403, 404)
    with Raw(made, HEADER + login() + tune() + method(0, spec.Connection.Open(b"\xff"))) as raw:
        assert raw.until(spec.Connection.Close).reply_code == 530


def test_answers_are_cut_where_amqp_ends() -> None:
    text = Fault(404, "\u00fc" * 200).text
    assert len(text.encode()) in (254, 255)
    assert text.startswith("NOT_FOUND - \u00fc")


def test_small_frames_are_kept_to(made: EmbeddedBroker) -> None:
    made.publish(TREE, LEAF, bytes(10_000))
    start = HEADER + login() + tune(frame_max=4096) + OPEN + CHANNEL
    with Raw(made, start + method(1, spec.Basic.Get(queue=LEAF))) as raw:
        raw.until(spec.Basic.GetOk)
        sizes = [len(getattr(got, "fragment", b"")) for got in itertools.islice(raw.frames(), 4)]
        assert sizes == [0, 4088, 4088, 1824]


def test_more_than_fits_is_delivered_bit_by_bit(made: EmbeddedBroker) -> None:
    for _ in range(100):
        made.publish(TREE, LEAF, bytes(100_000))
    consume = spec.Basic.Consume(queue=LEAF, no_ack=True)
    with Raw(made, START + method(1, consume)) as raw:
        raw.sock.settimeout(10)
        for _ in range(100):
            raw.until(spec.Basic.Deliver)


def test_long_names_fit_into_the_answer(made: EmbeddedBroker) -> None:
    with Raw(
        made, START + method(1, spec.Queue.Declare(queue="\u00fc" * 127, passive=True))
    ) as raw:
        assert raw.until(spec.Channel.Close).reply_text.startswith("NOT_FOUND")


def test_tables_that_nest_for_ever(made: EmbeddedBroker) -> None:
    table = b""
    for _ in range(1100):
        table = struct.pack(">IB", len(table) + 2, 0) + b"F" + table if table else b"\0\0\0\0"
    payload = struct.pack(">I", spec.Connection.StartOk.INDEX) + table
    with pytest.raises(RecursionError):
        data.decode_table(payload, 4)
    with Raw(made, HEADER + struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce") as raw:
        assert raw.rest() == ["Connection.Start"]
    alone(made)


@pytest.mark.parametrize("before", [b"", HEADER, HEADER + login() + tune() + OPEN, START])
def test_random_bytes(made: EmbeddedBroker, before: bytes) -> None:
    chance = random.Random(len(before))
    for _ in range(100):
        with Raw(made, before + chance.randbytes(chance.randrange(400))):
            pass
    alone(made)


def test_changed_bytes_and_truncations(made: EmbeddedBroker) -> None:
    chance = random.Random(7)
    consume = method(1, spec.Basic.Consume(queue=LEAF, arguments={"x": [1, {"y": "z"}]}))
    whole = START + method(1, spec.Basic.Qos(0, 1)) + consume + method(1, spec.Basic.Ack(1))
    made.publish(TREE, LEAF, b"a")
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(8, len(changed))] = chance.randrange(256)
        with Raw(made, bytes(changed)[: chance.randrange(len(whole) + 1)]):
            pass
    alone(made)


def test_methods_in_any_order(made: EmbeddedBroker) -> None:
    chance = random.Random(11)
    kinds = [one for one in spec.methods.values() if one is not spec.Connection.StartOk]
    for _ in range(300):
        sent = []
        for _ in range(chance.randrange(1, 8)):
            fields = chance.choice([bytes(20), chance.randbytes(20), b"\0\0\6leaf-1" + bytes(20)])
            payload = struct.pack(">I", chance.choice(kinds).INDEX) + fields
            number = chance.randrange(3)
            sent.append(struct.pack(">BHI", 1, number, len(payload)) + payload + b"\xce")
        with Raw(made, START + b"".join(sent)):
            pass
    alone(made)


def test_byte_by_byte(made: EmbeddedBroker) -> None:
    with Raw(made) as raw:
        raw.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in START:
            raw.send(bytes([octet]))
        raw.until(spec.Channel.OpenOk)


def test_a_handshake_that_never_ends() -> None:
    with broker(handshake_timeout=0.3) as made, connection(made) as opened:
        for sent in (b"", b"AM", HEADER, HEADER + login() + tune()):
            with Raw(made, sent) as raw:
                assert "Connection.OpenOk" not in raw.rest()
        assert opened.channel().basic_get(LEAF)[0] is None


def test_a_goodbye_that_is_never_answered(made: EmbeddedBroker) -> None:
    with Raw(made, START + CHANNEL) as raw:
        raw.until(spec.Connection.Close)
        assert raw.rest() == []  # the broker waits for two seconds
    alone(made)


def test_too_many_connections(made: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bktransport.sandbox.broker._MAX_PEERS", 9)
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(Raw(made)) for _ in range(20)]
        eventually(lambda: len(made._peers) == 9)
        assert many[-1].rest() == []
    alone(made)


@pytest.mark.parametrize("encrypted", [False, True])
def test_one_who_does_not_read_costs_little(encrypted: bool) -> None:
    """Deliveries without a limit and questions without end: nothing piles up."""
    server, client = contexts() if encrypted else (None, None)
    with broker(ssl_context=server) as made:
        read_nothing(made, client)


def read_nothing(made: EmbeddedBroker, tls: ssl.SSLContext | None) -> None:
    body = bytes(100_000)
    for _ in range(200):
        made.publish(TREE, LEAF, body)
    with Raw(made, START + method(1, spec.Basic.Consume(queue=LEAF)), tls) as raw:
        raw.until(spec.Basic.ConsumeOk)
        raw.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                raw.sock.sendall(method(1, spec.Basic.Get(queue=LEAF)) * 1000)
        (peer,) = made._peers
        assert len(peer.session.outlet.out) < (1 << 20) + 2 * len(body)
        assert len(peer.session._buffer) < 1 << 18
        assert made.depth(TREE, LEAF)[0] > 100
        raw.sock.settimeout(20)
        ready: Any = None
        until = time.monotonic() + 20
        for got in raw.frames():  # it wakes up: all is delivered, all is answered
            ready = getattr(got, "method", None)
            if isinstance(ready, spec.Basic.GetEmpty) or time.monotonic() > until:
                break
        assert isinstance(ready, spec.Basic.GetEmpty)
        assert made.depth(TREE, LEAF) == (0, 200)
