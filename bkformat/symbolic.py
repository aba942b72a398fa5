"""Stage 3: opcodes -> what the pickle would build, run on a stack of symbols.

The grammar of every accepted form:

    array   _reconstruct(ndarray, (0,), b"b") REDUCE; BUILD (1, shape, dtype, is_fortran, bytes)
    outer   the same, with dtype O8 and a list in place of the bytes
    dtype   dtype(text, False, True) REDUCE; BUILD (3, order, None, None, None, -1, -1, flags)
            (protocol 3: also (text, 0, 1); flags 63 for O8, 0 for numbers)
    scalar  scalar(dtype, bytes) REDUCE: refused later, but understood

Nothing is imported, called or built. Names come from literal texts on the stack, so it does not
matter how they got there. Lists and unfinished objects can't be fetched from the memo, so nothing
ever refers to itself, and nesting is counted as it grows.
Source: numpy ndarray.__reduce__, dtype.__reduce__; Lib/pickle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, ClassVar, Literal, NoReturn

from bkformat import rules
from bkformat.allowed import ALLOWED_GLOBALS, refuse_global
from bkformat.arrays import ArrayLayout, judge_shape
from bkformat.dtypes import parse_dtype, refusal
from bkformat.findings import Rejected, quoted
from bkformat.opcodes import legacy_op, op
from bkformat.record_forms import NO_PUT, Names
from bkformat.records import RecordReader, Run
from bkformat.rules import Rule
from bkformat.source import Source
from bkformat.stream import OPCODES_PER_ARRAY, TABLES, OpcodeStream, Span, Table
from bkformat.symbols import (
    DType,
    Global,
    NumpyScalar,
    ObjectArray,
    Pair,
    PendingArray,
    PyList,
    PyTuple,
    describe,
)

__all__ = ["MAX_ITEMS", "SymbolicUnpickler"]

MAX_ITEMS = 1_000_000
"""Values on one level of the stack, so also arrays in one list."""

_MAX_DEPTH = 8
"""Marks, and containers inside containers; an update needs 4."""

# What picklers write to the memo: containers, texts, bytes, names and results; never numbers.
_MEMOIZED = frozenset({
    op.GLOBAL, op.STACK_GLOBAL, op.BINUNICODE, op.SHORT_BINUNICODE, op.SHORT_BINBYTES, op.BINBYTES,
    op.BINBYTES8, op.TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3, op.EMPTY_LIST, op.REDUCE,
    legacy_op.BINSTRING, legacy_op.SHORT_BINSTRING,
})  # fmt: skip

_OBJECT_FLAGS = 63
"""Of a dtype of references; without them numpy takes the list of items for raw bytes."""

_UNSET = object()
_VALUE = itemgetter(0)
_CONTAINERS = frozenset({PyTuple, PyList, ObjectArray})
_SHAREABLE = frozenset({str, Global, Span, PyTuple, ArrayLayout, NumpyScalar})


class SymbolicUnpickler:
    """Runs one stream.

    Attributes:
        levels: the stacks below the current one, outermost first (one for each open MARK).
        stack: the current one, pairs of value and offset.
        dtype_arguments: those seen: "bool" for (False, True), "int" for (0, 1).
        modules: the numpy modules that were named.
        long_ones: how often 1 was written as LONG1, as the canonical form does for alignment.
    """

    # What may stand in a stream, and what each of it does; a reader of older protocols has more.
    _tables: ClassVar[Mapping[int, Table]] = TABLES
    _globals: ClassVar[Mapping[tuple[str, str], Global]] = ALLOWED_GLOBALS
    _reducers: ClassVar[Mapping[str, Reducer]]
    _handlers: ClassVar[Mapping[int, Handler | None]]

    def __init__(
        self, source: Source, offset: int, *, keep_structure: bool = True, fast: bool = True
    ) -> None:
        self.stream = OpcodeStream(
            source, offset, keep_structure=keep_structure, tables=self._tables
        )
        self.levels: list[list[Pair]] = []
        self.stack: list[Pair] = []
        self.dtype_arguments: set[str] = set()
        self.modules: set[str] = set()
        self.long_ones = 0
        self._source = source
        self._fast = fast
        self._memo: list[Any] = []
        self._memo_entries = 0
        self._entries_at_array = 0
        self._put_code = 0
        self._previous = 0
        self._used_payloads: set[int] = set()
        self._typecode: Span | None = None
        self._records: dict[int, RecordReader | None] = {}

    def run(self) -> Pair:
        """Read the whole stream.

        Returns:
            The value that the pickle builds, and the offset where it began.

        Raises:
            Rejected: BK2xx, and BK3xx where nothing after the breach can be trusted.
        """
        handlers = self._handlers
        offset = 0
        for code, argument, offset in self.stream:
            if code == op.STOP:
                break
            handler = handlers[code]
            if handler is None:
                self.stack.append((argument, offset))
            else:
                handler(self, argument, offset)
            self._previous = code
        if self.levels or len(self.stack) != 1:
            message = f"the pickle ends with {len(self.stack)} values instead of one"
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, message)
        self._depth_around([self.stack[0][0]], offset)
        self.stream.finish(offset)
        return self.stack[0]

    # --- the stack ---

    def _pop(self, offset: int) -> Any:
        if not self.stack:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "a value is missing on the stack")
        return self.stack.pop()[0]

    def _pop_mark(self, offset: int) -> list[Pair]:
        if not self.levels:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "a MARK is missing")
        taken = self.stack
        self.stack = self.levels.pop()
        return taken

    def _top(self, offset: int) -> Any:
        if not self.stack:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "a value is missing on the stack")
        return self.stack[-1][0]

    def _depth_around(self, values: Iterable[Any], offset: int) -> int:
        """How deeply containers nest in a container of these values, each fit to be used."""
        depth = 0
        for value in values:
            kind = type(value)
            if kind in _CONTAINERS:
                depth = max(depth, value.depth)
            elif kind is PendingArray or (kind is DType and value.name is None):
                self._unfinished(value, offset)
        if depth >= _MAX_DEPTH:
            self._reject(rules.LIMIT_EXCEEDED, offset, f"containers nest deeper than {_MAX_DEPTH}")
        return depth + 1

    def _unfinished(self, value: Any, offset: int) -> NoReturn:
        message = f"{describe(value)} is used before its state is set"
        self._reject(rules.UNFINISHED_OBJECT, offset, message)

    def _reject(self, rule: Rule, offset: int, message: str) -> NoReturn:
        raise Rejected(rule, offset, message)

    # --- plain values and containers ---

    def _long1(self, value: int, offset: int) -> None:
        self.long_ones += value == 1
        self.stack.append((value, offset))

    def _mark(self, _: None, offset: int) -> None:
        if len(self.levels) >= _MAX_DEPTH:
            self._reject(rules.LIMIT_EXCEEDED, offset, f"more than {_MAX_DEPTH} open marks")
        self.levels.append(self.stack)
        self.stack = []

    def _none(self, _: None, offset: int) -> None:
        self.stack.append((None, offset))

    def _true(self, _: None, offset: int) -> None:
        self.stack.append((True, offset))

    def _false(self, _: None, offset: int) -> None:
        self.stack.append((False, offset))

    def _tuple(self, _: None, offset: int) -> None:
        pairs = self._pop_mark(offset)
        values = tuple([value for value, _ in pairs])
        offsets = tuple([at for _, at in pairs])
        self.stack.append((PyTuple(values, self._depth_around(values, offset), offsets), offset))

    def _tuple1(self, _: None, offset: int) -> None:
        self._push_tuple((self._pop(offset),), offset)

    def _tuple2(self, _: None, offset: int) -> None:
        last = self._pop(offset)
        self._push_tuple((self._pop(offset), last), offset)

    def _tuple3(self, _: None, offset: int) -> None:
        last = self._pop(offset)
        middle = self._pop(offset)
        self._push_tuple((self._pop(offset), middle, last), offset)

    def _empty_tuple(self, _: None, offset: int) -> None:
        self.stack.append((PyTuple((), 1), offset))

    def _push_tuple(self, values: tuple[Any, ...], offset: int) -> None:
        found = PyTuple(values, self._depth_around(values, offset))
        self.stack.append((found, offset))

    def _empty_list(self, _: None, offset: int) -> None:
        self.stack.append((PyList(), offset))

    def _append(self, _: None, offset: int) -> None:
        item = self._top(offset)
        pair = self.stack.pop()
        self._extend_list([pair], {type(item)}, offset)

    def _appends(self, _: None, offset: int) -> None:
        pairs = self._pop_mark(offset)
        self._extend_list(pairs, set(map(type, map(_VALUE, pairs))), offset)

    def _extend_list(self, pairs: list[Pair], kinds: set[type], offset: int) -> None:
        target = self._top(offset)
        if type(target) is not PyList:
            message = f"items are added to {describe(target)}"
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, message)
        if len(target.pairs) + len(pairs) > MAX_ITEMS:
            self._reject(rules.LIMIT_EXCEEDED, offset, f"more than {MAX_ITEMS:,} items")
        if kinds != {ArrayLayout}:
            target.depth = max(target.depth, self._depth_around(map(_VALUE, pairs), offset))
        target.pairs += pairs

    def _empty_dict(self, _: None, offset: int) -> None:
        """A dict is always a mistake; which one depends on where it stands."""
        tops = [level[-1][0] for level in (self.stack, *reversed(self.levels)) if level]
        dtype = next((value for value in tops if type(value) is DType), None)
        if dtype is None:
            self._reject(rules.PARAMETERS_DICT, offset, "a dict in place of a list of arrays")
        if dtype.text[0] in "mM":
            self._reject(rules.DATETIME, offset, f"an array of dtype {dtype.text}")
        if dtype.text[0] == "V":
            self._reject(rules.STRUCTURED_DTYPE, offset, "a dtype with named fields")
        self._reject(rules.DTYPE_METADATA, offset, "a dtype with metadata")

    # --- the memo ---

    def _put(self, index: int, offset: int) -> None:
        if index >= self.stream.opcodes:
            self._reject(rules.MEMO_INDEX, offset, f"memo index {index:,}")
        if self._previous not in _MEMOIZED:
            self._reject(rules.MEMO_MISPLACED, offset, "a memo write does not follow a value")
        if index < len(self._memo):
            if self._memo[index] is not _UNSET:
                self._reject(rules.MEMO_REWRITTEN, offset, f"memo slot {index} is written again")
            self._memo[index] = self.stack[-1][0]
        else:
            self._memo += [_UNSET] * (index - len(self._memo))
            self._memo.append(self.stack[-1][0])
        self._memo_entries += 1

    def _binput(self, index: int, offset: int) -> None:
        self._put(index, offset)
        self._put_code = op.BINPUT

    def _long_binput(self, index: int, offset: int) -> None:
        self._put(index, offset)
        self._put_code = op.LONG_BINPUT

    def _memoize(self, _: None, offset: int) -> None:
        self._put(self._memo_entries, offset)
        self._put_code = op.MEMOIZE

    def _get(self, index: int, offset: int) -> None:
        value = self._memo[index] if index < len(self._memo) else _UNSET
        if type(value) not in _SHAREABLE:
            value = self._resolve(value, index, offset)
        self.stack.append((value, offset))

    def _resolve(self, value: Any, index: int, offset: int) -> Any:
        """What a memo slot stands for, if it may be used again."""
        if value is _UNSET:
            self._reject(rules.MEMO_UNSET, offset, f"memo slot {index:,} was never written")
        if type(value) is Run:
            value = value.resolve(index)
            # The run used its payloads; one that can be fetched again must not be used twice.
            spans = value.values if type(value) is PyTuple else (value,)
            self._used_payloads.update(v.offset for v in spans if type(v) is Span and v.nbytes > 1)
        if type(value) is PendingArray:
            value = value.built or self._unfinished(value, offset)
        if type(value) is DType and value.name is None:
            self._unfinished(value, offset)
        if type(value) in (PyList, ObjectArray):
            message = f"{describe(value)} is used twice"
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, message)
        return value

    # --- names, calls, state ---

    def _global(self, argument: tuple[str, str], offset: int) -> None:
        found = self._globals.get(argument)
        if found is None:
            raise refuse_global(*argument, offset)
        self.modules.add(found.module)
        self.stack.append((found, offset))

    def _stack_global(self, _: None, offset: int) -> None:
        name = self._pop(offset)
        module = self._pop(offset)
        if type(module) is not str or type(name) is not str:
            self._reject(rules.GLOBAL_NAME, offset, f"{describe(name)} as the name to import")
        self._global((module, name), offset)

    def _reduce(self, _: None, offset: int) -> None:
        arguments = self._pop(offset)
        function = self._top(offset)
        reducer = self._reducers.get(function.role) if type(function) is Global else None
        if reducer is None or type(arguments) is not PyTuple:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, f"{describe(function)} is called")
        start = self.stack.pop()[1]
        self.stack.append((reducer(self, arguments.values, offset), start))

    def _reconstruct(self, values: tuple[Any, ...], offset: int) -> PendingArray:
        if not self._are_arguments(values):
            message = "_reconstruct is called with other arguments than (ndarray, (0,), b'b')"
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, message)
        return PendingArray()

    def _are_arguments(self, values: tuple[Any, ...]) -> bool:
        """Whether these are (ndarray, (0,), b"b")."""
        if len(values) != 3:
            return False
        subtype, shape, typecode = values
        zero = type(shape) is PyTuple and _same(shape.values, (0,))
        ndarray = type(subtype) is Global and subtype.role == "ndarray"
        return ndarray and zero and self._is_typecode(typecode)

    def _is_typecode(self, value: Any) -> bool:
        if value is self._typecode:
            return value is not None
        if type(value) is not Span or value.nbytes != 1:
            return False
        if self._source.read_at(value.offset, 1) != b"b":
            return False
        self._typecode = value
        return True

    def _dtype(self, values: tuple[Any, ...], offset: int) -> DType:
        flags = values[1:]
        if _same(flags, (False, True)):
            self.dtype_arguments.add("bool")
        elif self.stream.protocol == 3 and _same(flags, (0, 1)):
            self.dtype_arguments.add("int")
        else:
            message = "dtype is called with other arguments than numpy gives at this protocol"
            self._reject(rules.DTYPE_STATE, offset, message)
        text = values[0]
        parsed = parse_dtype(text) if type(text) is str else None
        if parsed is None:
            self._reject(rules.UNKNOWN_DTYPE, offset, f"dtype of {describe(text)}")
        return DType(text, parsed)

    def _scalar(self, values: tuple[Any, ...], offset: int) -> NumpyScalar:
        if len(values) != 2 or type(values[0]) is not DType or type(values[1]) is not Span:
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, "scalar without (dtype, bytes)")
        return NumpyScalar(values[0].name or "", *values[1])

    def _build(self, _: None, offset: int) -> None:
        state = self._pop(offset)
        target = self._top(offset)
        if type(target) in (ArrayLayout, ObjectArray) or (type(target) is DType and target.name):
            message = f"the state of {describe(target)} is set twice"
            self._reject(rules.REBUILT_OBJECT, offset, message)
        if type(target) not in (PendingArray, DType) or type(state) is not PyTuple:
            message = f"a state is set on {describe(target)}"
            self._reject(rules.UNEXPECTED_STRUCTURE, offset, message)
        if type(target) is DType:
            target.name = _judge_dtype_state(target, state.values, offset)
            return
        target.built = built = self._judge_array_state(state, offset)
        self.stack[-1] = (built, self.stack[-1][1])
        if type(built) is ArrayLayout:
            if len(self.stack) > MAX_ITEMS:
                self._reject(rules.LIMIT_EXCEEDED, offset, f"more than {MAX_ITEMS:,} arrays")
            self.stream.opcode_budget += OPCODES_PER_ARRAY
            if self._fast:
                self._read_records()

    def _judge_array_state(self, state: PyTuple, offset: int) -> ArrayLayout | ObjectArray:
        values = state.values
        if len(values) != 5 or not _same(values[:1], (1,)):
            self._reject(rules.ARRAY_STATE, offset, "the state of an array is not of numpy's form")
        _, shape, dtype, fortran, payload = values
        if type(shape) is not PyTuple or type(dtype) is not DType:
            self._reject(rules.ARRAY_STATE, offset, "the state of an array is not of numpy's form")
        shape_at = state.offsets[1] if state.offsets else offset
        nbytes = judge_shape(shape.values, dtype.parsed.itemsize, shape_at)
        if type(fortran) is not bool:
            self._reject(rules.FORTRAN_FLAG, offset, f"{describe(fortran)} as Fortran flag")
        if fortran and len(shape.values) < 2:
            self._reject(rules.FORTRAN_FLAG, offset, f"Fortran order of shape {shape.values}")
        if dtype.name == "object":
            return self._object_array(shape.values, payload, offset)
        if type(payload) is not Span:
            self._reject(rules.ARRAY_STATE, offset, f"{describe(payload)} in place of bytes")
        if payload.nbytes != nbytes:
            message = (
                f"{payload.nbytes:,} bytes where shape {quoted(shape.values)} of {dtype.name} "
                f"needs {nbytes:,}"
            )
            self._reject(rules.PAYLOAD_SIZE, payload.offset, message)
        if nbytes > 1:
            if payload.offset in self._used_payloads:
                self._reject(rules.SHARED_PAYLOAD, offset, "two arrays share the same bytes")
            self._used_payloads.add(payload.offset)
        order: Literal["C", "F"] = "F" if fortran else "C"
        return ArrayLayout(dtype.name or "", shape.values, order, payload.offset, nbytes)

    def _object_array(self, shape: tuple[int, ...], payload: Any, offset: int) -> ObjectArray:
        if type(payload) is not PyList:
            self._reject(rules.ARRAY_STATE, offset, f"{describe(payload)} in an object array")
        size = judge_shape(shape, 1, offset)
        if size != len(payload.pairs):
            message = f"{len(payload.pairs):,} items for shape {quoted(shape)}"
            self._reject(rules.PAYLOAD_SIZE, offset, message)
        return ObjectArray(shape, payload.pairs, payload.depth + 1)

    # --- the fast path ---

    def _read_records(self) -> None:
        """Read the records that follow the array just built, while they are of the usual form."""
        wrote, self._entries_at_array = (
            self._memo_entries - self._entries_at_array,
            self._memo_entries,
        )
        if self._memo_entries != len(self._memo) or len(self.stack) >= MAX_ITEMS - 1:
            return
        reader = self._reader(self._put_code if wrote else NO_PUT)
        if reader is None:
            return
        run = reader.read_run(self.stream, self._memo, MAX_ITEMS - 1 - len(self.stack))
        self.stack += run.pairs
        self.stream.opcode_budget += OPCODES_PER_ARRAY * len(run.pairs)
        self.long_ones += run.long_ones
        self._memo_entries = self._entries_at_array = len(self._memo)

    def _reader(self, put: int) -> RecordReader | None:
        if put == op.BINPUT and len(self._memo) > 255:
            put = op.LONG_BINPUT
        if put not in self._records:
            self._records[put] = self._make_reader(put)
        return self._records[put]

    def _make_reader(self, put: int) -> RecordReader | None:
        """A reader for records like the one just read, if their names stand in the memo."""
        slots: dict[str, int] = {}
        zero = arguments = None
        for slot, value in enumerate(self._memo[:256]):
            if type(value) is Global:
                slots.setdefault(value.role, slot)
            elif type(value) is Span and value is self._typecode:
                slots.setdefault("typecode", slot)
            elif type(value) is PyTuple and _same(value.values, (0,)):
                zero = zero or value
            elif type(value) is PyTuple and self._are_arguments(value.values):
                slots.setdefault("arguments", slot)
                arguments = arguments or value
        if "reconstruct" not in slots:
            return None
        fetched = slots.get("arguments") if put == NO_PUT else None
        if fetched is None and not {"ndarray", "typecode"} <= slots.keys():
            return None
        if put != NO_PUT and (zero is None or arguments is None):
            return None
        empty = PyTuple((), 1)  # never asked for where nothing is written to the memo
        names = Names(
            slots["reconstruct"], slots.get("ndarray", 0), slots.get("typecode", 0), fetched
        )
        return RecordReader(names, (zero or empty, arguments or empty), put)


def _same(values: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Equal in value and in type: True is not 1 here."""
    return values == expected and [*map(type, values)] == [*map(type, expected)]


