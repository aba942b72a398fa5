"""Faults of the pickle stream: BK2xx.

Most are one opcode or a few among those of a valid file: whatever stands around them, reading stops
there, so they can stand anywhere. Names that are imported are called without arguments at most.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from bkformat import assembler as asm
from bkformat.assembler import breaches
from bkformat.strategies.bases import (
    ANY,
    PROTOCOL_3,
    PROTOCOL_4,
    SMALL,
    Fault,
    Opcodes,
    draw_opcodes,
    fault,
)
from bkformat.strategies.files import FILE_FORMS, build_file

__all__: list[str] = []

_PUTS = (b"q", b"r", asm.MEMOIZE)
# Picklers write neither these nor what they build to the memo.
_VALUELESS = (asm.BUILD, asm.MARK, asm.NONE, asm.TRUE, asm.FALSE, b"K", b"M", b"J", b"\x8a")


def _insert(
    draw: st.DrawFn, taken: Opcodes, part: bytes, *, places: Sequence[int] | None = None
) -> bytes:
    """The file with these bytes before an opcode, at one of the places if any are given."""
    places = range(len(taken.ops)) if places is None else places
    at = draw(st.sampled_from(places))
    framed = taken.protocol >= 4 and draw(st.booleans())
    return taken.file([*taken.ops[:at], part, *taken.ops[at:]], framed=framed)


# --- the protocol ----------------------------------------------------------------------------


def _of_protocol(*numbers: int) -> Fault:
    def draw_file(draw: st.DrawFn) -> bytes:
        taken = draw_opcodes(draw, PROTOCOL_3)
        return taken._replace(protocol=draw(st.sampled_from(numbers))).file(taken.ops)

    return draw_file


for _code, _numbers in {
    "BK201": (0, 1),
    "BK202": (2,),
    "BK204": (5,),
    "BK205": tuple(range(6, 256)),
}.items():
    fault(_code)(_of_protocol(*_numbers))


@fault("BK201")
def _without_proto(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, PROTOCOL_3)
    return taken.header + b"".join(taken.ops)


@fault("BK205")
def _numbers_as_pickle(draw: st.DrawFn) -> bytes:
    first = draw(st.sampled_from([0x00, 0x2E, 0x3F, 0x40, 0x95, 0xC0, 0xFF]))
    return draw_opcodes(draw).header + bytes([first]) + draw(st.binary(max_size=20))


# --- names -----------------------------------------------------------------------------------


def _naming(*names: tuple[str, str]) -> Fault:
    def draw_file(draw: st.DrawFn) -> bytes:
        taken = draw_opcodes(draw)
        form = asm.E if taken.protocol >= 4 and draw(st.booleans()) else asm.D
        part = breaches.call(form, *draw(st.sampled_from(names)))
        return _insert(draw, taken, asm.assemble(part, memo="none").data)

    return draw_file


fault("BK203")(_naming(*breaches.FOREIGN.values()))
for _code in ("BK222", "BK223", "BK224", "BK225"):
    _named = [pair for title, pair in breaches.HONEST.items() if title.startswith(_code)]
    fault(_code)(_naming(*_named))


@fault("BK220")
def _name_of_odd_letters(draw: st.DrawFn) -> bytes:
    names = ["numpy", "dtype"]
    which = draw(st.integers(0, 1))
    at = draw(st.integers(0, len(names[which])))
    odd = draw(st.sampled_from([" ", "\r", "\0", "-", "\uff44", "x" * 128]))
    names[which] = names[which][:at] + odd + names[which][at:]
    return _insert(draw, draw_opcodes(draw), asm.global_line(*names))


@fault("BK220")
def _name_of_nothing(draw: st.DrawFn) -> bytes:
    names = draw(st.sampled_from([("", "dtype"), ("numpy", ""), ("1umpy", "dtype")]))
    return _insert(draw, draw_opcodes(draw), asm.global_line(*names))


@fault("BK220")
def _name_of_another_type(draw: st.DrawFn) -> bytes:
    text, other = asm.unicode8("numpy"), draw(st.sampled_from([b"K\7", b"C\5dtype", asm.NONE]))
    pair = draw(st.permutations([text, other]))
    part = b"".join(pair) + asm.STACK_GLOBAL
    return _insert(draw, draw_opcodes(draw, PROTOCOL_4), part)


# --- opcodes and their arguments -------------------------------------------------------------


@fault("BK206")
def _forbidden(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    opcodes = dict(asm.FORBIDDEN)
    if taken.protocol == 3:
        opcodes |= asm.FORBIDDEN_IN_3
    name = draw(st.sampled_from(sorted(opcodes)))
    # Opcodes that call something take no more than the nothing behind this MARK.
    return _insert(draw, taken, asm.MARK + opcodes[name])


@fault("BK218")
def _large_integer(draw: st.DrawFn) -> bytes:
    large = st.integers(2**63, 2**2000) | st.integers(-(2**2000), -(2**63) - 1)
    part = draw(large.map(asm.long1) | st.integers().map(asm.long4))
    return _insert(draw, draw_opcodes(draw), part)


@fault("BK219")
def _text(draw: st.DrawFn) -> bytes:
    odd = draw(st.sampled_from(["\n", "\0", "\x7f", "\u0443", "\xe9", "a" * 257]))
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
    text = draw(printable) + odd + draw(printable)
    short = draw(st.booleans()) and len(text.encode()) < 256
    taken = draw_opcodes(draw, PROTOCOL_4 if short else ANY)
    return _insert(draw, taken, asm.unicode8(text) if short else asm.unicode32(text))


@fault("BK221")
def _nesting(draw: st.DrawFn) -> bytes:
    depth = draw(st.integers(10, 50))
    lists = asm.EMPTY_LIST * depth + asm.APPEND * (depth - 1)
    tuples = asm.EMPTY_TUPLE + asm.TUPLE1 * depth
    return _insert(
        draw, draw_opcodes(draw), draw(st.sampled_from([lists, tuples, asm.MARK * depth]))
    )


# --- ends, lengths, frames -------------------------------------------------------------------


@fault("BK207")
def _cut(draw: st.DrawFn) -> bytes:
    """Cut between two opcodes, or behind the first byte of one."""
    taken = draw_opcodes(draw)
    keep = draw(st.integers(0, len(taken.ops) - 1))
    inside = draw(st.booleans()) and len(taken.ops[keep]) > 1
    return taken.file([*taken.ops[:keep], taken.ops[keep][: 1 if inside else 0]])


@fault("BK207")
def _cut_in_proto(draw: st.DrawFn) -> bytes:
    return draw_opcodes(draw).header + b"\x80"


@fault("BK208")
def _trailing(draw: st.DrawFn) -> bytes:
    data = draw(st.builds(build_file, SMALL, st.sampled_from(FILE_FORMS)))
    again = st.sampled_from([asm.STOP, data, data[128:], b"PK\5\6" + bytes(18)])
    return data + draw(st.binary(min_size=1, max_size=20) | again)


_HEADS = {b"C": 2, b"B": 5, b"\x8e": 9}


def _payloads(taken: Opcodes) -> list[int]:
    """Indexes of the opcodes that name bytes, of which there is at least one."""
    heads = [(at, _HEADS.get(op[:1])) for at, op in enumerate(taken.ops)]
    return [at for at, head in heads if head is not None and len(taken.ops[at]) > head]


@fault("BK209")
def _cut_in_payload(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    at = draw(st.sampled_from(_payloads(taken)))
    opcode = taken.ops[at]
    stop = draw(st.integers(_HEADS[opcode[:1]], len(opcode) - 1))
    return taken.file([*taken.ops[:at], opcode[:stop]])


@fault("BK209")
def _lying_length(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    at = draw(st.sampled_from(_payloads(taken)))
    data = taken.ops[at][_HEADS[taken.ops[at][:1]] :]
    if taken.protocol >= 4 and draw(st.booleans()):
        head = b"\x8e" + draw(st.integers(2**20, 2**64 - 1)).to_bytes(8, "little")
    else:
        head = b"B" + draw(st.integers(2**20, 2**32 - 1)).to_bytes(4, "little")
    return taken.file([*taken.ops[:at], head + data, *taken.ops[at + 1 :]])


def _from(draw: st.DrawFn, taken: Opcodes) -> tuple[list[bytes], list[bytes]]:
    """The opcodes before some place, and those from there on, of which there is at least one."""
    at = draw(st.integers(0, len(taken.ops) - 1))
    return taken.ops[:at], taken.ops[at:]


@fault("BK210")
def _frame_past_end(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, PROTOCOL_4)
    before, after = _from(draw, taken)
    length = draw(st.integers(len(b"".join(after)) + 1, 2**64 - 1))
    return taken.file([*before, asm.frame(length), *after])


@fault("BK211")
def _frame_straddled(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, PROTOCOL_4)
    long = [at for at, op in enumerate(taken.ops) if len(op) > 1]
    last = draw(st.sampled_from(long))
    start = draw(st.integers(0, last))
    inside = draw(st.integers(1, len(taken.ops[last]) - 1))
    length = len(b"".join(taken.ops[start:last])) + inside
    return taken.file([*taken.ops[:start], asm.frame(length), *taken.ops[start:]])


@fault("BK212")
def _frame_nested(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, PROTOCOL_4)
    before, after = _from(draw, taken)
    at = draw(st.integers(0, len(after) - 1))
    inner = asm.frame(draw(st.integers(1, len(b"".join(after[at:])))))
    outer = asm.frame(len(b"".join(after)) + len(inner))
    return taken.file([*before, outer, *after[:at], inner, *after[at:]])


@fault("BK213")
def _frame_empty(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, PROTOCOL_4)
    before, after = _from(draw, taken)
    return taken.file([*before, asm.frame(0), *after])


# --- the memo --------------------------------------------------------------------------------


@fault("BK214")
def _slot_written_again(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw, memo=("all", "used"))
    puts = [at for at, op in enumerate(taken.ops) if op[:1] in _PUTS]
    which = draw(st.integers(0, len(puts) - 1))
    slot = draw(st.integers(0, which))
    put = draw(st.sampled_from([asm.binput(slot), asm.long_binput(slot)]))
    places = range(puts[which] + 1, len(taken.ops))
    return _insert(draw, taken, asm.payload(b"x") + put, places=places)


@fault("BK215")
def _slot_never_written(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    slot = draw(st.integers(len(taken.ops), 2**32 - 1))
    return _insert(draw, taken, asm.binget(slot) if slot < 256 else asm.long_binget(slot))


@fault("BK216")
def _slot_far_ahead(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    slot = draw(st.integers(len(taken.ops) + 2, 2**32 - 1))
    put = asm.binput(slot) if slot < 256 else asm.long_binput(slot)
    return _insert(draw, taken, asm.payload(b"x") + put)


@fault("BK217")
def _put_misplaced(draw: st.DrawFn) -> bytes:
    taken = draw_opcodes(draw)
    puts = [asm.binput(0), asm.long_binput(0)] + [asm.MEMOIZE] * (taken.protocol >= 4)
    places = [at for at, op in enumerate(taken.ops, 1) if op[:1] in _VALUELESS]
    return _insert(draw, taken, draw(st.sampled_from(puts)), places=places)
