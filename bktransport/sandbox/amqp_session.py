"""One client's connection without its socket: bytes in, bytes out, as RabbitMQ would answer.

    client                              broker
    "AMQP" 0 0 9 1                      Connection.Start
    Connection.StartOk (PLAIN)          Connection.Tune, or Close 403 if it wants to be told
    Connection.TuneOk, Connection.Open  Connection.OpenOk, or Close 530
    channels                            see `amqp_channel`

Before Connection.OpenOk a client that breaks the protocol is told nothing; the connection ends.

Source: AMQP 0-9-1 section 2.2.4; RabbitMQ's authentication_failure_close.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Any

from pika import spec

from bktransport.sandbox.amqp_channel import Channel, Leaf
from bktransport.sandbox.amqp_frames import (
    FRAME_MAX,
    HEADER,
    Fault,
    Outlet,
    RawFrame,
    cut_frame,
    decode_method,
    index_of,
)
from bktransport.sandbox.amqp_queues import Directory

__all__ = ["Session", "Stage"]

_LOG = logging.getLogger("bktransport.sandbox")
_CHANNEL_MAX = 2047  # as RabbitMQ offers
_FRAME_MIN = 4096  # bytes that every peer must be able to take
_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "per_consumer_qos": True,
    "publisher_confirms": True,
}
_LOGIN_REFUSED = (
    "Login was refused using authentication mechanism PLAIN. "
    "For details see the broker logfile."
)  # fmt: skip


class Stage(enum.IntEnum):
    """What is waited for."""

    HEADER = 0
    START_OK = 1
    TUNE_OK = 2
    OPEN = 3
    RUNNING = 4
    CLOSE_OK = 5  # after our Connection.Close
    ENDED = 6  # what is in the outlet goes out, then the connection closes


class Session:
    """The broker's side of a connection.

    Attributes:
        outlet: what is to be sent.
        stage: what is waited for.
        heartbeat: seconds agreed on; 0 for none.
    """

    def __init__(self, directory: Directory, heartbeat: int, clock: Callable[[], float]) -> None:
        self.outlet = Outlet()
        self.stage = Stage.HEADER
        self.heartbeat = 0
        self._offered = heartbeat
        self._clock = clock
        self._directory = directory
        self._leaf = Leaf(directory, "", "")
        self._buffer = bytearray()
        self._channels: dict[int, Channel] = {}
        self._channel_max = _CHANNEL_MAX

    def receive(self, data: bytes) -> None:
        """Takes bytes from the client."""
        self._buffer += data
        self._advance()

    def resume(self) -> None:
        """There is room in the outlet again: goes on with what waited for it."""
        self.outlet.refused = False
        for channel in self._channels.values():
            channel.pump()
        self._advance()

    def _advance(self) -> None:
        """Handles what has arrived, as long as there is room for the answers."""
        if self.stage is Stage.HEADER:
            self._read_header()
        while self.stage not in (Stage.HEADER, Stage.ENDED) and self.outlet.has_room():
            try:
                frame = cut_frame(self._buffer, self.outlet.frame_max)
            except Fault as fault:
                self._fail(fault)
                self._end()  # where the next frame begins is lost
                return
            if frame is None:
                return
            self._handle(frame)

    def close(self, code: int, text: str) -> None:
        """Sends Connection.Close and gives everything back; before that can be said, just ends."""
        if self.stage is Stage.RUNNING:
            self._fail(Fault(code, text))
        elif self.stage is not Stage.CLOSE_OK:
            self._end()

    def release(self) -> None:
        """Gives back what is unacknowledged; nothing more is delivered here."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.detach()
        queues = {queue for channel in channels.values() for queue in channel.give_back()}
        for queue in queues:
            queue.pump()

    def time_out_consumers(self, seconds: float) -> None:
        """Closes channels that owe an acknowledgement for longer, as RabbitMQ does."""
        for channel in self._channels.values():
            since = channel.oldest()
            if since is not None and self._clock() - since > seconds:
                text = (
                    f"delivery acknowledgement on channel {channel.number} timed out. "
                    f"Timeout value used: {seconds * 1000:.0f} ms. "
                    "This timeout value can be configured, see consumers doc guide to learn more"
                )
                _LOG.info("closing a channel: %s", text)
                self._close_channel(channel, Fault(spec.PRECONDITION_FAILED, text), 0)

    def _read_header(self) -> None:
        if len(self._buffer) < len(HEADER) and HEADER.startswith(self._buffer):
            return
        if not self._buffer.startswith(HEADER):
            self.outlet.out += HEADER
            self._end()
            return
        del self._buffer[: len(HEADER)]
        properties = {
            "product": "bktransport sandbox",
            "capabilities": dict(_CAPABILITIES),
        }
        self.outlet.method(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
        self.stage = Stage.START_OK

    def _handle(self, frame: RawFrame) -> None:
        """Answers one frame; a fault in it ends its channel, the connection, or a bad start."""
        if frame.kind == spec.FRAME_HEARTBEAT and frame.channel == 0:
            return
        if self.stage is Stage.CLOSE_OK:
            self._await_close_ok(frame)
            return
        try:
            if frame.kind == spec.FRAME_HEARTBEAT:
                raise Fault(spec.UNEXPECTED_FRAME, "heartbeat on a channel")
            if frame.channel == 0:
                self._connection_frame(frame)
            elif self.stage is Stage.RUNNING:
                self._channel_frame(frame)
            else:
                raise Fault(spec.COMMAND_INVALID, "a channel before the connection is open")
        except Fault as fault:
            index = index_of(frame.payload) if frame.kind == spec.FRAME_METHOD else 0
            channel = self._channels.get(frame.channel)
            if channel is None or fault.whole:
                self._fail(fault, index)
            else:
                _LOG.info("closing channel %d: %s", frame.channel, ascii(fault.text))
                self._close_channel(channel, fault, index)

    def _await_close_ok(self, frame: RawFrame) -> None:
        if frame.kind != spec.FRAME_METHOD or frame.channel != 0:
            return
        if index_of(frame.payload) == spec.Connection.CloseOk.INDEX:
            self._end()
        elif index_of(frame.payload) == spec.Connection.Close.INDEX:
            self.outlet.method(0, spec.Connection.CloseOk())  # both closed at the same time
            self._end()

    def _connection_frame(self, frame: RawFrame) -> None:
        if frame.kind != spec.FRAME_METHOD:
            raise Fault(spec.UNEXPECTED_FRAME, "content on channel 0")
        index = index_of(frame.payload)
        if index == spec.Connection.Close.INDEX and self.stage > Stage.START_OK:
            self.outlet.method(0, spec.Connection.CloseOk())
            self._end()
            return
        if index != _AWAITED.get(self.stage):
            raise Fault(spec.CHANNEL_ERROR, f"unexpected method in state {self.stage.name.lower()}")
        method = decode_method(frame.payload)
        if self.stage is Stage.START_OK:
            self._start_ok(method)
        elif self.stage is Stage.TUNE_OK:
            self._tune_ok(method)
        else:
            self._open(method)

    def _start_ok(self, method: Any) -> None:
        if method.mechanism != "PLAIN":
            raise Fault(spec.COMMAND_INVALID, "unknown authentication mechanism")
        parts = method.response.split(b"\0")
        leaf_id = self._directory.authenticate(*parts[1:]) if len(parts) == 3 else None
        if leaf_id is None:
            self._refuse_login(method.client_properties)
            return
        self._leaf = Leaf(self._directory, "", leaf_id)
        self.outlet.method(0, spec.Connection.Tune(_CHANNEL_MAX, FRAME_MAX, self._offered))
        self.stage = Stage.TUNE_OK

    def _refuse_login(self, client: dict[Any, Any]) -> None:
        _LOG.info("refused a login")
        capabilities = client.get("capabilities")
        told = isinstance(capabilities, dict) and capabilities.get("authentication_failure_close")
        if told is True:
            self._say_goodbye(Fault(spec.ACCESS_REFUSED, _LOGIN_REFUSED), 0)
        else:
            self._end()

    def _tune_ok(self, method: Any) -> None:
        self._channel_max = _agreed("channel_max", method.channel_max, 1, _CHANNEL_MAX)
        self.outlet.frame_max = _agreed("frame_max", method.frame_max, _FRAME_MIN, FRAME_MAX)
        self.heartbeat = method.heartbeat
        self.stage = Stage.OPEN

    def _open(self, method: Any) -> None:
        tree_id, leaf_id = method.virtual_host, self._leaf.leaf_id
        if not self._directory.has_tree(tree_id):
            raise Fault(spec.NOT_ALLOWED, f"vhost {tree_id!s:.80} not found")
        if not self._directory.may_enter(leaf_id, tree_id):
            text = f"access to vhost {tree_id!a:.82} refused for user {leaf_id!a:.82}"
            raise Fault(spec.NOT_ALLOWED, text)
        self._leaf = Leaf(self._directory, tree_id, leaf_id)
        self.outlet.method(0, spec.Connection.OpenOk())
        self.stage = Stage.RUNNING

    def _channel_frame(self, frame: RawFrame) -> None:
        channel = self._channels.get(frame.channel)
        is_method = frame.kind == spec.FRAME_METHOD
        index = index_of(frame.payload) if is_method else 0
        if channel is None:
            self._open_channel(frame.channel, index)
        elif index == spec.Channel.Close.INDEX:
            self.outlet.method(frame.channel, spec.Channel.CloseOk())
            self._release_channel(self._channels.pop(frame.channel))
        elif channel.closing:
            if index == spec.Channel.CloseOk.INDEX:
                del self._channels[frame.channel]
        elif not is_method:
            raise Fault(spec.UNEXPECTED_FRAME, "content that no method announced")
        else:
            channel.handle(decode_method(frame.payload))

    def _open_channel(self, number: int, index: int) -> None:
        if index == spec.Channel.CloseOk.INDEX:  # to a Close that crossed the client's own
            return
        if index != spec.Channel.Open.INDEX:
            raise Fault(spec.CHANNEL_ERROR, "expected 'channel.open'")
        if number > self._channel_max:
            raise Fault(spec.NOT_ALLOWED, f"channel {number} is over {self._channel_max}")
        self._channels[number] = Channel(number, self._leaf, self.outlet, self._clock)
        self.outlet.method(number, spec.Channel.OpenOk())

    def _close_channel(self, channel: Channel, fault: Fault, index: int) -> None:
        channel.closing = True
        close = spec.Channel.Close(fault.code, fault.text, index >> 16, index & 0xFFFF)
        self.outlet.method(channel.number, close)
        self._release_channel(channel)

    def _release_channel(self, channel: Channel) -> None:
        channel.detach()
        for queue in channel.give_back():
            queue.pump()

    def _fail(self, fault: Fault, index: int = 0) -> None:
        """Ends the connection over a fault; with a goodbye if the client has proved who it is."""
        _LOG.info("closing a connection: %s", ascii(fault.text))
        if self.stage >= Stage.OPEN:
            self._say_goodbye(fault, index)
        else:
            self._end()

    def _say_goodbye(self, fault: Fault, index: int) -> None:
        close = spec.Connection.Close(fault.code, fault.text, index >> 16, index & 0xFFFF)
        self.outlet.method(0, close)
        self.stage = Stage.CLOSE_OK
        self.release()

    def _end(self) -> None:
        self.stage = Stage.ENDED
        self._buffer.clear()
        self.release()


def _agreed(what: str, asked: int, least: int, most: int) -> int:
    """What a client asks for in Connection.TuneOk, where it is within bounds.

    Raises:
        Fault: it is not.
    """
    if not least <= asked <= most:
        raise Fault(spec.NOT_ALLOWED, f"negotiated {what} = {asked} is not in {least} to {most}")
    return asked


_AWAITED: dict[Stage, int] = {
    Stage.START_OK: spec.Connection.StartOk.INDEX,
    Stage.TUNE_OK: spec.Connection.TuneOk.INDEX,
    Stage.OPEN: spec.Connection.Open.INDEX,
}