def _judge_dtype_state(dtype: DType, values: tuple[Any, ...], offset: int) -> str:
    """The name of a dtype with this state."""
    order = values[1] if len(values) > 1 else None
    name, itemsize = dtype.parsed
    rule = refusal(name)
    wanted = "<>" if itemsize > 1 and name != "object" else "|"
    if type(order) is str and len(order) == 1 and order in wanted:
        nones = (None, None, None)
        if name == "object":
            if _same(values, (3, order, *nones, -1, -1, _OBJECT_FLAGS)):
                return name
        elif rule is rules.DATETIME:
            if _same(values[:8], (4, order, *nones, -1, -1, 0)) and len(values) == 9:
                return name
        elif _same(values, (3, order, *nones, -1, -1, 0)) and dtype.text[0] not in "SUV":
            return f">{dtype.text}" if order == ">" else name
    if dtype.text[0] in "SUV" and _is_sized_state(values, itemsize):
        return name
    message = f"the state of dtype {dtype.text} is not of numpy's form"
    raise Rejected(rules.DTYPE_STATE, offset, message)


def _is_sized_state(values: tuple[Any, ...], itemsize: int) -> bool:
    """The state of a text or void dtype: it alone carries its size and alignment."""
    if len(values) != 8 or not _same(values[2:6], (None, None, None, itemsize)):
        return False
    version, order, *_, alignment, flags = values
    return version == 3 and order in ("<", ">", "|") and type(alignment) is type(flags) is int


