"""Values and the records of numpy as trees of parts.

    array    _reconstruct(ndarray, (0,), b"b") REDUCE; BUILD (1, shape, dtype, is_fortran, bytes)
    outer    the same, with dtype O8 and a list in place of the bytes
    dtype    dtype(text, False, True) REDUCE; BUILD (3, order, None, None, None, -1, -1, flags)

Source: numpy's ndarray.__reduce__ and dtype.__reduce__.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bkformat.assembler.header import npy_header
from bkformat.assembler.opcodes import (
    APPEND,
    APPENDS,
    BUILD,
    EMPTY_LIST,
    EMPTY_TUPLE,
    FALSE,
    MARK,
    NONE,
    REDUCE,
    STACK_GLOBAL,
    STOP,
    TRUE,
    TUPLE,
    TUPLE1,
    TUPLE2,
    TUPLE3,
    global_line,
    integer,
    payload,
    proto,
    unicode8,
    unicode32,
)
from bkformat.assembler.parts import Aligned, Built, Memo, Part, assemble

BATCH = 1000
"""Items that picklers put between one MARK and APPENDS."""

# --- containers ------------------------------------------------------------------------------


def tuple_of(*items: Part) -> Part:
    short = {1: TUPLE1, 2: TUPLE2, 3: TUPLE3}
    if not items:
        return EMPTY_TUPLE
    if len(items) in short:
        return Memo([*items, short[len(items)]])
    return Memo([MARK, *items, TUPLE])


def list_of(*items: Part) -> Part:
    if len(items) == 1:
        return [Memo(EMPTY_LIST), items[0], APPEND]
    batches = [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
    return [Memo(EMPTY_LIST), *([MARK, *batch, APPENDS] for batch in batches)]


def bytes_of(data: bytes) -> Part:
    """A bytes object; CPython has one object for each value of 0 or 1 byte, so those are shared."""
    return Memo(payload(data), ("bytes", data) if len(data) < 2 else None)


def shape_of(*dims: int) -> Part:
    return tuple_of(*(integer(dim) for dim in dims))


_CODES = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B",
          "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}  # fmt: skip


def numbers(text: str, values: Sequence[float]) -> bytes:
    """Little-endian numbers of the dtype that `text` names."""
    return struct.pack(f"<{len(values)}{_CODES[text]}", *values)


def ramp(text: str, count: int) -> bytes:
    """0, 1, 2, ... of the dtype that `text` names; starts again before anything overflows."""
    modulus = 2 if text == "b1" else 100
    return numbers(text, [at % modulus for at in range(count)])


_NONES: Part = [NONE] * 3

# --- the records of numpy --------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How one family of writers spells the records.

    Attributes:
        protocol: 3 names things with GLOBAL, 4 with two texts and STACK_GLOBAL.
        core: the module of _reconstruct and scalar.
        flags: the arguments of dtype after its text.
        padded: whether payloads are aligned by a padded LONG1.
    """

    protocol: int
    core: str
    flags: tuple[bytes, ...] = (FALSE, TRUE)
    padded: bool = False

    def text(self, value: str, key: object = None) -> Part:
        return Memo(unicode8(value) if self.protocol >= 4 else unicode32(value), key)

    def name(self, module: str, name: str) -> Part:
        """The thing of that name in that module."""
        key = ("global", module, name)
        if self.protocol < 4:
            return Memo(global_line(module, name), key)
        names = [self.text(module, ("text", module)), self.text(name, ("text", name))]
        return Memo([names, STACK_GLOBAL], key)

    @property
    def reconstruct(self) -> Part:
        return self.name(self.core, "_reconstruct")

    @property
    def ndarray(self) -> Part:
        return self.name("numpy", "ndarray")

    @property
    def dtype_name(self) -> Part:
        return self.name("numpy", "dtype")

    def call(
        self,
        *,
        function: Part | None = None,
        subtype: Part | None = None,
        zero: Part | None = None,
        typecode: Part | None = None,
    ) -> Part:
        """_reconstruct(ndarray, (0,), b"b"): an array without a state."""
        arguments = tuple_of(
            self.ndarray if subtype is None else subtype,
            shape_of(0) if zero is None else zero,
            bytes_of(b"b") if typecode is None else typecode,
        )
        return [self.reconstruct if function is None else function, arguments, REDUCE]

    def dtype(
        self,
        text: str = "f4",
        *,
        arguments: Part | None = None,
        state: Part | None = None,
        version: int = 3,
        order: Part | None = None,
        nones: Part = _NONES,
        size: int = -1,
        align: int = -1,
        flags: int | None = None,
    ) -> Part:
        """A dtype; one that differs from numpy's in no slot is built once and then fetched."""
        plain = (version, size, align, nones) == (3, -1, -1, _NONES) and flags is None
        plain = plain and arguments is None and state is None and order is None
        if arguments is None:
            arguments = tuple_of(self.text(text), *self.flags)
        if order is None:
            order = self.order("|" if text in ("b1", "i1", "u1", "O8") else "<")
        if flags is None:
            flags = 63 if text == "O8" else 0
        if state is None:
            sizes = [integer(size), integer(align), integer(flags)]
            state = tuple_of(integer(version), order, nones, *sizes)
        key = ("dtype", text) if plain else None
        return Memo([self.dtype_name, arguments, REDUCE], key, [state, BUILD])

    def order(self, sign: str) -> Part:
        """The byte order of a dtype; texts of one letter are shared, as CPython has them."""
        return self.text(sign, ("text", sign))

    def array(
        self,
        shape: Sequence[int] = (2,),
        text: str = "f4",
        data: bytes | None = None,
        *,
        call: Part | None = None,
        version: Part | None = None,
        dims: Part | None = None,
        dtype: Part | None = None,
        fortran: Part = FALSE,
        body: Part | None = None,
        state: Part | None = None,
        key: object = None,
    ) -> Part:
        """One array.

        Args:
            shape: its dimensions.
            text: its dtype.
            data: its bytes; a ramp of the right length unless given.
            call: in place of the call of _reconstruct.
            version: in place of the 1 at the start of the state.
            dims: in place of the shape's tuple.
            dtype: in place of the dtype.
            fortran: in place of the Fortran flag.
            body: in place of the bytes.
            state: in place of the whole state.
            key: arrays of equal keys are one object, fetched from the memo after the first.
        """
        if state is None:
            if data is None and body is None:
                data = ramp(text, _product(shape))
            slots = [
                shape_of(*shape) if dims is None else dims,
                self.dtype(text) if dtype is None else dtype,
                fortran,
            ]
            if body is None:
                body = bytes_of(data or b"")
            state = self._state(version, slots, body, data)
        return Memo(self.call() if call is None else call, key, [state, BUILD])

    def _state(
        self, version: Part | None, slots: list[Part], body: Part, data: bytes | None
    ) -> Part:
        if version is not None or not self.padded or data is None:
            return tuple_of(integer(1) if version is None else version, *slots, body)
        opcode = payload(data)
        head, rest = opcode[: len(opcode) - len(data)], opcode[len(opcode) - len(data) :]
        return Memo([MARK, Aligned([slots, head]), rest, TUPLE])

    def scalar(self, text: str = "f4", data: bytes | None = None) -> Part:
        """A numpy scalar."""
        data = ramp(text, 1) if data is None else data
        arguments = tuple_of(self.dtype(text), bytes_of(data))
        return Memo([self.name(self.core, "scalar"), arguments, REDUCE])

    def outer(
        self,
        items: Part,
        shape: Sequence[int] = (2,),
        *,
        call: Part | None = None,
        version: Part | None = None,
        dtype: Part | None = None,
        fortran: Part = FALSE,
    ) -> Part:
        """The object array around everything; `items` is a list."""
        state = tuple_of(
            integer(1) if version is None else version,
            shape_of(*shape),
            self.dtype("O8") if dtype is None else dtype,
            fortran,
            items,
        )
        return Memo(self.call() if call is None else call, None, [state, BUILD])

    def update(self, *arrays: Part, num_samples: Part | int = 7) -> Part:
        """[num_samples, [array, ...]] as an object array; one array unless some are given."""
        count = integer(num_samples) if isinstance(num_samples, int) else num_samples
        return self.outer(list_of(count, list_of(*(arrays or [self.array()]))))

    def stream(
        self,
        root: Part,
        *,
        offset: int = 0,
        memo: str | None = None,
        frames: bool | None = None,
        end: bytes = STOP,
    ) -> Built:
        """The pickle of `root`, as this form writes it."""
        return assemble(
            [root, end],
            offset=offset,
            protocol=self.protocol,
            memo=("used" if self.padded else "all") if memo is None else memo,
            frames=self.protocol >= 4 if frames is None else frames,
            start=proto(self.protocol),
        )

    def file(
        self,
        root: Part | None = None,
        *,
        header: bytes | None = None,
        shape: str = "(2,)",
        memo: str | None = None,
        frames: bool | None = None,
        end: bytes = STOP,
    ) -> Built:
        """An .npy file; a valid update unless something is replaced."""
        head = npy_header(shape) if header is None else header
        root = self.update() if root is None else root
        built = self.stream(root, offset=len(head), memo=memo, frames=frames, end=end)
        return Built(head + built.data, built.at)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for dim in shape:
        product *= dim
    return product


C = Form(3, "numpy.core.multiarray", (integer(0), integer(1)))
"""numpy 1.17 and 1.18."""

D = Form(3, "numpy.core.multiarray")
"""numpy 1.19 to 1.26."""

E = Form(4, "numpy._core.multiarray")
"""numpy 2."""

CANONICAL = Form(3, "numpy.core.multiarray", padded=True)
"""Loads on every numpy from 1.16; payloads begin at multiples of 64."""
