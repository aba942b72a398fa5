"""The opcodes of protocols 0 to 5, as bytes.

Source: Lib/pickletools.py.
"""

from __future__ import annotations

import struct

# --- opcodes without an argument -------------------------------------------------------------

MARK = b"("
EMPTY_TUPLE = b")"
STOP = b"."
POP = b"0"
POP_MARK = b"1"
DUP = b"2"
NONE = b"N"
REDUCE = b"R"
EMPTY_LIST = b"]"
APPEND = b"a"
BUILD = b"b"
DICT = b"d"
APPENDS = b"e"
LIST = b"l"
OBJ = b"o"
BINPERSID = b"Q"
SETITEM = b"s"
TUPLE = b"t"
SETITEMS = b"u"
EMPTY_DICT = b"}"
NEWOBJ = b"\x81"
TUPLE1 = b"\x85"
TUPLE2 = b"\x86"
TUPLE3 = b"\x87"
TRUE = b"\x88"
FALSE = b"\x89"
EMPTY_SET = b"\x8f"
ADDITEMS = b"\x90"
FROZENSET = b"\x91"
NEWOBJ_EX = b"\x92"
STACK_GLOBAL = b"\x93"
MEMOIZE = b"\x94"
NEXT_BUFFER = b"\x97"
READONLY_BUFFER = b"\x98"

# --- opcodes with an argument ----------------------------------------------------------------


def proto(number: int) -> bytes:
    return b"\x80" + bytes([number])


def frame(nbytes: int) -> bytes:
    return b"\x95" + struct.pack("<Q", nbytes)


def integer(value: int) -> bytes:
    """The shortest of BININT1, BININT2, BININT and LONG1, as picklers choose it."""
    if 0 <= value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if 0 <= value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return long1(value)


def long1(value: int, nbytes: int = 0) -> bytes:
    """LONG1 of `nbytes` bytes, or of as few as the value needs."""
    nbytes = nbytes or value.bit_length() // 8 + 1
    return b"\x8a" + bytes([nbytes]) + value.to_bytes(nbytes, "little", signed=True)


def long4(value: int) -> bytes:
    nbytes = value.bit_length() // 8 + 1
    return b"\x8b" + struct.pack("<i", nbytes) + value.to_bytes(nbytes, "little", signed=True)


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def unicode32(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def unicode8(value: str) -> bytes:
    encoded = value.encode()
    return b"\x8c" + bytes([len(encoded)]) + encoded


def payload(data: bytes) -> bytes:
    """SHORT_BINBYTES or BINBYTES, as picklers choose it."""
    if len(data) < 256:
        return b"C" + bytes([len(data)]) + data
    return b"B" + struct.pack("<I", len(data)) + data


def payload64(data: bytes) -> bytes:
    """BINBYTES8, which picklers use past 4 GiB."""
    return b"\x8e" + struct.pack("<Q", len(data)) + data


def global_line(module: str | bytes, name: str | bytes) -> bytes:
    """GLOBAL: two lines of text."""
    lines = (part.encode() if isinstance(part, str) else part for part in (module, name))
    return b"c" + b"".join(line + b"\n" for line in lines)


def inst_line(module: str, name: str) -> bytes:
    """INST: calls what it names with everything since MARK."""
    return b"i" + f"{module}\n{name}\n".encode()


def binput(index: int) -> bytes:
    return b"q" + bytes([index])


def long_binput(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def binget(index: int) -> bytes:
    return b"h" + bytes([index])


def long_binget(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


FORBIDDEN: dict[str, bytes] = {
    "POP": POP, "POP_MARK": POP_MARK, "DUP": DUP, "FLOAT": b"F1.0\n", "INT": b"I1\n",
    "LONG": b"L1L\n", "PERSID": b"Pmarker\n", "BINPERSID": BINPERSID, "STRING": b"S'a'\n",
    "BINSTRING": b"T\1\0\0\0a", "SHORT_BINSTRING": b"U\1a", "UNICODE": b"Va\n", "DICT": DICT,
    "GET": b"g0\n", "INST": inst_line("os", "mkdir"), "LIST": LIST, "OBJ": OBJ, "PUT": b"p0\n",
    "SETITEM": SETITEM, "SETITEMS": SETITEMS, "PROTO": proto(4), "NEWOBJ": NEWOBJ,
    "EXT1": b"\x82\1", "EXT2": b"\x83\1\0", "EXT4": b"\x84\1\0\0\0",
    "BINUNICODE8": b"\x8d\1\0\0\0\0\0\0\0a", "EMPTY_SET": EMPTY_SET, "ADDITEMS": ADDITEMS,
    "FROZENSET": FROZENSET, "NEWOBJ_EX": NEWOBJ_EX, "BYTEARRAY8": b"\x96\1\0\0\0\0\0\0\0a",
    "NEXT_BUFFER": NEXT_BUFFER, "READONLY_BUFFER": READONLY_BUFFER, "unknown": b"\xff",
}  # fmt: skip
"""An opcode for each that no update holds in any protocol, with an argument where it has one."""

FORBIDDEN_IN_3: dict[str, bytes] = {
    "SHORT_BINUNICODE": unicode8("f4"), "BINBYTES8": payload64(b"b"), "STACK_GLOBAL": STACK_GLOBAL,
    "MEMOIZE": MEMOIZE, "FRAME": frame(1),
}  # fmt: skip
"""Those that belong to protocol 4."""
