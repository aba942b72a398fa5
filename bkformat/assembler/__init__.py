r"""Assembles object-array .npy files opcode by opcode, with neither numpy nor pickle.

    header   \x93NUMPY, version, length, {'descr': '|O', 'fortran_order': False, 'shape': (2,), }
    stream   PROTO, (FRAME,) the outer array, STOP

A file is described as a tree of parts. Bytes stand for themselves, a list or tuple for its parts
one after another, and a `Memo` for a value that picklers write to the memo: the same tree gives the
stream with every memo entry, with those alone that are used again, or with none. Each slot of each
record can be replaced by any other part, so that a fault can be put exactly where it should be, and
`At` names a place whose offset is wanted.

A stream of form C, D or E is byte for byte what numpy writes. Nothing of the readers is used here:
the conformance suite is made by this package, and says what they should do.
"""

from bkformat.assembler.header import npy_header, raw_header
from bkformat.assembler.opcodes import (
    ADDITEMS,
    APPEND,
    APPENDS,
    BINPERSID,
    BUILD,
    DICT,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_SET,
    EMPTY_TUPLE,
    FALSE,
    FORBIDDEN,
    FORBIDDEN_IN_3,
    FROZENSET,
    LIST,
    MARK,
    MEMOIZE,
    NEWOBJ,
    NEWOBJ_EX,
    NEXT_BUFFER,
    NONE,
    OBJ,
    POP,
    POP_MARK,
    READONLY_BUFFER,
    REDUCE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
    STOP,
    TRUE,
    TUPLE,
    TUPLE1,
    TUPLE2,
    TUPLE3,
    binget,
    binput,
    frame,
    global_line,
    inst_line,
    integer,
    long1,
    long4,
    long_binget,
    long_binput,
    payload,
    payload64,
    proto,
    real,
    unicode8,
    unicode32,
)
from bkformat.assembler.parts import HERE, Aligned, At, Built, Memo, Part, assemble
from bkformat.assembler.records import (
    CANONICAL,
    C,
    D,
    E,
    Form,
    bytes_of,
    list_of,
    numbers,
    ramp,
    shape_of,
    tuple_of,
)

__all__ = [
    "ADDITEMS", "APPEND", "APPENDS", "BINPERSID", "BUILD", "CANONICAL", "DICT", "DUP",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "FALSE", "FORBIDDEN",
    "FORBIDDEN_IN_3", "FROZENSET", "HERE", "LIST", "MARK", "MEMOIZE", "NEWOBJ", "NEWOBJ_EX",
    "NEXT_BUFFER", "NONE", "OBJ", "POP", "POP_MARK", "READONLY_BUFFER", "REDUCE", "SETITEM",
    "SETITEMS", "STACK_GLOBAL", "STOP", "TRUE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "Aligned", "At", "Built", "C", "D", "E", "Form", "Memo", "Part", "assemble", "binget",
    "binput", "bytes_of", "frame", "global_line", "inst_line", "integer", "list_of", "long1",
    "long4", "long_binget", "long_binput", "npy_header", "numbers", "payload", "payload64",
    "proto", "ramp", "raw_header", "real", "shape_of", "tuple_of", "unicode8", "unicode32",
]  # fmt: skip
