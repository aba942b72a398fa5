"""Attacks that make a loader run code: calls, names, opcodes that build other objects.

Files are assembled opcode by opcode. Each must be refused by one rule at one offset, and nothing it
names may run; payloads would only make a folder named "marker".
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bkformat import Finding, check_bytes
from bkformat import assembler as asm
from bkformat.assembler import HERE, C, D, E, Form, Part

_FORMS = {"protocol-3": D, "protocol-4": E}
_Refuses = Callable[..., Finding]


@pytest.fixture(params=[*_FORMS.values()], ids=[*_FORMS])
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


def slots(form: Form) -> dict[str, Callable[[Part], Part]]:
    """Every place of the grammar, as a function that puts a part there."""
    array, update = form.array, form.update
    seven = asm.integer(7)
    one, shape, flag = asm.integer(1), asm.shape_of(2), asm.FALSE
    body = asm.payload(asm.ramp("f4", 2))

    def after_good(part: Part) -> Part:
        return update(array(), array(), array(), part, array())

    def in_state(at: int) -> Callable[[Part], Part]:
        items: list[Part] = [one, shape, form.dtype(), flag, body]

        def place(part: Part) -> Part:
            return after_good(array(state=asm.tuple_of(*items[:at], part, *items[at + 1 :])))

        return place

    return {
        "root": lambda part: part,
        "before the root": lambda part: [part, update()],
        "after the root": lambda part: [update(), part],
        "outer function": lambda part: form.outer(b"", call=form.call(function=part)),
        "outer class": lambda part: form.outer(b"", call=form.call(subtype=part)),
        "outer dtype": lambda part: form.outer(asm.list_of(seven, seven), dtype=part),
        "outer list": lambda part: form.outer(part),
        "count": lambda part: update(num_samples=part),
        "parameters": lambda part: form.outer(asm.list_of(seven, part)),
        "first array": lambda part: update(part, array()),
        "array after others": after_good,
        "function": lambda part: after_good(array(call=form.call(function=part))),
        "class": lambda part: after_good(array(call=form.call(subtype=part))),
        "zero shape": lambda part: after_good(array(call=form.call(zero=part))),
        "typecode": lambda part: after_good(array(call=form.call(typecode=part))),
        "whole state": lambda part: after_good(array(state=part)),
        "version": in_state(0),
        "shape": in_state(1),
        "dtype": in_state(2),
        "Fortran flag": in_state(3),
        "payload": in_state(4),
        "dimension": lambda part: after_good(array(dims=asm.tuple_of(part))),
        "dtype arguments": lambda part: after_good(array(dtype=form.dtype(arguments=part))),
        "dtype text": lambda part: after_good(
            array(dtype=form.dtype(arguments=asm.tuple_of(part, *form.flags)))
        ),
        "dtype state": lambda part: after_good(array(dtype=form.dtype(state=part))),
        "byte order": lambda part: after_good(array(dtype=form.dtype(order=part))),
        "names and fields": lambda part: after_good(array(dtype=form.dtype(nones=part))),
    }


_SLOTS = list(slots(D))

_GADGETS = (
    ("os", "system"),
    ("os", "mkdir"),
    ("posix", "system"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy.lib.npyio", "load"),
    ("numpy.core.multiarray", "fromstring"),
    ("numpy.core.multiarray", "frombuffer"),
    ("numpy._core.multiarray", "fromfile"),
    ("numpy", "os.system"),
    ("numpy", "ndarray.tofile"),
    ("numpy.core.multiarray", "sys.modules"),
    ("numpy", "memmap"),
)


def named(form: Form, module: str, name: str) -> Part:
    """A name to import, labelled where it must be refused: at the opcode that imports it."""
    if form.protocol < 4:
        return [HERE, asm.global_line(module, name)]
    return [asm.unicode8(module), asm.unicode8(name), HERE, asm.STACK_GLOBAL]


def call_of(function: Part, *arguments: Part) -> Part:
    return [function, asm.tuple_of(*arguments), asm.REDUCE]


def mkdir(form: Form) -> Part:
    """A live payload: makes the folder "marker" when it is loaded."""
    return call_of(named(form, "os", "mkdir"), form.text("marker"))


def test_payload_would_run_if_it_were_loaded(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests below would prove nothing with payloads that do nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(form.stream(mkdir(form)).data)
    assert (tmp_path / "marker").is_dir()


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_01_call_in_any_place(form: Form, slot: str, refuses: _Refuses) -> None:
    built = form.file(slots(form)[slot](mkdir(form)))
    refuses(built.data, "BK203", built.here)


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_01_call_of_an_allowed_name_in_any_place(
    form: Form, slot: str, refuses: _Refuses
) -> None:
    """numpy.ndarray may be named and not called: ndarray((2**40,)) takes a terabyte."""
    call = [form.ndarray, asm.tuple_of(asm.shape_of(2**40)), HERE, asm.REDUCE]
    built = form.file(slots(form)[slot](call))
    refuses(built.data, "BK328", built.here)


def test_attack_01_call_with_other_arguments(form: Form, refuses: _Refuses) -> None:
    for code, function, arguments in (
        ("BK328", form.reconstruct, asm.tuple_of()),
        ("BK328", form.reconstruct, asm.tuple_of(form.ndarray, asm.shape_of(0))),
        ("BK328", form.reconstruct, asm.EMPTY_LIST),
        ("BK326", form.dtype_name, asm.tuple_of(form.text("f4"))),
        ("BK326", form.dtype_name, asm.tuple_of(form.text("f4"), asm.TRUE, asm.TRUE)),
        ("BK328", asm.EMPTY_LIST, asm.tuple_of()),
        ("BK328", form.text("eval"), asm.tuple_of()),
        ("BK328", form.array(), asm.tuple_of()),
        ("BK328", form.dtype(), asm.tuple_of()),
    ):
        built = form.file(form.update([function, arguments, HERE, asm.REDUCE]))
        refuses(built.data, code, built.here)


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_02_inst_in_any_place(form: Form, slot: str, refuses: _Refuses) -> None:
    call = [asm.MARK, form.text("marker"), HERE, asm.inst_line("os", "mkdir")]
    built = form.file(slots(form)[slot](call))
    refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_03_obj_in_any_place(form: Form, slot: str, refuses: _Refuses) -> None:
    for end in (b"", asm.POP):
        call = [asm.MARK, form.ndarray, asm.shape_of(2**40), HERE, asm.OBJ, end]
        built = form.file(slots(form)[slot](call))
        refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_04_newobj_in_any_place(form: Form, slot: str, refuses: _Refuses) -> None:
    call = [form.ndarray, asm.tuple_of(asm.shape_of(2**40)), HERE, asm.NEWOBJ]
    built = form.file(slots(form)[slot](call))
    refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("slot", _SLOTS)
def test_attack_05_newobj_ex_in_any_place(form: Form, slot: str, refuses: _Refuses) -> None:
    call = [form.ndarray, asm.tuple_of(asm.shape_of(9)), asm.EMPTY_TUPLE, HERE, asm.NEWOBJ_EX]
    built = form.file(slots(form)[slot](call))
    refuses(built.data, "BK206", built.here)


def test_attack_06_build_on_what_is_no_array_and_no_dtype(form: Form, refuses: _Refuses) -> None:
    state = asm.tuple_of(asm.NONE, asm.tuple_of())
    for target in (
        form.ndarray,
        form.reconstruct,
        form.dtype_name,
        asm.EMPTY_LIST,
        asm.integer(1),
        asm.NONE,
        form.text("os"),
        asm.tuple_of(asm.integer(1)),
        asm.payload(b"xyz"),
        form.scalar(),
    ):
        built = form.file(form.update([target, state, HERE, asm.BUILD]))
        refuses(built.data, "BK328", built.here)


def test_attack_06_build_with_a_dict_or_an_object_as_state(form: Form, refuses: _Refuses) -> None:
    attributes: Part = [HERE, asm.EMPTY_DICT, form.text("__class__"), form.ndarray, asm.SETITEM]
    built = form.file(form.update(form.array(state=attributes)))
    refuses(built.data, "BK313", built.here)
    for state in (asm.NONE, asm.EMPTY_LIST, form.ndarray, form.text("x"), form.array((3,))):
        built = form.file(form.update([form.call(), state, HERE, asm.BUILD]))
        expected = "BK328"
        refuses(built.data, expected, built.here)


def test_attack_07_names_through_the_memo(refuses: _Refuses) -> None:
    """Scanners that look back for two texts see numpy and dtype; the stack says os and mkdir."""
    module = asm.Memo(asm.unicode8("os"), "module")
    name = asm.Memo(asm.unicode8("mkdir"), "name")
    decoy = asm.tuple_of(E.text("numpy"), E.text("dtype"))
    fetched = [module, name, HERE, asm.STACK_GLOBAL]
    call = [asm.tuple_of(module, name), decoy, *fetched, asm.tuple_of(), asm.REDUCE]
    built = E.file(E.update(num_samples=call))
    refuses(built.data, "BK203", built.here)


def test_attack_07_names_in_another_order(refuses: _Refuses) -> None:
    """The memo gives mkdir first; what counts is the order on the stack."""
    name = asm.Memo(asm.unicode8("mkdir"), "name")
    module = asm.Memo(asm.unicode8("os"), "module")
    call = [asm.tuple_of(name, module), module, name, HERE, asm.STACK_GLOBAL]
    built = E.file(E.update(num_samples=call))
    refuses(built.data, "BK203", built.here)


def test_attack_07_names_that_are_no_texts(refuses: _Refuses) -> None:
    number = asm.Memo([asm.integer(1), asm.TUPLE1], "tuple")
    for module, name in (
        (asm.integer(1), asm.unicode8("dtype")),
        (asm.unicode8("numpy"), asm.payload(b"dtype")),
        (asm.unicode8("numpy"), E.ndarray),
        (asm.NONE, asm.NONE),
        ([number, number], asm.unicode8("dtype")),
    ):
        built = E.file(E.update(num_samples=[module, name, HERE, asm.STACK_GLOBAL]))
        refuses(built.data, "BK220", built.here)


def test_attack_07_names_by_dup(form: Form, refuses: _Refuses) -> None:
    part = [form.text("numpy"), HERE, asm.DUP, asm.STACK_GLOBAL]
    built = form.file(form.update(num_samples=part))
    refuses(built.data, "BK206", built.here)


def test_attack_08_memo_slot_is_overwritten(form: Form, refuses: _Refuses) -> None:
    for put in (asm.binput(0), asm.long_binput(0), asm.binput(3)):
        built = form.file(form.update(num_samples=[form.ndarray, asm.payload(b"xy"), HERE, put]))
        refuses(built.data, "BK214", built.here)


def test_attack_08_memoize_counts_entries(refuses: _Refuses) -> None:
    """MEMOIZE writes to the number of entries, which an explicit index can have taken."""
    taken: Part = [asm.unicode8("os"), asm.binput(1), asm.unicode8("mkdir"), HERE, asm.MEMOIZE]
    built = E.file(asm.tuple_of(taken), memo="none", frames=False)
    refuses(built.data, "BK214", built.here)


def test_attack_08_memo_write_is_away_from_its_value(form: Form, refuses: _Refuses) -> None:
    put = asm.binput(0)
    for before in (asm.MARK, asm.integer(7), asm.NONE, asm.TRUE, asm.EMPTY_TUPLE, form.array()):
        built = form.file([before, HERE, put], memo="none")
        refuses(built.data, "BK217", built.here)
    built = form.file([HERE, put], memo="none")
    refuses(built.data, "BK217", built.here)


_NUMPY_NAMES = (
    ("numpy", "load"), ("numpy", "loads"), ("numpy", "fromfile"), ("numpy", "loadtxt"),
    ("numpy", "genfromtxt"), ("numpy", "save"), ("numpy", "DataSource"), ("numpy", "vectorize"),
    ("numpy", "apply_along_axis"), ("numpy", "f2py"), ("numpy", "dtypes"), ("numpy", "float64"),
    ("numpy.f2py.crackfortran", "myeval"), ("numpy.f2py.capi_maps", "getinit"),
    ("numpy.f2py.crackfortran", "_eval_length"), ("numpy.testing._private.utils", "runstring"),
    ("numpy.testing._private.utils", "rundocs"), ("numpy.ma.mrecords", "openfile"),
    ("numpy.core._internal", "_ctypes"), ("numpy.core.multiarray", "_reconstruct_"),
    ("numpy.core.multiarray", "reconstruct"), ("numpy._core.multiarray", "set_typeDict"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.records", "fromfile"), ("numpy.lib.format", "read_array"),
)  # fmt: skip


@pytest.mark.parametrize(("module", "name"), _NUMPY_NAMES)
def test_attack_09_other_names_of_numpy(
    form: Form, module: str, name: str, refuses: _Refuses
) -> None:
    """An allowed prefix such as "numpy" has let such names through elsewhere."""
    built = form.file(form.update(call_of(named(form, module, name))))
    refuses(built.data, "BK203", built.here)


def test_attack_09_memmap_is_no_plain_array(form: Form, refuses: _Refuses) -> None:
    built = form.file(form.update(call_of(named(form, "numpy", "memmap"), form.text("marker"))))
    refuses(built.data, "BK222", built.here)


def test_attack_09_allowed_names_in_other_modules(form: Form, refuses: _Refuses) -> None:
    for module, name in (
        ("numpy", "_reconstruct"),
        ("numpy", "scalar"),
        ("numpy.core.multiarray", "ndarray"),
        ("numpy.core.multiarray", "dtype"),
        ("numpy.core", "multiarray"),
        ("numpy.core.multiarray.", "_reconstruct"),
        ("Numpy", "dtype"),
        ("numpy", "Dtype"),
        ("multiarray", "_reconstruct"),
    ):
        built = form.file(form.update(call_of(named(form, module, name))))
        refuses(built.data, "BK203", built.here)


def test_attack_10_dotted_names(form: Form, refuses: _Refuses) -> None:
    for module, name in (
        ("numpy", "os.system"),
        ("numpy", "dtype.__init_subclass__"),
        ("numpy", "ndarray.dump"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy", "ndarray."),
        ("numpy", ".ndarray"),
    ):
        if form.protocol >= 4 or not name.startswith("."):
            built = form.file(form.update(call_of(named(form, module, name))))
            refuses(built.data, "BK203", built.here)
    built = D.file(D.update(call_of(named(D, "numpy", ".ndarray"))))
    refuses(built.data, "BK220", built.here)


_BAD_LINES = {
    "carriage return": (b"numpy\r", b"dtype"),
    "carriage return in the name": (b"numpy", b"dtype\r"),
    "space before": (b" numpy", b"dtype"),
    "space behind": (b"numpy", b"dtype "),
    "tab": (b"numpy", b"dtype\t"),
    "full-width letter": (b"numpy", "\uff44type".encode()),
    "Cyrillic letter": ("\u043fumpy".encode(), b"dtype"),
    "latin-1 byte": (b"numpy\xa0", b"dtype"),
    "nul": (b"numpy", b"dtype\0"),
    "vertical tab": (b"numpy", b"dtype\x0b"),
    "empty module": (b"", b"dtype"),
    "empty name": (b"numpy", b""),
    "both empty": (b"", b""),
    "digit first": (b"numpy", b"1dtype"),
    "hyphen": (b"num-py", b"dtype"),
    "129 bytes": (b"numpy", b"d" * 129),
    "10,000 bytes": (b"n" * 10_000, b"dtype"),
}


@pytest.mark.parametrize("what", _BAD_LINES)
def test_attack_11_malformed_lines(form: Form, what: str, refuses: _Refuses) -> None:
    built = form.file(form.update(num_samples=[HERE, asm.global_line(*_BAD_LINES[what])]))
    refuses(built.data, "BK220", built.here)


def test_attack_11_malformed_texts(refuses: _Refuses) -> None:
    for text in ("numpy\n", "numpy\0", "\u043fumpy", "\uff4eumpy", "n" * 257, "\x7f"):
        for write in (asm.unicode32, asm.unicode8):
            if write is asm.unicode32 or len(text) < 256:
                part: Part = [HERE, write(text), asm.unicode8("dtype"), asm.STACK_GLOBAL]
                built = E.file(E.update(num_samples=part))
                refuses(built.data, "BK219", built.here)
    for module, name in (("", ""), ("numpy ", "dtype"), (" numpy", "dtype"), ("numpy", "")):
        built = E.file(E.update(num_samples=named(E, module, name)))
        refuses(built.data, "BK203", built.here)


def test_attack_12_names_of_python_2_are_not_mapped(form: Form, refuses: _Refuses) -> None:
    for module, name in (
        ("__builtin__", "eval"),
        ("__builtin__", "file"),
        ("copy_reg", "_reconstructor"),
        ("copyreg", "_reconstructor"),
        ("UserDict", "UserDict"),
        ("commands", "getoutput"),
        ("exceptions", "Exception"),
        ("itertools", "imap"),
    ):
        built = form.file(form.update(call_of(named(form, module, name))))
        refuses(built.data, "BK203", built.here)


@pytest.mark.parametrize("opcode", ["EXT1", "EXT2", "EXT4"])
def test_attack_13_extension_registry(form: Form, opcode: str, refuses: _Refuses) -> None:
    for place in slots(form).values():
        built = form.file(place([HERE, asm.FORBIDDEN[opcode]]))
        refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("opcode", ["PERSID", "BINPERSID"])
def test_attack_14_persistent_ids(form: Form, opcode: str, refuses: _Refuses) -> None:
    for place in slots(form).values():
        built = form.file(place([form.text("marker"), HERE, asm.FORBIDDEN[opcode]]))
        refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("opcode", ["NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8"])
def test_attack_15_buffers(form: Form, opcode: str, refuses: _Refuses) -> None:
    for place in slots(form).values():
        built = form.file(place([HERE, asm.FORBIDDEN[opcode]]))
        refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("opcode", [*asm.FORBIDDEN])
def test_attack_15_every_opcode_outside_the_tables(
    form: Form, opcode: str, refuses: _Refuses
) -> None:
    for place in slots(form).values():
        built = form.file(place([form.ndarray, asm.MARK, HERE, asm.FORBIDDEN[opcode]]))
        refuses(built.data, "BK206", built.here)


@pytest.mark.parametrize("opcode", [*asm.FORBIDDEN_IN_3])
def test_attack_15_opcodes_of_protocol_4_in_protocol_3(opcode: str, refuses: _Refuses) -> None:
    for place in slots(D).values():
        built = D.file(place([D.ndarray, HERE, asm.FORBIDDEN_IN_3[opcode]]))
        refuses(built.data, "BK206", built.here)


def test_attack_16_reconstruct_of_another_class(form: Form, refuses: _Refuses) -> None:
    for code, module, name in (
        ("BK203", "builtins", "list"),
        ("BK203", "numpy.ma", "MaskedArray"),
        ("BK222", "numpy", "memmap"),
        ("BK222", "numpy", "matrix"),
        ("BK222", "numpy", "recarray"),
    ):
        array = form.array(call=form.call(subtype=named(form, module, name)))
        built = form.file(form.update(array))
        refuses(built.data, code, built.here)
    for subtype in (
        form.dtype_name,
        form.reconstruct,
        asm.NONE,
        form.text("ndarray"),
        form.dtype(),
    ):
        _refuses_call(form, refuses, subtype=subtype)


def test_attack_16_reconstruct_with_another_shape_or_typecode(
    form: Form, refuses: _Refuses
) -> None:
    for zero in (
        asm.shape_of(),
        asm.shape_of(1),
        asm.shape_of(2**40),
        asm.shape_of(0, 0),
        asm.tuple_of(asm.FALSE),
        asm.tuple_of(asm.real(0.0)),
        asm.integer(0),
        asm.EMPTY_LIST,
    ):
        _refuses_call(form, refuses, zero=zero)
    for typecode in (b"", b"d", b"O", b"B", b"bb", b"b\0"):
        _refuses_call(form, refuses, typecode=asm.payload(typecode))
    _refuses_call(form, refuses, typecode=form.text("b"))


def _refuses_call(form: Form, refuses: _Refuses, **replaced: Part) -> None:
    *parts, reduce = form.call(**replaced)
    good = form.array()
    call: Part = [*parts, HERE, reduce]  # type: ignore[list-item]
    built = form.file(form.update(good, good, form.array(call=call)))
    refuses(built.data, "BK328", built.here)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("_codecs", "encode"),
        ("numpy.core.numeric", "_frombuffer"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        ("joblib.numpy_pickle", "NDArrayWrapper"),
        ("importlib", "import_module"),
        ("importlib.util", "spec_from_file_location"),
        ("pkgutil", "resolve_name"),
        ("pydoc", "locate"),
        ("timeit", "timeit"),
        ("cProfile", "run"),
        ("trace", "Trace"),
        ("pdb", "run"),
        ("bdb", "Bdb"),
        ("runpy", "run_path"),
        ("code", "InteractiveConsole"),
        ("torch.utils.collect_env", "run"),
        ("idlelib.pyshell", "ModifiedInterpreter"),
        ("ctypes", "CDLL"),
        ("functools", "partial"),
        ("operator", "methodcaller"),
    ],
)
def test_attack_17_18_19_wrappers_resolvers_and_profilers(
    form: Form, module: str, name: str, refuses: _Refuses
) -> None:
    built = form.file(form.update(call_of(named(form, module, name), form.text("marker"))))
    refuses(built.data, "BK203", built.here)


def test_attack_17_scalars_are_understood_and_refused(form: Form, refuses: _Refuses) -> None:
    scalar = form.scalar("f8")
    built = form.file(form.update(form.array(), [HERE, scalar]))
    # A name that comes from two texts began with the first of them.
    refuses(built.data, "BK317", built.here + _texts_before_name(form))
    pickled = form.stream(mkdir(form)).data
    objects = [form.name(form.core, "scalar"), asm.tuple_of(form.dtype("O8"), asm.payload(pickled))]
    built = form.file(form.update(form.array(), [HERE, objects, asm.REDUCE]))
    refuses(built.data, "BK317", built.here + _texts_before_name(form))


def _texts_before_name(form: Form) -> int:
    """Bytes from the module's text to STACK_GLOBAL, where the module is in the memo already."""
    if form.protocol < 4:
        return 0
    return len(asm.binget(0) + asm.unicode8("scalar") + asm.MEMOIZE)


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_attack_20_payload_before_broken_bytes(form: Form, cut: int, refuses: _Refuses) -> None:
    """Loaders run what stands before the break, and scanners give up at it."""
    built = form.file(form.update(mkdir(form), form.array((9,)), form.array((9,))))
    refuses(built.data[:-cut], "BK203" if form is D else "BK210", built.here if form is D else 130)
    garbage = built.data[:-cut] + b"\xff" * cut
    refuses(garbage, "BK203", built.here)


