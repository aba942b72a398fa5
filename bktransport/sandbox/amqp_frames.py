"""AMQP 0-9-1 frames: bytes to pika's method objects and back, within limits.

    octet  0       type: 1 method, 2 content header, 3 body, 8 heartbeat
    octets 1 to 2  channel
    octets 3 to 6  size of the payload, at most frame_max - 8
    then           the payload and the octet 0xCE

pika's codec does the payloads. What is cut here is what it leaves to its caller: a size is judged
before the payload is waited for, and whatever a stranger's bytes raise inside it is one exception.

Source: AMQP 0-9-1 section 4.2; reply codes and their scope: section 1.2.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from pika import data, exceptions, frame, spec

__all__ = [
    "FRAME_MAX",
    "HEADER",
    "INITIAL_FRAME_MAX",
    "Fault",
    "Outlet",
    "RawFrame",
    "cut_frame",
    "decode_method",
    "index_of",
]

HEADER = b"AMQP\x00\x00\x09\x01"
FRAME_MAX = 131072  # bytes, as RabbitMQ offers
INITIAL_FRAME_MAX = 8192  # bytes, until the client has proved who it is (RabbitMQ 4.1 does so)
HIGH_WATER = 1 << 20  # bytes waiting to be sent: from here on nothing is read or delivered

_START = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HxxQ")
_PROPERTIES = b"".join(
    spec.BasicProperties(content_type="application/json", delivery_mode=2).encode()
)
_END = bytes([spec.FRAME_END])
_AROUND = _START.size + 1  # octets of a frame besides its payload
_TYPES = {spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY, spec.FRAME_HEARTBEAT}
_CHANNEL_CODES = {
    spec.ACCESS_REFUSED, spec.NOT_FOUND, spec.RESOURCE_LOCKED, spec.PRECONDITION_FAILED,
}  # fmt: skip
_NAMES: dict[int, str] = {
    spec.CONNECTION_FORCED: "CONNECTION_FORCED",
    spec.ACCESS_REFUSED: "ACCESS_REFUSED",
    spec.NOT_FOUND: "NOT_FOUND",
    spec.PRECONDITION_FAILED: "PRECONDITION_FAILED",
    spec.FRAME_ERROR: "FRAME_ERROR",
    spec.SYNTAX_ERROR: "SYNTAX_ERROR",
    spec.COMMAND_INVALID: "COMMAND_INVALID",
    spec.CHANNEL_ERROR: "CHANNEL_ERROR",
    spec.UNEXPECTED_FRAME: "UNEXPECTED_FRAME",
    spec.NOT_ALLOWED: "NOT_ALLOWED",
    spec.NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    spec.INTERNAL_ERROR: "INTERNAL_ERROR",
}
# What pika's decoders raise for bytes that are not what they say: there is no common ancestor.
_UNDECODABLE = (
    struct.error, LookupError, ValueError, TypeError, ArithmeticError, OSError, RecursionError,
    exceptions.AMQPError,
)  # fmt: skip


class Fault(Exception):  # noqa: N818  it ends a channel or a connection, and never leaves the broker
    """What a client did that AMQP answers with Channel.Close or Connection.Close.

    Attributes:
        code: of the reply, such as 404.
        text: of the reply: the code's name and what happened, at most 255 bytes.
        whole: the connection ends with it, not the channel alone.
    """

    def __init__(self, code: int, text: str) -> None:
        whole_text = f"{_NAMES[code]} - {text}"
        self.code = code
        self.text = whole_text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")
        self.whole = code not in _CHANNEL_CODES
        super().__init__(self.text)


class RawFrame(NamedTuple):
    """A frame whose payload nobody has looked at."""

    kind: int
    channel: int
    payload: bytes


def cut_frame(buffer: bytearray, frame_max: int) -> RawFrame | None:
    """Takes the first frame off the buffer, or None where it is not whole yet.

    Raises:
        Fault: an unknown type, a size over the limit, or no end marker.
    """
    if len(buffer) < _START.size:
        return None
    kind, channel, size = _START.unpack_from(buffer)
    if kind not in _TYPES:
        raise Fault(spec.FRAME_ERROR, f"frame of unknown type {kind}")
    if size > frame_max - _AROUND:
        raise Fault(spec.FRAME_ERROR, f"frame of {size} bytes, over {frame_max - _AROUND}")
    end = _START.size + size
    if len(buffer) <= end:
        return None
    if buffer[end] != spec.FRAME_END:
        raise Fault(spec.FRAME_ERROR, "no end marker after the payload")
    payload = bytes(buffer[_START.size : end])
    del buffer[: end + 1]
    return RawFrame(kind, channel, payload)


def index_of(payload: bytes) -> int:
    """The class and method id of a method frame, as in pika's `INDEX`; 0 for too short a one."""
    return int.from_bytes(payload[:4], "big") if len(payload) >= 4 else 0


def decode_method(payload: bytes) -> Any:
    """The method of a method frame.

    Never log it whole: its repr shows every field, and the response of Connection.StartOk is the
    password.

    Raises:
        Fault: no such method, or fields that can't be read.
    """
    index = index_of(payload)
    if index not in spec.methods:
        raise Fault(spec.NOT_IMPLEMENTED, f"unknown method {index >> 16}.{index & 0xFFFF}")
    try:
        if index == spec.Connection.StartOk.INDEX:
            return _start_ok(payload)
        return spec.methods[index]().decode(payload, 4)
    except _UNDECODABLE:
        # Not chained: the cause may quote the bytes, and with them a password.
        raise Fault(spec.FRAME_ERROR, "cannot decode the fields of a method") from None


def _start_ok(payload: bytes) -> Any:
    """Connection.StartOk with its response as bytes; pika's own gives the repr of the bytes."""
    properties, offset = data.decode_table(payload, 4)
    mechanism, offset = data.decode_short_string(payload, offset)
    (length,) = struct.unpack_from(">I", payload, offset)
    offset += 4
    response = payload[offset : offset + length]
    locale, _ = data.decode_short_string(payload, offset + length)
    return spec.Connection.StartOk(properties, mechanism, response, locale)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _START.pack(kind, channel, len(payload)) + payload + _END


class Outlet:
    """What waits to be sent to one client.

    Attributes:
        out: the bytes; whoever sends them deletes them.
        frame_max: bytes a frame may have, its ends included.
        refused: something waits for room; whoever makes it sees to that.
    """

    def __init__(self) -> None:
        self.out = bytearray()
        self.frame_max = INITIAL_FRAME_MAX
        self.refused = False

    def has_room(self) -> bool:
        """Whether more may be begun; whoever is refused is to be asked again by `refused`."""
        if len(self.out) < HIGH_WATER:
            return True
        self.refused = True
        return False

    def method(self, channel: int, method: Any) -> None:
        """Appends a method frame."""
        self.out += frame.Method(channel, method).marshal()

    def content(self, channel: int, method: Any, body: bytes) -> None:
        """Appends a method with its header and its body in as many frames as it takes."""
        self.method(channel, method)
        header = _CONTENT.pack(spec.Basic.INDEX, len(body)) + _PROPERTIES
        self.out += _frame(spec.FRAME_HEADER, channel, header)
        step = self.frame_max - _AROUND
        for at in range(0, len(body), step):
            self.out += _frame(spec.FRAME_BODY, channel, body[at : at + step])

    def heartbeat(self) -> None:
        """Appends a heartbeat."""
        self.out += frame.Heartbeat().marshal()
