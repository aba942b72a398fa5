"""The opcodes by name.

Source: Lib/pickletools.py.
"""

from __future__ import annotations

__all__ = ["OTHER_NAMES", "legacy_op", "op"]


class op:  # noqa: N801  (a namespace of constants, written op.BUILD)
    """The opcodes that an update may hold, by their names in pickletools."""

    MARK = 0x28
    EMPTY_TUPLE = 0x29
    STOP = 0x2E
    BINBYTES = 0x42
    SHORT_BINBYTES = 0x43
    BINFLOAT = 0x47
    BININT = 0x4A
    BININT1 = 0x4B
    BININT2 = 0x4D
    NONE = 0x4E
    REDUCE = 0x52
    BINUNICODE = 0x58
    EMPTY_LIST = 0x5D
    APPEND = 0x61
    BUILD = 0x62
    GLOBAL = 0x63
    APPENDS = 0x65
    BINGET = 0x68
    LONG_BINGET = 0x6A
    BINPUT = 0x71
    LONG_BINPUT = 0x72
    TUPLE = 0x74
    EMPTY_DICT = 0x7D
    PROTO = 0x80
    TUPLE1 = 0x85
    TUPLE2 = 0x86
    TUPLE3 = 0x87
    NEWTRUE = 0x88
    NEWFALSE = 0x89
    LONG1 = 0x8A
    LONG4 = 0x8B
    SHORT_BINUNICODE = 0x8C
    BINBYTES8 = 0x8E
    STACK_GLOBAL = 0x93
    MEMOIZE = 0x94
    FRAME = 0x95


class legacy_op:  # noqa: N801  (as above)
    """Those that only files of protocol 2 hold, which are repaired but never valid."""

    INT = 0x49
    BINSTRING = 0x54
    SHORT_BINSTRING = 0x55


OTHER_NAMES = {
    0x30: "POP", 0x31: "POP_MARK", 0x32: "DUP", 0x46: "FLOAT", 0x49: "INT", 0x4C: "LONG",
    0x50: "PERSID", 0x51: "BINPERSID", 0x53: "STRING", 0x54: "BINSTRING", 0x55: "SHORT_BINSTRING",
    0x56: "UNICODE", 0x64: "DICT", 0x67: "GET", 0x69: "INST", 0x6C: "LIST", 0x6F: "OBJ",
    0x70: "PUT", 0x73: "SETITEM", 0x75: "SETITEMS", 0x80: "PROTO", 0x81: "NEWOBJ", 0x82: "EXT1",
    0x83: "EXT2", 0x84: "EXT4", 0x8C: "SHORT_BINUNICODE", 0x8D: "BINUNICODE8", 0x8E: "BINBYTES8",
    0x8F: "EMPTY_SET", 0x90: "ADDITEMS", 0x91: "FROZENSET", 0x92: "NEWOBJ_EX",
    0x93: "STACK_GLOBAL", 0x94: "MEMOIZE", 0x95: "FRAME", 0x96: "BYTEARRAY8", 0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}  # fmt: skip
"""Opcodes that a protocol's table may lack, for messages alone."""
