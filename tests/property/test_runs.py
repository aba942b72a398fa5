"""What a run of array records leaves in the memo is what reading them one by one leaves there.

Streams are written value by value, so that every part of a record may be built, with or without a
memo entry, or fetched from any slot that an earlier record wrote.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from . import judging
from .files import asm
from .judging import assert_no_path_matters

_TEXTS = {"f4": 4, "f8": 8, "u1": 1, "c16": 16}
_USUAL_TEXTS = st.sampled_from(["f4", "f8", "f4", "f8", "u1", "c16"])


class Part(NamedTuple):
    """How a value of a record is made: built with or without a memo entry, or fetched.

    Attributes:
        memo: whether it is written to the memo where it is built.
        fetch: which of the slots that fit is fetched, counted from the latest; None to build it.
        anything: fetch from all slots, whatever they hold.
    """

    memo: bool
    fetch: int | None
    anything: bool


USUAL = Part(True, None, False)
BARE = Part(False, None, False)
FETCHED = Part(True, 0, False)


class Record(NamedTuple):
    """One array: how each of its parts is made, and what it holds."""

    zero: Part
    typecode: Part
    arguments: Part
    array: Part
    shape: Part
    payload: Part
    state: Part
    dims: tuple[int, ...]
    text: str
    fortran: bool
    padding: int
    again: int
    whole: Part


class Plan(NamedTuple):
    """A file: its records, and what stands where the count and the parameters should."""

    protocol: int
    put: str
    text: str
    first: tuple[Part, ...]
    records: tuple[Record, ...]
    after: tuple[Part, ...]
    where: str


_parts = st.builds(
    Part,
    st.booleans(),
    st.one_of(st.none(), st.none(), st.integers(0, 12)),
    st.sampled_from([False, False, False, True]),
)
_dims = st.sampled_from([(), (1,), (2,), (5,), (0,), (1, 2), (1, 1, 5), (2, 1, 1, 1), (3, 0)])


def _records(parts: st.SearchStrategy[Part]) -> st.SearchStrategy[Record]:
    return st.builds(
        Record, parts, parts, parts, parts, parts, parts, parts, _dims, _USUAL_TEXTS, st.booleans(),
        st.sampled_from([0, 0, 0, 1, 5, 64, 255]), st.sampled_from([1, 1, 2, 3]), st.just(USUAL),
    )  # fmt: skip


_usual = _records(st.just(USUAL))
_odd = _records(st.one_of(st.just(USUAL), st.just(USUAL), _parts))
_bare = _records(st.just(BARE))
_called = _records(st.just(BARE)).map(lambda record: record._replace(arguments=FETCHED))
_whole = _records(st.just(USUAL)).flatmap(
    lambda record: st.builds(lambda whole: record._replace(whole=whole), _parts)
)
_plans = st.builds(
    Plan,
    st.sampled_from([3, 4]),
    st.sampled_from(["memoize", "binput", "long_binput"]),
    _USUAL_TEXTS,
    st.tuples(
        *[st.one_of(st.just(USUAL), st.builds(Part, st.booleans(), st.none(), st.just(False)))] * 7
    ),
    st.lists(st.one_of(_usual, _usual, _odd, _whole, _bare, _called), min_size=1, max_size=8).map(
        tuple
    ),
    st.lists(_parts, max_size=2).map(tuple),
    st.sampled_from(["parameters", "parameters", "count", "aggregate"]),
)


class _Writer:
    """Writes a plan, and keeps which slot holds what.

    Args:
        plan: what to write.
        more: added to every dimension that is not 0, so that files differ in numbers alone.
    """

    def __init__(self, plan: Plan, more: int = 0) -> None:
        self.plan = plan
        self.more = more
        self.out = bytearray(b"\x80" + bytes([plan.protocol]))
        self.kinds: list[str] = []

    def put(self, kind: str) -> None:
        index = len(self.kinds)
        if self.plan.protocol == 4 and self.plan.put == "memoize":
            self.out += asm.MEMOIZE
        elif self.plan.put == "long_binput" or index > 255:
            self.out += asm.long_binput(index)
        else:
            self.out += asm.binput(index)
        self.kinds.append(kind)

    def get(self, index: int) -> None:
        self.out += asm.binget(index) if index < 256 else asm.long_binget(index)

    def fetched(self, part: Part, kind: str) -> bool:
        """Fetch a value of this kind, if the part says so and there is one."""
        if part.fetch is None:
            return False
        slots = [at for at, held in enumerate(self.kinds) if part.anything or held == kind]
        if not slots:
            return False
        self.get(slots[-1 - part.fetch % len(slots)])
        return True

    def end(self, part: Part, kind: str) -> None:
        if part.memo:
            self.put(kind)

    def numbers(self, dims: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(0, dim + self.more) if dim else 0 for dim in dims)

    def name(self, module: str, name: str) -> None:
        """A name, always in the memo; `get_name` fetches it afterwards."""
        self.out += asm.global_line(module, name)
        self.put(name)

    def get_name(self, name: str) -> None:
        self.get(self.kinds.index(name))

    def call(self, record: Record) -> None:
        self.get_name("_reconstruct")
        if not self.fetched(record.arguments, "arguments"):
            self.get_name("ndarray")
            if not self.fetched(record.zero, "zero"):
                self.out += asm.integer(0) + asm.TUPLE1
                self.end(record.zero, "zero")
            if "typecode" not in self.kinds or record.typecode.fetch is not None:
                self.out += asm.payload(b"b")
                self.end(record.typecode, "typecode")
            else:
                self.get_name("typecode")
            self.out += asm.TUPLE3
            self.end(record.arguments, "arguments")
        self.out += asm.REDUCE
        self.end(record.array, "array")

    def dtype(self, text: str) -> None:
        if text in self.kinds:
            self.get(self.kinds.index(text))
            return
        if "dtype" in self.kinds:
            self.get_name("dtype")
        else:
            self.name("numpy", "dtype")
        self.out += asm.unicode32(text) + asm.FALSE + asm.TRUE + asm.TUPLE3
        self.end(self.plan.first[0], "dtype arguments")
        self.out += asm.REDUCE
        self.put(text)
        order = "|" if text in ("u1", "O8") else "<"
        sizes = asm.integer(-1) * 2 + asm.integer(63 if text == "O8" else 0)
        self.out += asm.MARK + asm.integer(3) + asm.unicode32(order) + asm.NONE * 3 + sizes
        self.out += asm.TUPLE
        self.end(self.plan.first[1], "dtype state")
        self.out += asm.BUILD

    def shape(self, part: Part, dims: tuple[int, ...]) -> None:
        if self.fetched(part, f"shape {dims}"):
            return
        numbers = b"".join(asm.integer(dim) for dim in dims)
        if not dims:
            self.out += asm.EMPTY_TUPLE
            return
        if len(dims) < 4:
            self.out += numbers + bytes([0x84 + len(dims)])
        else:
            self.out += asm.MARK + numbers + asm.TUPLE
        self.end(part, f"shape {dims}")

    def record(self, record: Record) -> None:
        if self.fetched(record.whole, "array"):
            return
        self.call(record)
        dims = self.numbers(record.dims)
        nbytes = prod(dims) * _TEXTS[record.text]
        state = f"state of {nbytes}"
        if not self.fetched(record.state, state):
            version = asm.long1(1, record.padding) if record.padding else asm.integer(1)
            self.out += asm.MARK + version
            self.shape(record.shape, dims)
            self.dtype(record.text)
            self.out += asm.TRUE if record.fortran and len(dims) > 1 else asm.FALSE
            if not self.fetched(record.payload, f"{nbytes} bytes"):
                self.out += asm.payload(b"b" * nbytes)
                self.end(record.payload, f"{nbytes} bytes")
            self.out += asm.TUPLE
            self.end(record.state, state)
        self.out += asm.BUILD

    def first(self) -> None:
        """The first array, after which runs may begin; its values may lack memo entries."""
        zero, arguments, array, shape, payload, state, whole = self.plan.first
        parts = (zero, USUAL, arguments, array, shape, payload, state)
        self.record(Record(*parts, (5,), self.plan.text, False, 0, 1, whole))

    def arrays(self) -> None:
        self.first()
        for record in self.plan.records:
            for _ in range(record.again):
                self.record(record)

    def file(self) -> bytes:
        plan = self.plan
        self.name("numpy.core.multiarray", "_reconstruct")
        self.name("numpy", "ndarray")
        self.out += asm.payload(b"b")
        self.put("typecode")
        start = bytes(self.out[2:])
        # The names above stand on no stack in the end: they are the arguments of the outer call.
        zero = asm.integer(0) + asm.TUPLE1
        self.out[2:] = start.replace(asm.payload(b"b"), zero + asm.payload(b"b"))
        self.out += asm.TUPLE3 + asm.REDUCE + asm.MARK + asm.integer(1)
        items = 2
        if plan.where == "aggregate":
            items = 1 + sum(record.again for record in plan.records) + len(plan.after)
        self.shape(plan.first[6], self.numbers((items,)))
        self.dtype("O8")
        self.out += asm.FALSE + asm.EMPTY_LIST + asm.MARK
        if plan.where == "aggregate":
            self.arrays()
            self.after(plan.after)
        else:
            if plan.where == "parameters":
                self.out += asm.integer(7)
            self.out += asm.EMPTY_LIST + asm.MARK
            self.arrays()
            if plan.where == "parameters":
                self.after(plan.after)
            self.out += asm.APPENDS
            if plan.where == "count":
                self.after((plan.after or (Part(False, 0, True),))[:1])
        self.out += asm.APPENDS + asm.TUPLE + asm.BUILD + asm.STOP
        return bytes(asm.npy_header(f"({items},)")) + bytes(self.out)

    def after(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if not self.fetched(part, "array"):
                self.out += asm.integer(1)


files = _plans.map(lambda plan: _Writer(plan).file())

families = _plans.map(lambda plan: [_Writer(plan, more).file() for more in (0, 1, -1, 2, 40)])
"""Files that differ in their dimensions alone, and so in the sizes of their payloads."""


@settings(max_examples=1000)
@given(files, st.sampled_from(judging.OPTIONS))
def test_every_slot_holds_the_same(data: bytes, options: dict[str, Any]) -> None:
    report = assert_no_path_matters(data, **options)
    event("valid" if report.valid else report.findings[0].code)
