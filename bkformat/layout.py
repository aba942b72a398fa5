"""Stage 3, its end: what the pickle builds -> `UpdateLayout`, and what is wrong with it.

    update      object array of shape (2,): num_samples (plain int, 1 to 2**53), list of arrays
    aggregate   the same, or an object array of shape (k,) of k arrays

Mistakes that are understood are reported one by one and reading goes on, so that one report tells
all there is to mend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

from bkformat import rules
from bkformat.arrays import ArrayLayout
from bkformat.dtypes import refusal
from bkformat.findings import Finding, Rejected, finding, quoted
from bkformat.npy import NpyHeader, read_header
from bkformat.recall import MAX_NBYTES, Recalled, recall, remember
from bkformat.source import BytesSource, Source
from bkformat.symbolic import SymbolicUnpickler
from bkformat.symbols import (
    NumpyScalar,
    ObjectArray,
    Pair,
    PyList,
    PyTuple,
    describe,
)
from bkformat.unfinished import open_lists
from bkformat.writers import Writer, identify, loads_on, peek_refused

__all__ = ["MAX_NUM_SAMPLES", "Kind", "LayoutReader", "UpdateLayout"]

Kind = Literal["update", "aggregate"]

MAX_NUM_SAMPLES = 2**53
"""Past this, float64 sums of counts lose whole samples."""


@dataclass(frozen=True)
class UpdateLayout:
    """What a file says: every array's place in it, and no value.

    Attributes:
        kind: "update" or "aggregate".
        num_samples: samples behind the update; None where there is no such integer.
        parameters: the arrays in the order of the file.
        nbytes: bytes of the whole file.
        protocol: pickle protocol, or None where it can't be told.
        writer: byte form, "A" to "E" or "canonical"; None where no known writer makes it.
        loads_on: numpy versions that load the file, as a specifier such as ">=1.26.1".
        stopped_at: offset where reading had to stop; None for a file that was read to its end.
        positions: index of each array among the items, in a refused file that holds others too;
            None where the arrays are all there is.
    """

    kind: Kind
    num_samples: int | None
    parameters: tuple[ArrayLayout, ...]
    nbytes: int
    protocol: int | None
    writer: Writer | None
    loads_on: str | None
    stopped_at: int | None = None
    positions: tuple[int, ...] | None = None

    @property
    def num_elements(self) -> int:
        """Elements of all arrays together."""
        return sum(array.size for array in self.parameters)


class LayoutReader:
    """Reads one source; what was understood stays readable after a `Rejected`.

    Attributes:
        findings: breaches that did not stop the reader.
        comparable: whether the arrays stand in a list, as a schema's do.
        root: what the pickle builds, once it was read to its end; None for a recalled structure.
        machine: what read the stream; None before that, and for a recalled structure.
    """

    def __init__(
        self,
        source: Source,
        *,
        kind: Kind | None = "update",
        allowed: frozenset[str] = frozenset(),
        allow_empty: bool = False,
        keep_structure: bool = False,
        fast: bool = True,
        unpickler: type[SymbolicUnpickler] | None = None,
    ) -> None:
        """Nothing is opened or read yet.

        Args:
            source: the file.
            kind: None takes an object array of arrays alone for an aggregate, else an update.
            allowed: dtypes that are wanted, so that nothing is said of them.
            allow_empty: empty arrays are wanted too.
            keep_structure: for `structure`.
            fast: whether accelerators may be used.
            unpickler: reads the stream in place of the strict one.
        """
        self._unpickler = unpickler
        self.root: ObjectArray | None = None
        self._keep_structure = keep_structure
        self.findings: list[Finding] = []
        self._positions: tuple[int, ...] | None = None
        self.comparable = True
        self._source = source
        self._kind = kind
        self._allowed = allowed
        self._allow_empty = allow_empty
        self._fast = fast
        self._pieces: list[tuple[int, bytes]] = []
        self._header: NpyHeader | None = None
        self.machine: SymbolicUnpickler | None = None

    def read(self) -> UpdateLayout:
        """Read the whole file and judge its layout.

        Raises:
            Rejected: BK1xx, BK2xx, and BK3xx where nothing after the breach can be trusted.
        """
        source = self._source
        small = self._fast and source.nbytes <= MAX_NBYTES
        if small:
            data = source.read_at(0, source.nbytes)
            if (recalled := recall(data, self._options())) is not None:
                return self._recalled(data, recalled)
            source = BytesSource(data)
        self._header = header = read_header(source)
        self.machine = machine = (self._unpickler or SymbolicUnpickler)(
            source,
            header.data_offset,
            keep_structure=self._keep_structure,
            fast=self._fast,
        )
        root, offset = machine.run()
        if type(root) is ArrayLayout:
            raise Rejected(rules.OUTER_DTYPE, offset, f"the pickled array is of {root.dtype}")
        if type(root) is not ObjectArray:
            raise Rejected(rules.ROOT_NOT_ARRAY, offset, f"the pickle holds {describe(root)}")
        self.root = root
        if root.shape != header.shape:
            message = f"the header says {quoted(header.shape)}, the pickle {quoted(root.shape)}"
            self._report(rules.HEADER_SHAPE, message, offset)
        kind, num_samples, items = self._judge_outer(root, offset)
        layout = self._layout(machine, kind, num_samples, self._judge_items(items), None)
        # Whether a padded file is canonical depends on where its payloads lie: it is always read.
        if small and not self.findings and not machine.long_ones:
            count_at = None if num_samples is None else root.pairs[0][1]
            remember(data, header.data_offset, self._options(), count_at, layout)
        return layout

    def _options(self) -> object:
        """All that the layout depends on beside the bytes."""
        return self._kind, self._allowed, self._allow_empty

    def _recalled(self, data: bytes, recalled: Recalled) -> UpdateLayout:
        """The layout of a file that has the structure of an earlier one."""
        position = 0
        for array in recalled.parameters:
            self._pieces.append((position, data[position : array.offset]))
            position = array.offset + array.nbytes
        self._pieces.append((position, data[position:]))
        like: UpdateLayout = recalled.layout
        return UpdateLayout(
            like.kind,
            recalled.num_samples,
            recalled.parameters,
            len(data),
            like.protocol,
            like.writer,
            like.loads_on,
        )

    def structure(self) -> list[tuple[int, bytes]]:
        """Every byte that was read outside payloads: (offset, bytes) in the order of the file."""
        if self._header is None or self.machine is None:
            return self._pieces
        start = self._source.read_at(0, self._header.data_offset)
        return [(0, start), *self.machine.stream.structure]

    def partial(self, stopped_at: int | None) -> UpdateLayout | None:
        """What was understood before a `Rejected`; None where not even the header was."""
        if self._header is None:
            return None
        kind: Kind = self._kind or "update"
        if self.machine is None:
            protocol, writer = peek_refused(self._source, self._header.data_offset)
            return UpdateLayout(
                kind, None, (), self._source.nbytes, protocol, writer, None, stopped_at
            )
        outer, inner, _ = open_lists(self.machine)
        num_samples = outer[0] if outer and type(outer[0]) is int else None
        arrays = [v for v in (*outer, *inner) if type(v) is ArrayLayout]
        return self._layout(self.machine, kind, num_samples, arrays, stopped_at)

    def place(self, stop: Finding) -> Finding:
        """The finding of a `Rejected` with the path that was being read, and what a dict is for."""
        where = stop.where or self._where()
        stop = replace(stop, where=where)
        if stop.code != rules.PARAMETERS_DICT.code or where == "parameters":
            return stop
        third = self.machine is not None and len(open_lists(self.machine)[0]) > 1
        kind = "an array" if where.startswith("parameters") else "third" if third else where
        message, hint = _DICTS[kind]
        return replace(stop, message=message, hint=hint)

    def _where(self) -> str:
        if self.machine is None:
            return ""
        outer, inner, in_parameters = open_lists(self.machine)
        if in_parameters:
            return f"parameters[{len(inner)}]"
        if self._kind == "aggregate" and all(type(v) is ArrayLayout for v in outer):
            return f"parameters[{len(outer)}]" if outer else ""
        if self.machine.levels and not outer:
            return "num_samples" if len(self.machine.levels) > 1 else ""
        return "parameters" if len(outer) == 1 else ""

    # --- judging ---

    def _report(
        self, rule: rules.Rule, message: str, offset: int, where: str = "", hint: str | None = None
    ) -> None:
        self.findings.append(finding(rule, message, offset=offset, where=where, hint=hint))

    def _layout(
        self,
        machine: SymbolicUnpickler,
        kind: Kind,
        num_samples: int | None,
        parameters: Iterable[ArrayLayout],
        stopped_at: int | None,
    ) -> UpdateLayout:
        parameters = tuple(parameters)
        padded = bool(parameters) and machine.long_ones >= len(parameters)
        writer = identify(
            machine.stream.protocol,
            machine.modules,
            machine.dtype_arguments,
            padded=padded and not machine.stream.frames and all(a.aligned for a in parameters),
        )
        return UpdateLayout(
            kind,
            num_samples,
            parameters,
            self._source.nbytes,
            machine.stream.protocol,
            writer,
            loads_on(machine.modules) if machine.modules else None,
            stopped_at,
            self._positions,
        )

    def _judge_outer(self, outer: ObjectArray, offset: int) -> tuple[Kind, int | None, list[Pair]]:
        """The kind, num_samples and what should be arrays."""
        values = [value for value, _ in outer.pairs]
        bare = len(outer.shape) == 1 and all(type(value) is ArrayLayout for value in values)
        kind: Kind = self._kind or ("aggregate" if bare and values else "update")
        if bare and values:
            if kind == "update":
                self._report(rules.BARE_AGGREGATE, f"{len(values):,} arrays and no count", offset)
            return kind, None, outer.pairs
        if outer.shape != (2,):
            hint = _outer_hint(outer.shape, values)
            message = f"shape {quoted(outer.shape)} in place of (2,)"
            self._report(rules.OUTER_SHAPE, message, offset, hint=hint)
            return kind, None, self._scattered(outer.pairs)
        first, second = outer.pairs
        if type(first[0]) is PyList and type(second[0]) is int:
            message = "the list comes first, the count second"
            self._report(rules.NUM_SAMPLES_TYPE, message, first[1], "num_samples", _SWAPPED)
            first, second = second, first
        num_samples = self._judge_num_samples(*first)
        return kind, num_samples, self._judge_parameters(*second)

    def _scattered(self, pairs: list[Pair]) -> list[Pair]:
        """The arrays of a file of another shape, which stand in no list."""
        arrays = list(_arrays_in(pairs))
        self._positions, self.comparable = tuple(range(len(arrays))), False
        return arrays

    def _judge_num_samples(self, value: Any, offset: int) -> int | None:
        where = "num_samples"
        if type(value) is int:
            if not 1 <= value <= MAX_NUM_SAMPLES:
                self._report(rules.NUM_SAMPLES_RANGE, f"{value:,} samples", offset, where)
            return value
        hint = None
        if type(value) is float and value.is_integer() and 1 <= value <= MAX_NUM_SAMPLES:
            hint = f"give it as a plain int: {int(value)}"
        elif type(value) is NumpyScalar and "int" not in value.dtype:
            hint = rules.NUM_SAMPLES_TYPE.fix
        rule = _NUM_SAMPLES_RULES.get(type(value), rules.NUM_SAMPLES_TYPE)
        self._report(rule, f"{describe(value)} in place of an int", offset, where, hint)
        return None

    def _judge_parameters(self, value: Any, offset: int) -> list[Pair]:
        where = "parameters"
        if type(value) is PyTuple:
            message = f"a tuple of {len(value.values):,} in place of a list"
            self._report(rules.PARAMETERS_TUPLE, message, offset, where)
        elif type(value) is not PyList:
            hint = None
            if type(value) is ObjectArray:
                hint = "make it a list: list(parameters)"
            message = f"{describe(value)} in place of a list of arrays"
            self._report(rules.PARAMETERS_TYPE, message, offset, where, hint)
            return self._scattered([(value, offset)])
        pairs = _pairs_of(value, offset)
        if not pairs:
            self._report(rules.NO_PARAMETERS, "an empty list", offset, where)
        return pairs

    def _judge_items(self, items: list[Pair]) -> list[ArrayLayout]:
        """Report each item that is no array that an update may hold; return all that are arrays."""
        arrays = [value for value, _ in items]
        if _all_usual(arrays):
            return arrays
        first: dict[int, int] = {}
        for index, (value, offset) in enumerate(items):
            where = f"parameters[{index}]"
            earlier = first.setdefault(id(value), index)
            if type(value) is not ArrayLayout:
                rule = _ITEM_RULES.get(type(value), rules.NOT_AN_ARRAY)
                message = f"{describe(value)} in place of an array"
                self._report(rule, message, offset, where, _item_hint(value))
            elif earlier != index:
                message = f"the same object as parameters[{earlier}]"
                self._report(rules.SHARED_ARRAY, message, offset, where)
            else:
                self._judge_dtype(value, where)
        kept = [index for index, value in enumerate(arrays) if type(value) is ArrayLayout]
        if len(kept) < len(arrays):
            self._positions = tuple(kept)
        return [arrays[index] for index in kept]

    def _judge_dtype(self, array: ArrayLayout, where: str) -> None:
        rule = refusal(array.dtype)
        if rule is None:
            if array.dtype == "bool":
                rule = rules.BOOL_ARRAY
            elif array.dtype not in _FLOATS:
                rule = rules.INTEGER_ARRAY
        if rule is not None and array.dtype not in self._allowed:
            message = f"{array.dtype} of shape {quoted(array.shape)}"
            self._report(rule, message, array.offset, f"{where}.dtype")
        if not array.nbytes and not self._allow_empty:
            self._report(
                rules.EMPTY_ARRAY, f"shape {quoted(array.shape)}", array.offset, f"{where}.shape"
            )


_DTYPE = attrgetter("dtype")
_NBYTES = attrgetter("nbytes")
_FLOATS = frozenset({"float16", "float32", "float64"})

_SWAPPED = "swap them: o[0] = num_samples; o[1] = arrays"

_OUTER_HINTS = {
    0: f"the list was wrapped whole; assign the items: {rules.RECIPE}",
    2: f"np.array made rows and columns of the items; assign them: {rules.RECIPE}",
}

_DICTS = {
    "": (
        "a dict in place of num_samples and arrays",
        f"take the count and the list of arrays out of it: {rules.RECIPE}",
    ),
    "num_samples": ("a dict in place of an int", rules.NUM_SAMPLES_TYPE.fix),
    "an array": ("a dict in place of an array", "put its arrays into the list themselves"),
    "third": (
        "a dict as a third item",
        "leave it out: an update has two items, num_samples and the list of arrays",
    ),
}

_NUM_SAMPLES_RULES = {
    bool: rules.NUM_SAMPLES_BOOL,
    float: rules.NUM_SAMPLES_FLOAT,
    NumpyScalar: rules.NUM_SAMPLES_NUMPY_SCALAR,
    ArrayLayout: rules.NUM_SAMPLES_ARRAY,
    ObjectArray: rules.NUM_SAMPLES_ARRAY,
}

_ITEM_RULES = {
    bool: rules.PYTHON_NUMBER,
    int: rules.PYTHON_NUMBER,
    float: rules.PYTHON_NUMBER,
    NumpyScalar: rules.NUMPY_SCALAR,
    ObjectArray: rules.OBJECT_DTYPE,
}


def _outer_hint(shape: tuple[int, ...], values: list[Any]) -> str | None:
    """What most likely happened to an object array of this shape."""
    if len(shape) != 1:
        return _OUTER_HINTS.get(len(shape))
    kinds = [type(value) for value in values]
    if kinds[:2] == [int, PyList]:
        return f"leave out what follows the list of arrays: {rules.RECIPE}"
    if kinds[:1] == [int] and set(kinds[1:]) == {ArrayLayout}:
        return f"put the arrays into one list: {rules.RECIPE}"
    if kinds == [PyList]:
        return f"put num_samples before the list: {rules.RECIPE}"
    return None


def _item_hint(value: Any) -> str | None:
    """What to do with an item of the list that is not an array, if that can be told."""
    if type(value) is PyTuple and ArrayLayout in map(type, value.values):
        return "take the arrays out of the pairs: [array for name, array in items]"
    return "make it an array: np.asarray(x, dtype='float32')" if type(value) is PyList else None


def _all_usual(values: list[Any]) -> bool:
    """Whether nothing is to be said about these; map and set, for lists of thousands."""
    return (
        set(map(type, values)) <= {ArrayLayout}
        and len(set(map(id, values))) == len(values)
        and set(map(_DTYPE, values)) <= _FLOATS
        and all(map(_NBYTES, values))
    )


def _arrays_in(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The arrays among these values and one container deep, for files of another shape."""
    for value, offset in pairs:
        if type(value) is ArrayLayout:
            yield value, offset
        elif type(value) in (PyList, PyTuple, ObjectArray):
            yield from (pair for pair in _pairs_of(value, offset) if type(pair[0]) is ArrayLayout)


def _pairs_of(value: PyList | PyTuple | ObjectArray, offset: int) -> list[Pair]:
    """The items of a container; those of a tuple stand where the tuple does."""
    if isinstance(value, PyTuple):
        return [(item, offset) for item in value.values]
    return value.pairs
