"""Parts that break one rule each, by the place of an update where they stand.

Every function gives (code, what is there, part); "what" is a name for a case. Payloads are
harmless: a name that is imported is called without arguments at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bkformat.assembler import opcodes as op
from bkformat.assembler.parts import Memo, Part
from bkformat.assembler.records import Form, list_of, ramp, shape_of, tuple_of

Breach = tuple[str, str, Part]

FOREIGN: dict[str, tuple[str, str]] = {
    "os-system": ("os", "system"),
    "os-mkdir": ("os", "mkdir"),
    "posix-system": ("posix", "system"),
    "builtins-eval": ("builtins", "eval"),
    "python-2-builtin": ("__builtin__", "eval"),
    "subprocess-popen": ("subprocess", "Popen"),
    "numpy-load": ("numpy", "load"),
    "numpy-fromfile": ("numpy", "fromfile"),
    "numpy-runstring": ("numpy.testing._private.utils", "runstring"),
    "numpy-fromstring": ("numpy.core.multiarray", "fromstring"),
    "numpy-frombuffer": ("numpy.core.numeric", "_frombuffer"),
    "codecs-encode": ("_codecs", "encode"),
    "copyreg-reconstructor": ("copyreg", "_reconstructor"),
    "importlib": ("importlib", "import_module"),
    "resolve-name": ("pkgutil", "resolve_name"),
    "joblib": ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    "dotted-name": ("numpy", "dtype.__init_subclass__"),
    "dotted-module": ("numpy.core", "multiarray._reconstruct"),
    "swapped-module": ("numpy", "_reconstruct"),
    "other-case": ("numpy", "Dtype"),
}
"""Names that an update has no use for."""

HONEST: dict[str, tuple[str, str]] = {
    "BK222-masked": ("numpy.ma.core", "_mareconstruct"),
    "BK222-matrix": ("numpy", "matrix"),
    "BK222-memmap": ("numpy", "memmap"),
    "BK223-tensor": ("torch._utils", "_rebuild_tensor_v2"),
    "BK223-parameter": ("torch._utils", "_rebuild_parameter"),
    "BK224-bfloat16": ("ml_dtypes", "bfloat16"),
    "BK225-state-dict": ("collections", "OrderedDict"),
}
"""Names that stand in files by mistake, behind the code of their rule."""


def call(form: Form, module: str, name: str) -> Part:
    """The import of a name, and a call of it without arguments."""
    return [form.name(module, name), tuple_of(), op.REDUCE]


def roots(form: Form) -> Iterator[Breach]:
    """In place of the outer array, where the header says (2,)."""
    seven, arrays = op.integer(7), list_of(form.array())
    both = list_of(seven, arrays)
    for what, root in {
        "list": both,
        "tuple": tuple_of(seven, arrays),
        "number": seven,
        "none": op.NONE,
        "class": form.ndarray,
        "dtype": form.dtype(),
    }.items():
        yield "BK301", what, root
    yield "BK304", "float32", form.array((2,))
    yield "BK305", "two-arrays", form.outer(list_of(form.array(), form.array((3,))))
    yield "BK321", "outer-three-items-for-two", form.outer(list_of(seven, arrays, seven))
    yield "BK325", "outer-version-2", form.outer(both, version=op.integer(2))
    yield "BK325", "outer-tuple-for-list", form.outer(tuple_of(seven, arrays))
    plain = form.dtype("O8", flags=0)  # then the list is taken for bytes
    yield "BK326", "object-flags-0", form.outer(both, dtype=plain)
    yield "BK327", "outer-fortran", form.outer(both, fortran=op.TRUE)
    yield "BK328", "two-values-at-stop", [form.update(), op.NONE]
    yield "BK328", "no-value-at-stop", b""
    yield "BK328", "mark-at-stop", [form.update(), op.MARK]
    yield "BK329", "array-at-stop", form.call()


def counts(form: Form) -> Iterator[Breach]:
    """In place of num_samples."""
    for what, part in {
        "none": op.NONE,
        "text": form.text("1329"),
        "bytes": op.payload(b"1329"),
        "tuple": tuple_of(op.integer(7)),
        "list": list_of(op.integer(7)),
    }.items():
        yield "BK306", what, part
    yield "BK307", "true", op.TRUE
    yield "BK307", "false", op.FALSE
    for value, what in ((1329.0, "1329.0"), (0.5, "half"), (math.nan, "nan")):
        yield "BK308", what, op.real(value)
    yield "BK309", "int64", form.scalar("i8")
    yield "BK309", "float32", form.scalar("f4")
    yield "BK310", "no-dimensions", form.array((), "i8")
    yield "BK310", "one-element", form.array((1,), "i8")
    for what, number in {
        "zero": 0,
        "minus-1": -1,
        "2-to-53-and-1": 2**53 + 1,
        "2-to-63-less-1": 2**63 - 1,
        "minus-2-to-63": -(2**63),
    }.items():
        yield "BK311", what, op.integer(number)


def parameters(form: Form) -> Iterator[Breach]:
    """In place of the list of arrays."""
    array = form.array()
    yield "BK312", "of-two", tuple_of(form.array(), form.array((3,)))
    yield "BK313", "empty", op.EMPTY_DICT
    yield "BK313", "of-one", [op.EMPTY_DICT, form.text("weight"), array, op.SETITEM]
    yield "BK314", "one-array", array
    yield "BK314", "none", op.NONE
    yield "BK314", "number", op.integer(3)
    yield "BK314", "object-array", form.outer(list_of(array, form.array((3,))))
    yield "BK315", "empty-list", op.EMPTY_LIST
    itself = [Memo(op.EMPTY_LIST, "list"), Memo(op.EMPTY_LIST, "list"), op.APPEND]
    yield "BK328", "list-in-itself", itself


def items(form: Form) -> Iterator[Breach]:
    """In place of one array of the list."""
    yield "BK316", "int", op.integer(3)
    yield "BK316", "float", op.real(1.5)
    yield "BK316", "bool", op.TRUE
    yield "BK317", "float32", form.scalar("f4")
    yield "BK318", "none", op.NONE
    yield "BK318", "list", list_of(form.array())
    yield "BK318", "tuple", tuple_of(form.array())
    yield "BK318", "text", form.text("weight")
    yield "BK318", "bytes", op.payload(bytes(8))
    yield "BK337", "rows", form.outer(list_of(op.integer(1), op.integer(2)))
    yield from _states(form)
    yield from _flags(form)
    yield from _structures(form)
    yield from _rebuilt(form)
    for code, what, dtype, nbytes in dtypes(form):
        yield code, what, form.array((1,), body=op.payload(bytes(nbytes)), dtype=dtype)


def dimensions(form: Form) -> Iterator[Breach]:
    """In place of one dimension of an array."""
    for what, part in {
        "minus-1": op.integer(-1),
        "true": op.TRUE,
        "float": op.real(2.0),
        "text": form.text("2"),
        "none": op.NONE,
        "tuple": tuple_of(op.integer(2)),
        "numpy-scalar": form.scalar("i8"),
    }.items():
        yield "BK323", what, part


def _states(form: Form) -> Iterator[Breach]:
    one, shape, dtype = op.integer(1), shape_of(2), form.dtype()
    body = op.payload(ramp("f4", 2))
    for what, state in {
        "of-4": tuple_of(one, shape, dtype, op.FALSE),
        "of-4-as-old-numpys-read-it": tuple_of(shape, dtype, op.FALSE, body),
        "of-6": tuple_of(one, shape, dtype, op.FALSE, body, op.NONE),
        "version-0": tuple_of(op.integer(0), shape, dtype, op.FALSE, body),
        "version-2": tuple_of(op.integer(2), shape, dtype, op.FALSE, body),
        "version-true": tuple_of(op.TRUE, shape, dtype, op.FALSE, body),
        "number-for-shape": tuple_of(one, op.integer(2), dtype, op.FALSE, body),
        "text-for-dtype": tuple_of(one, shape, form.text("f4"), op.FALSE, body),
        "list-for-bytes": tuple_of(one, shape, dtype, op.FALSE, list_of(one, one)),
        "text-for-bytes": tuple_of(one, shape, dtype, op.FALSE, form.text("abcdefgh")),
    }.items():
        yield "BK325", what, form.array(state=state)


def _flags(form: Form) -> Iterator[Breach]:
    for what, flag in {"none": op.NONE, "0": op.integer(0), "1": op.integer(1)}.items():
        yield "BK327", what, form.array(fortran=flag)
    yield "BK327", "true-with-one-axis", form.array((4,), fortran=op.TRUE)
    yield "BK327", "true-without-axes", form.array((), fortran=op.TRUE)


def _structures(form: Form) -> Iterator[Breach]:
    nothing, texts = tuple_of(op.NONE), tuple_of(form.text("f4"), form.text("abcd"))
    for what, part in {
        "build-on-list": [op.EMPTY_LIST, nothing, op.BUILD],
        "build-on-class": [form.ndarray, nothing, op.BUILD],
        "build-with-number": form.array(state=op.integer(1)),
        "reduce-of-list": [op.EMPTY_LIST, tuple_of(), op.REDUCE],
        "reduce-of-class": [form.ndarray, tuple_of(), op.REDUCE],
        "reduce-with-list": [form.reconstruct, op.EMPTY_LIST, op.REDUCE],
        "class-for-list": form.array(call=form.call(subtype=op.EMPTY_LIST)),
        "dtype-for-class": form.array(call=form.call(subtype=form.dtype_name)),
        "other-shape": form.array(call=form.call(zero=shape_of(1))),
        "other-typecode": form.array(call=form.call(typecode=op.payload(b"d"))),
        "append-to-number": [op.integer(1), form.array(), op.APPEND],
        "tuple-without-mark": [op.TUPLE * 4],
        "scalar-of-text": [form.name(form.core, "scalar"), texts, op.REDUCE],
    }.items():
        yield "BK328", what, part


def _rebuilt(form: Form) -> Iterator[Breach]:
    """Arrays and dtypes without a state, and with two."""
    yield "BK329", "array-in-list", form.call()
    bare = [form.dtype_name, tuple_of(form.text("f4"), *form.flags), op.REDUCE]
    yield "BK329", "dtype-in-array", form.array(dtype=bare)
    itself = Memo(form.call(), "array")
    state = tuple_of(op.integer(1), shape_of(2), form.dtype(), op.FALSE, itself)
    yield "BK329", "array-in-its-state", [itself, state, op.BUILD]
    yield "BK330", "array", [form.array(), tuple_of(op.NONE), op.BUILD]
    sizes = [op.integer(at) for at in (-1, -1, 0)]
    full = tuple_of(op.integer(3), form.order("<"), op.NONE * 3, *sizes)
    yield "BK330", "dtype", form.array(dtype=[form.dtype(), full, op.BUILD])


# --- dtypes ----------------------------------------------------------------------------------


def dtypes(form: Form) -> Iterator[tuple[str, str, Part, int]]:
    """In place of a dtype; last, the bytes of one element."""
    text = form.text("f4")
    for what, dtype in {
        "argument-alone": form.dtype(arguments=tuple_of(text)),
        "arguments-true-true": form.dtype(arguments=tuple_of(text, op.TRUE, op.TRUE)),
        "version-2": form.dtype(version=2),
        "version-4": form.dtype(version=4),
        "item-size-8": form.dtype(size=8),
        "alignment-8": form.dtype(align=8),
        "flags-63": form.dtype(flags=63),
        "flags-1": form.dtype(flags=1),
        "order-of-one-byte": form.dtype(order=form.order("|")),
        "order-native": form.dtype(order=form.order("=")),
        "order-none": form.dtype(order=op.NONE),
        "subarray": form.dtype(nones=[tuple_of(text, shape_of(2)), op.NONE * 2]),
        "names": form.dtype(nones=[op.NONE, tuple_of(form.text("a")), op.NONE]),
        "of-7": form.dtype(state=tuple_of(op.integer(3), form.order("<"), *[op.NONE] * 5)),
    }.items():
        yield "BK326", what, dtype, 4
    yield "BK326", "order-of-int8", form.dtype("i1", order=form.order("<")), 1
    yield "BK331", "float32", form.dtype(order=form.order(">")), 4
    for code, kind, nbytes in (
        ("BK332", "c8", 8), ("BK332", "c16", 16), ("BK333", "f16", 16), ("BK333", "f12", 12),
        ("BK333", "c32", 32),
    ):  # fmt: skip
        yield code, kind, form.dtype(kind), nbytes
    for code, kind, nbytes in (("BK334", "V8", 8), ("BK335", "S5", 5), ("BK335", "U5", 20)):
        yield code, kind, sized_dtype(form, kind[0], int(kind[1:])), nbytes
    for code, kind in (("BK336", "M8"), ("BK336", "m8"), ("BK339", "f4")):
        state = [op.integer(4), form.order("<"), op.NONE * 3, *[op.integer(-1)] * 2]
        dtype = form.dtype(kind, state=tuple_of(*state, op.integer(0), op.EMPTY_DICT))
        yield code, kind, dtype, 8 if kind[1] == "8" else 4
    yield "BK338", "one-field", _structured(form), 4
    for kind in ("2f4", "f4,f4", "O", "f3", "float32", "<f4", "V", ""):
        name = kind.replace(",", "-and-").replace("<", "little-") or "empty"
        yield "BK340", name, form.dtype(kind, order=form.order("<"), flags=0), 8


def sized_dtype(form: Form, kind: str, length: int) -> Part:
    """A dtype of raw bytes (V), bytes (S) or text (U) of so many units an element."""
    wide = kind == "U"
    return form.dtype(
        f"{kind}{length}",
        order=form.order("<" if wide else "|"),
        size=length * 4 if wide else length,
        align=4 if wide else 1,
        flags=8 if wide else 0,
    )


def _structured(form: Form) -> Part:
    field = tuple_of(form.dtype(), op.integer(0))
    fields = [op.EMPTY_DICT, form.text("a"), field, op.SETITEM]
    state = [op.integer(3), form.order("|"), op.NONE, tuple_of(form.text("a")), fields]
    sizes = [op.integer(4), op.integer(1), op.integer(16)]
    return form.dtype("V4", state=tuple_of(*state, *sizes))