Reducer = Callable[[Any, tuple[Any, ...], int], Any]
Handler = Callable[[Any, Any, int], None]

REDUCERS: dict[str, Reducer] = {
    "reconstruct": SymbolicUnpickler._reconstruct,
    "dtype": SymbolicUnpickler._dtype,
    "scalar": SymbolicUnpickler._scalar,
}

HANDLERS: dict[int, Handler | None] = {
    op.MARK: SymbolicUnpickler._mark,
    op.NONE: SymbolicUnpickler._none,
    op.NEWTRUE: SymbolicUnpickler._true,
    op.NEWFALSE: SymbolicUnpickler._false,
    op.BININT1: None,  # pushed as it is
    op.BININT2: None,  # pushed as it is
    op.BININT: None,  # pushed as it is
    op.LONG1: SymbolicUnpickler._long1,
    op.BINFLOAT: None,  # pushed as it is
    op.BINUNICODE: None,  # pushed as it is
    op.SHORT_BINUNICODE: None,  # pushed as it is
    op.SHORT_BINBYTES: None,  # pushed as it is
    op.BINBYTES: None,  # pushed as it is
    op.BINBYTES8: None,  # pushed as it is
    op.EMPTY_TUPLE: SymbolicUnpickler._empty_tuple,
    op.TUPLE: SymbolicUnpickler._tuple,
    op.TUPLE1: SymbolicUnpickler._tuple1,
    op.TUPLE2: SymbolicUnpickler._tuple2,
    op.TUPLE3: SymbolicUnpickler._tuple3,
    op.EMPTY_LIST: SymbolicUnpickler._empty_list,
    op.APPEND: SymbolicUnpickler._append,
    op.APPENDS: SymbolicUnpickler._appends,
    op.EMPTY_DICT: SymbolicUnpickler._empty_dict,
    op.GLOBAL: SymbolicUnpickler._global,
    op.STACK_GLOBAL: SymbolicUnpickler._stack_global,
    op.REDUCE: SymbolicUnpickler._reduce,
    op.BUILD: SymbolicUnpickler._build,
    op.BINPUT: SymbolicUnpickler._binput,
    op.LONG_BINPUT: SymbolicUnpickler._long_binput,
    op.MEMOIZE: SymbolicUnpickler._memoize,
    op.BINGET: SymbolicUnpickler._get,
    op.LONG_BINGET: SymbolicUnpickler._get,
}

SymbolicUnpickler._reducers = REDUCERS
SymbolicUnpickler._handlers = HANDLERS