def test_attack_21_pickle_inside_a_payload_stays_bytes(form: Form, refuses: _Refuses) -> None:
    inner = form.stream(mkdir(form)).data
    built = form.file(form.update(form.array((len(inner),), "u1", inner)))
    report = check_bytes(built.data)
    assert report.valid
    assert [found.code for found in report.findings] == ["BK601"]
    objects = form.array((1,), body=asm.payload(inner), dtype=form.dtype("O8"))
    # The state is refused where it is set: bytes are no list of objects.
    data = form.file(form.update(objects)).data
    refuses(data, "BK325", _offset_of_build_after(data, inner))


def _offset_of_build_after(data: bytes, inner: bytes) -> int:
    return data.index(asm.BUILD, data.index(inner) + len(inner))


def test_attack_21_objects_inside_an_inner_array(form: Form, refuses: _Refuses) -> None:
    inner = form.outer(asm.list_of(form.array(), asm.integer(1)))
    built = form.file(form.update(form.array(), [HERE, inner]))
    refuses(built.data, "BK337", built.here)
    hostile = form.outer(asm.list_of(mkdir(form), asm.integer(1)))
    built = form.file(form.update(form.array(), hostile))
    refuses(built.data, "BK203", built.here)


def _dtype_call(form: Form, *arguments: Part) -> Part:
    call = [form.dtype_name, asm.tuple_of(*arguments), HERE, asm.REDUCE]
    return form.array(dtype=[call, asm.tuple_of(asm.NONE), asm.BUILD])


