"""What faults are put into: valid updates in the making, and valid files taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bkformat import assembler as asm
from bkformat.load import Update
from bkformat.npy import read_header
from bkformat.opcodes import op
from bkformat.source import BytesSource
from bkformat.strategies.files import ASSEMBLED, array_part
from bkformat.strategies.updates import updates
from bkformat.stream import OpcodeStream

__all__ = [
    "ANY",
    "FAULTS",
    "PROTOCOL_3",
    "PROTOCOL_4",
    "SMALL",
    "Base",
    "Fault",
    "Opcodes",
    "draw_base",
    "draw_opcodes",
    "fault",
]

Fault = Callable[[st.DrawFn], bytes]

FAULTS: dict[str, list[Fault]] = {}
"""Ways to break each rule, by its code: each gives a file that breaks no other."""


def fault(code: str) -> Callable[[Fault], Fault]:
    """Register a function that draws files with the fault of this code."""

    def register(function: Fault) -> Fault:
        FAULTS.setdefault(code, []).append(function)
        return function

    return register


ANY = ("D", "E", "C", "canonical")
PROTOCOL_3 = ("D", "C", "canonical")
PROTOCOL_4 = ("E",)

SMALL = updates(
    max_arrays=3,
    shapes=npst.array_shapes(min_dims=0, max_dims=2, max_side=3),
    orders=["C", "F"],
    strict=True,
)
"""Updates without a fault or a warning."""


class Base(NamedTuple):
    """A valid update in the making, and the place among its arrays where something goes.

    Attributes:
        form: how it is spelled.
        num_samples: samples behind it.
        arrays: its arrays, at least one.
        at: index among them, or their number.
        version: of the .npy header.
    """

    form: asm.Form
    num_samples: int
    arrays: list[asm.Part]
    at: int
    version: tuple[int, int]

    @property
    def parameters(self) -> asm.Part:
        return asm.list_of(*self.arrays)

    @property
    def root(self) -> asm.Part:
        return self.form.update(*self.arrays, num_samples=self.num_samples)

    def file(self, root: asm.Part, shape: str = "(2,)") -> bytes:
        """A file that holds `root`, whose header says `shape`."""
        header = asm.npy_header(shape, version=self.version)
        return self.form.file(root, header=header).data

    def with_count(self, part: asm.Part) -> bytes:
        """The file with a part in place of num_samples."""
        return self.file(self.form.update(*self.arrays, num_samples=part))

    def with_parameters(self, part: asm.Part) -> bytes:
        """The file with a part in place of the list of arrays."""
        return self.file(self.form.outer(asm.list_of(asm.integer(self.num_samples), part)))

    def with_items(self, *parts: asm.Part) -> bytes:
        """The file with parts among its arrays."""
        items = [*self.arrays[: self.at], *parts, *self.arrays[self.at :]]
        return self.file(self.form.update(*items, num_samples=self.num_samples))


def draw_base(draw: st.DrawFn, forms: Sequence[str] = ANY) -> Base:
    """Any base, in one of these forms."""
    form = ASSEMBLED[draw(st.sampled_from(forms))]
    update: Update = draw(SMALL)
    arrays = [array_part(array, form) for array in update.parameters]
    at = draw(st.integers(0, len(arrays)))
    version = draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
    return Base(form, update.num_samples or 1, arrays, at, version)


class Opcodes(NamedTuple):
    """A valid file without frames, taken apart.

    Attributes:
        header: up to the pickle.
        protocol: 3 or 4.
        ops: each opcode with its argument, from the one after PROTO to STOP.
    """

    header: bytes
    protocol: int
    ops: list[bytes]

    @property
    def start(self) -> bytes:
        return self.header + asm.proto(self.protocol)

    def file(self, ops: list[bytes], *, framed: bool = False) -> bytes:
        """The file with these opcodes, if wanted in one frame."""
        body = b"".join(ops)
        return self.start + (asm.frame(len(body)) if framed else b"") + body


def draw_opcodes(
    draw: st.DrawFn,
    forms: Sequence[str] = ANY,
    memo: Sequence[str] = ("all", "used", "none"),
) -> Opcodes:
    """Any base in one of these forms, its memo written in one of these ways, taken apart."""
    base = draw_base(draw, forms)
    header = asm.npy_header(version=base.version)
    how = draw(st.sampled_from(memo))
    data = base.form.file(base.root, header=header, memo=how, frames=False).data
    return Opcodes(header, base.form.protocol, _split(data))


def _split(data: bytes) -> list[bytes]:
    source = BytesSource(data)
    starts = []
    for code, _, offset in OpcodeStream(source, read_header(source).data_offset):
        starts.append(offset)
        if code == op.STOP:
            break
    return [data[start:stop] for start, stop in pairwise([*starts, len(data)])]