@pytest.mark.parametrize(
    "text",
    [
        "2f4", "(2,)f4", "f4,f4", "f4:f4", "O", "V", "S", "U", "M8[s]", "m8[ns]", "<f4", ">f4",
        "=f4", "|u1", "float32", "single", "f", "e", "g", "?", "b", "f3", "f04", " f4", "f4 ",
        "F4", "i16", "u3", "b2", "c4", "S-1", "S99999999999", "V1e9", "a5", "T", "l", "",
        "f4\\0",
    ],
)  # fmt: skip
def test_attack_22_other_dtype_texts(form: Form, text: str, refuses: _Refuses) -> None:
    built = form.file(form.update(_dtype_call(form, form.text(text), *form.flags)))
    refuses(built.data, "BK340", built.here)


def test_attack_22_dtype_of_no_text(form: Form, refuses: _Refuses) -> None:
    for part in (form.ndarray, asm.integer(4), asm.NONE, asm.payload(b"f4"), form.dtype("f8")):
        built = form.file(form.update(_dtype_call(form, part, *form.flags)))
        refuses(built.data, "BK340", built.here)


def _other_flags(form: Form) -> Iterator[tuple[Part, ...]]:
    zero, one = asm.integer(0), asm.integer(1)
    yield from (
        (),
        (asm.TRUE,),
        (asm.TRUE, asm.TRUE),
        (asm.FALSE, asm.FALSE),
        (asm.TRUE, asm.FALSE),
    )
    yield from ((zero, zero), (one, one), (one, zero), (asm.FALSE, one), (zero, asm.TRUE))
    yield from ((asm.NONE, asm.NONE), (asm.FALSE, asm.TRUE, asm.EMPTY_TUPLE))
    if form.protocol >= 4:
        yield zero, one


def test_attack_22_other_dtype_arguments(form: Form, refuses: _Refuses) -> None:
    for flags in _other_flags(form):
        built = form.file(form.update(_dtype_call(form, form.text("f4"), *flags)))
        refuses(built.data, "BK326", built.here)
    assert check_bytes(C.file().data).valid


@pytest.mark.parametrize("slot", _SLOTS)
def test_every_gadget_in_every_place_by_every_way(form: Form, slot: str, refuses: _Refuses) -> None:
    """What numpy or os name is refused wherever it stands and however it gets there."""
    place = slots(form)[slot]
    for module, name in _GADGETS:
        for code, way in _ways(form, module, name):
            built = form.file(place(way))
            refuses(built.data, code, built.here)


def _ways(form: Form, module: str, name: str) -> Iterator[tuple[str, Part]]:
    argument = form.text("marker")
    line = asm.global_line(module, name)
    # A memmap is refused with the remedy for what it most often is: an honest mistake.
    code = "BK222" if name == "memmap" else "BK203"
    yield code, [HERE, line, asm.tuple_of(argument), asm.REDUCE]
    yield code, [asm.MARK, HERE, line, argument, asm.OBJ]
    yield code, [HERE, line, asm.tuple_of(argument), asm.NEWOBJ]
    yield "BK206", [asm.MARK, argument, HERE, asm.inst_line(module, name)]
    texts = [asm.Memo(asm.unicode32(text), ("way", text)) for text in (module, name)]
    stack_global = code if form.protocol >= 4 else "BK206"
    yield stack_global, [*texts, HERE, asm.STACK_GLOBAL, asm.tuple_of(argument), asm.REDUCE]
    again = [asm.tuple_of(*texts), *texts, HERE, asm.STACK_GLOBAL, asm.tuple_of(argument)]
    yield stack_global, [*again, asm.REDUCE]


def test_slots_hold_what_is_put_there(form: Form) -> None:
    """A place that dropped its part would make the tests above prove nothing."""
    for slot, place in slots(form).items():
        built = form.file(place([HERE, asm.unicode32("needle")]))
        assert built.data.count(b"needle") == 1, slot
        assert built.data[built.here + 5 :].startswith(b"needle"), slot
        assert io.BytesIO(built.data).read(6) == b"\x93NUMPY"
