"""Attacks that bend the structure: states, orders, aliases, tails, and every small damage."""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator

import pytest

from bkformat import Finding, check_bytes
from bkformat import assembler as asm
from bkformat.assembler import CANONICAL, HERE, C, D, E, Form, Part
from bkformat.validate import judge, source_of

_FORMS = {"protocol-3": D, "protocol-4": E}
_Refuses = Callable[..., Finding]


@pytest.fixture(params=[*_FORMS.values()], ids=[*_FORMS])
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


def among_good(form: Form, array: Part) -> asm.Built:
    """A file with this array behind three of the usual form, and one more behind it."""
    good = form.array((3,))
    return form.file(form.update(good, good, good, array, good))


def state_of(form: Form, *items: Part) -> Part:
    """An array with this state, labelled where it is set."""
    return [form.call(), asm.tuple_of(*items), HERE, asm.BUILD]


# --- one array -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (0,), (), (3, 4), (2, 0, 3), (300,)])
@pytest.mark.parametrize("text", ["f2", "f4", "f8", "i1", "b1"])
def test_attack_55_payload_of_another_length(
    form: Form, shape: tuple[int, ...], text: str, refuses: _Refuses
) -> None:
    size = math.prod(shape) * int(text[1])
    for nbytes in {0, size - 1, size + 1, size * 2, size + 256} - {size, -1}:
        opcode = asm.payload(bytes(nbytes))
        head = len(opcode) - nbytes
        built = among_good(form, form.array(shape, text, body=[HERE, opcode]))
        refuses(built.data, "BK321", built.here + head)


def test_attack_56_state_of_another_form(form: Form, refuses: _Refuses) -> None:
    one, shape, dtype, flag = asm.integer(1), asm.shape_of(2), form.dtype(), asm.FALSE
    body = asm.payload(bytes(8))
    for items in (
        (),
        (one,),
        (shape, dtype, flag, body),
        (one, shape, dtype, flag),
        (one, shape, dtype, flag, body, asm.NONE),
        (one, dtype, shape, flag, body),
        (one, shape, flag, dtype, body),
        (one, asm.integer(2), dtype, flag, body),
        (one, asm.list_of(asm.integer(2)), dtype, flag, body),
        (one, asm.NONE, dtype, flag, body),
        (one, shape, form.text("f4"), flag, body),
        (one, shape, form.dtype_name, flag, body),
        (one, shape, dtype, flag, form.text("abcdefgh")),
        (one, shape, dtype, flag, asm.NONE),
        (one, shape, dtype, flag, asm.EMPTY_LIST),
        (one, shape, dtype, flag, form.array()),
    ):
        built = among_good(form, state_of(form, *items))
        refuses(built.data, "BK325", built.here)


def test_attack_56_state_of_another_version(form: Form, refuses: _Refuses) -> None:
    body = asm.payload(bytes(8))
    numbers = [asm.integer(version) for version in (0, 2, 3, -1, 257, 2**32 + 1)]
    for part in (*numbers, asm.TRUE, asm.real(1.0), form.text("1"), asm.NONE):
        built = among_good(
            form, state_of(form, part, asm.shape_of(2), form.dtype(), asm.FALSE, body)
        )
        refuses(built.data, "BK325", built.here)


def dtype_state(form: Form, text: str, *items: Part) -> Part:
    """An array whose dtype has this state, labelled where that is set."""
    call = [form.dtype_name, asm.tuple_of(form.text(text), *form.flags), asm.REDUCE]
    dtype = [call, asm.MARK, *items, asm.TUPLE, HERE, asm.BUILD]
    return form.array((1,), body=asm.payload(bytes(int(text[1:]))), dtype=dtype)


def _dtype_states(form: Form) -> Iterator[tuple[str, list[Part]]]:
    """The usual state of a float32 with one item replaced, left out or added."""
    usual = [
        asm.integer(3),
        form.order("<"),
        *[asm.NONE] * 3,
        *[asm.integer(-1)] * 2,
        asm.integer(0),
    ]
    others: list[list[Part]] = [
        [asm.integer(0), asm.integer(2), asm.integer(4), asm.TRUE, asm.NONE, form.text("3")],
        [
            form.order("|"),
            form.order("="),
            form.order("@"),
            form.text("<<"),
            form.text(""),
            asm.NONE,
        ],
        [asm.tuple_of(form.dtype("f8"), asm.shape_of(2)), form.text("f8"), asm.integer(0)],
        [asm.tuple_of(form.text("a")), asm.EMPTY_TUPLE, asm.FALSE],
        [form.text("fields"), asm.EMPTY_LIST, asm.EMPTY_TUPLE],
        [asm.integer(0), asm.integer(1), asm.integer(4), asm.integer(8), asm.NONE, asm.real(-1.0)],
        [asm.integer(0), asm.integer(1), asm.integer(4), asm.integer(2**31 - 1), asm.TRUE],
        [
            asm.integer(1),
            asm.integer(8),
            asm.integer(16),
            asm.integer(63),
            asm.integer(-1),
            asm.FALSE,
        ],
    ]
    for at, replacements in enumerate(others):
        for number, other in enumerate(replacements):
            yield f"{at}-{number}", [*usual[:at], other, *usual[at + 1 :]]
    for at in range(len(usual)):
        yield f"without-{at}", [*usual[:at], *usual[at + 1 :]]
    yield "metadata", [*usual, asm.NONE]
    yield "nothing", []


_DTYPE_STATES = [name for name, _ in _dtype_states(D)]


@pytest.mark.parametrize("name", _DTYPE_STATES)
def test_attack_56_59_dtype_state_of_another_form(form: Form, name: str, refuses: _Refuses) -> None:
    """An item size that is a lie is believed by numpy."""
    built = among_good(form, dtype_state(form, "f4", *dict(_dtype_states(form))[name]))
    refuses(built.data, "BK326", built.here)


def test_attack_56_59_sizes_of_text_dtypes_are_not_believed(form: Form, refuses: _Refuses) -> None:
    for text, size in (("S5", 4), ("S5", -1), ("U5", 5), ("V8", 2**31 - 1)):
        head = [asm.integer(3), form.order("|"), *[asm.NONE] * 3]
        state = [*head, asm.integer(size), asm.integer(1), asm.integer(0)]
        built = among_good(form, dtype_state(form, text, *state))
        refuses(built.data, "BK326", built.here)


def test_attack_57_fortran_flag(form: Form, refuses: _Refuses) -> None:
    one, dtype, body = asm.integer(1), form.dtype(), asm.payload(bytes(8))
    for flag in (asm.NONE, asm.integer(0), one, asm.real(0.0), form.text(""), asm.EMPTY_TUPLE):
        built = among_good(form, state_of(form, one, asm.shape_of(2, 1), dtype, flag, body))
        refuses(built.data, "BK327", built.here)
    for shape, nbytes in (((2,), 8), ((), 4), ((0,), 0)):
        body = asm.payload(bytes(nbytes))
        array = state_of(form, one, asm.shape_of(*shape), dtype, asm.TRUE, body)
        built = among_good(form, array)
        refuses(built.data, "BK327", built.here)
    turned = among_good(form, form.array((2, 3), fortran=asm.TRUE))
    assert check_bytes(turned.data).valid


def test_attack_58_byte_order_and_item_size(form: Form, refuses: _Refuses) -> None:
    rest = [*[asm.NONE] * 3, *[asm.integer(-1)] * 2, asm.integer(0)]
    for text, orders in {
        "f4": "|=@!lb",
        "f8": "|=",
        "i2": "|=",
        "i1": "<>=",
        "b1": "<>=",
        "u1": "<",
    }.items():
        for order in orders:
            array = dtype_state(form, text, asm.integer(3), form.order(order), *rest)
            built = among_good(form, array)
            refuses(built.data, "BK326", built.here)
    big = form.dtype("f4", order=form.order(">"))
    array = form.array((1,), dtype=big, body=[HERE, asm.payload(bytes(4))])
    built = among_good(form, array)
    refuses(built.data, "BK331", built.here + 2)


# --- unfinished, twice, itself ---------------------------------------------------------------


def test_attack_60_array_is_used_before_its_state(form: Form, refuses: _Refuses) -> None:
    unbuilt = form.call()
    good = form.array()
    for update in (
        form.outer(asm.list_of(asm.integer(7), [asm.EMPTY_LIST, unbuilt, HERE, asm.APPEND])),
        form.outer(
            asm.list_of(
                asm.integer(7), [asm.EMPTY_LIST, asm.MARK, good, unbuilt, good, HERE, asm.APPENDS]
            )
        ),
        form.update(num_samples=[unbuilt, HERE, asm.TUPLE1]),
        form.update(num_samples=[good, unbuilt, HERE, asm.TUPLE2]),
    ):
        built = form.file(update)
        refuses(built.data, "BK329", built.here)
    built = form.file([unbuilt, HERE], memo="none")
    refuses(built.data, "BK329", built.here)


def test_attack_60_array_is_fetched_before_its_state(form: Form, refuses: _Refuses) -> None:
    """An alias in the list, and the state set afterwards: readers see an empty array."""
    early = asm.Memo(form.call(), "early")
    state = asm.tuple_of(
        asm.integer(1), asm.shape_of(2), form.dtype(), asm.FALSE, asm.payload(bytes(8))
    )
    items = [asm.EMPTY_LIST, early, HERE, early, asm.APPEND, state, asm.BUILD, asm.APPEND]
    built = form.file(form.outer(asm.list_of(asm.integer(7), items)))
    refuses(built.data, "BK329", built.here)


def test_attack_60_dtype_without_its_state(form: Form, refuses: _Refuses) -> None:
    bare = [form.dtype_name, asm.tuple_of(form.text("f4"), *form.flags), asm.REDUCE]
    body = asm.payload(bytes(8))
    state = [asm.MARK, asm.integer(1), asm.shape_of(2), bare, asm.FALSE, body, HERE, asm.TUPLE]
    built = among_good(form, [form.call(), state, asm.BUILD])
    refuses(built.data, "BK329", built.here)
    built = form.file([bare, HERE], memo="none")
    refuses(built.data, "BK329", built.here)


def test_attack_60_state_is_set_twice(form: Form, refuses: _Refuses) -> None:
    state = asm.tuple_of(
        asm.integer(1), asm.shape_of(2), form.dtype(), asm.FALSE, asm.payload(bytes(8))
    )
    built = among_good(form, [form.array(), state, HERE, asm.BUILD])
    refuses(built.data, "BK330", built.here)
    alias = form.array(key="alias")
    for between in ([], [form.array((3,))], [form.array((3,)), form.array((4,))]):
        built = form.file(form.update(alias, *between, [alias, state, HERE, asm.BUILD]))
        refuses(built.data, "BK330", built.here)
    root = form.update()
    built = form.file([root, state, HERE, asm.BUILD])
    refuses(built.data, "BK330", built.here)


def test_attack_60_state_of_a_dtype_is_set_twice(form: Form, refuses: _Refuses) -> None:
    sizes = [asm.integer(8), asm.integer(-1), asm.integer(0)]
    state = asm.tuple_of(asm.integer(3), form.order("<"), *[asm.NONE] * 3, *sizes)
    for dtype in (form.dtype("f4"), form.dtype("O8")):
        twice = [dtype, state, HERE, asm.BUILD]
        built = among_good(form, form.array(dtype=twice))
        refuses(built.data, "BK330", built.here)


def test_attack_61_list_in_itself(form: Form, refuses: _Refuses) -> None:
    itself = asm.Memo(asm.EMPTY_LIST, "list")
    for items in (
        [itself, HERE, itself, asm.APPEND],
        [itself, asm.MARK, form.array(), HERE, itself, asm.APPENDS],
        [itself, form.array(), asm.APPEND, HERE, itself, form.array((3,)), asm.APPEND],
    ):
        built = form.file(form.outer(asm.list_of(asm.integer(7), items)))
        refuses(built.data, "BK328", built.here)
    outer = [itself, asm.MARK, asm.integer(7), HERE, itself, asm.APPENDS]
    built = form.file(form.outer(outer))
    refuses(built.data, "BK328", built.here)


def test_attack_61_array_in_itself(form: Form, refuses: _Refuses) -> None:
    itself = asm.Memo(form.call(), "array")
    items = [asm.EMPTY_LIST, asm.MARK, asm.integer(7), HERE, itself, asm.APPENDS]
    state = [
        asm.MARK,
        asm.integer(1),
        asm.shape_of(2),
        form.dtype("O8"),
        asm.FALSE,
        items,
        asm.TUPLE,
    ]
    built = form.file([itself, state, asm.BUILD])
    refuses(built.data, "BK329", built.here)


def test_attack_61_same_array_twice(form: Form, refuses: _Refuses) -> None:
    tied = form.array(key="tied")
    for between in range(4):
        others = [form.array((3,)) for _ in range(between)]
        built = form.file(form.update(tied, *others, [HERE, tied], *others))
        refuses(built.data, "BK319", built.here)


def test_attack_61_same_list_for_both_items(form: Form, refuses: _Refuses) -> None:
    again = asm.Memo(asm.EMPTY_LIST, "list")
    outer = asm.list_of([again, form.array(), asm.APPEND], [HERE, again])
    built = form.file(form.outer(outer))
    refuses(built.data, "BK328", built.here)


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("BK311", asm.integer(0)),
        ("BK311", asm.integer(-1)),
        ("BK311", asm.integer(-(2**31))),
        ("BK311", asm.integer(2**53 + 1)),
        ("BK311", asm.integer(2**63 - 1)),
        ("BK311", asm.long1(-7, 60)),
        ("BK307", asm.TRUE),
        ("BK307", asm.FALSE),
        ("BK308", asm.real(7.0)),
        ("BK308", asm.real(math.nan)),
        ("BK308", asm.real(math.inf)),
        ("BK306", asm.NONE),
        ("BK306", asm.unicode32("7")),
        ("BK306", asm.payload(b"7")),
        ("BK306", asm.EMPTY_TUPLE),
        ("BK306", asm.EMPTY_LIST),
        ("BK310", None),
        ("BK309", None),
    ],
)
def test_attack_61_count_is_no_count(
    form: Form, code: str, part: Part | None, refuses: _Refuses
) -> None:
    """The array and the scalar begin with their name, which stands in the memo or is spelt out."""
    if code == "BK310":
        part = form.array((), "i8")
    elif code == "BK309":
        part = [asm.tuple_of(), form.scalar("i8")]
        built = form.file(form.update(num_samples=form.scalar("i8")))
        finding = refuses(built.data, code, _offset_of_name(built.data, b"scalar"))
        assert finding.where == "num_samples"
        return
    assert part is not None
    built = form.file(form.update(num_samples=[HERE, part]))
    finding = refuses(built.data, code, built.here)
    assert finding.where == "num_samples"


def _offset_of_name(data: bytes, name: bytes) -> int:
    """Offset of the opcode that imports this name."""
    start = data.index(b"\n", 10) + 1
    for opcode, argument, at in pickletools.genops(data[start:]):
        if opcode.name == "GLOBAL" and str(argument).endswith(f" {name.decode()}"):
            return start + (at or 0)
        if opcode.name == "STACK_GLOBAL" and data.index(name) < start + (at or 0):
            return start + (at or 0)
    raise AssertionError(name)


def test_attack_61_other_containers(form: Form, refuses: _Refuses) -> None:
    array = form.array()
    pair = asm.tuple_of(form.array(), form.array((3,)))
    cases: list[tuple[str, Part]] = [
        ("BK314", [HERE, asm.NONE]),
        ("BK314", [HERE, asm.integer(3)]),
        ("BK314", [HERE, form.text("w")]),
        ("BK314", [HERE, asm.payload(b"www")]),
        ("BK315", [HERE, asm.EMPTY_LIST]),
        ("BK313", [HERE, asm.EMPTY_DICT]),
        ("BK312", [asm.MARK, array, form.array((3,)), HERE, asm.TUPLE]),
        ("BK312", [array, HERE, asm.TUPLE1]),
        ("BK318", asm.list_of([HERE, asm.EMPTY_LIST, pair, asm.APPEND], array)),
    ]
    for code, part in cases:
        built = form.file(form.outer(asm.list_of(asm.integer(7), part)))
        refuses(built.data, code, built.here)


def test_attack_62_root_is_no_object_array(form: Form, refuses: _Refuses) -> None:
    both = asm.list_of(asm.integer(7), asm.list_of(form.array()))
    cases: list[tuple[str, Part]] = [
        ("BK301", [HERE, both]),
        ("BK301", [HERE, asm.integer(7)]),
        ("BK301", [HERE, asm.NONE]),
        ("BK301", [asm.integer(7), asm.integer(7), HERE, asm.TUPLE2]),
        ("BK304", form.array()),
    ]
    for code, part in cases:
        built = form.file(part, memo="none")
        offset = built.at.get("here", _offset_of_first_name(form))
        refuses(built.data, code, offset)


def _offset_of_first_name(form: Form) -> int:
    data = form.file(memo="none").data
    return _offset_of_name(data, b"_reconstruct")


@pytest.mark.parametrize(
    ("shape", "count"), [((), 1), ((0,), 0), ((1,), 1), ((3,), 3), ((2, 1), 2), ((1, 2), 2)]
)
def test_attack_62_outer_array_of_another_shape(
    form: Form, shape: tuple[int, ...], count: int, refuses: _Refuses
) -> None:
    numbers = [asm.integer(7)] * count
    items = asm.list_of(*numbers) if numbers else asm.EMPTY_LIST
    built = form.file(form.outer(items, shape), shape=str(shape), memo="none")
    refuses(built.data, "BK302", _offset_of_name(built.data, b"_reconstruct"))


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_attack_62_outer_list_of_another_length(form: Form, count: int, refuses: _Refuses) -> None:
    items: Part = [asm.EMPTY_LIST, *[[asm.integer(7), asm.APPEND]] * count]
    state: list[Part] = [asm.integer(1), asm.shape_of(2), form.dtype("O8"), asm.FALSE, items]
    built = form.file([form.call(), asm.tuple_of(*state), HERE, asm.BUILD])
    refuses(built.data, "BK321", built.here)


# --- the end, and every small damage ---------------------------------------------------------

_WHOLE = {"form-c": C, "form-d": D, "form-e": E, "canonical": CANONICAL}


def whole(form: Form) -> bytes:
    """A good file in which every kind of record stands, the usual run of arrays included."""
    arrays = [form.array((at + 1,)) for at in range(4)]
    tail = [form.array((2, 3), "f8", fortran=asm.TRUE), form.array((0,)), form.array((), "f2")]
    return form.file(form.update(*arrays, *tail, form.array((70,)), num_samples=70_000)).data


def expected_after_cut(data: bytes, cut: int) -> tuple[str, int]:
    """The rule and the offset for a file of which only the first `cut` bytes are left."""
    start = 128
    if cut == 0:
        return "BK101", 0
    if cut < start:
        return "BK106", cut
    if cut == start:
        return "BK112", cut
    for opcode, argument, at in pickletools.genops(data[start:]):
        offset = start + (at or 0)
        if opcode.name == "FRAME" and offset + 9 <= cut:
            return "BK210", offset
        if opcode.name in ("SHORT_BINBYTES", "BINBYTES") and isinstance(argument, bytes):
            first = offset + (2 if opcode.name == "SHORT_BINBYTES" else 5)
            if first <= cut < first + len(argument):
                return "BK209", offset
    return "BK207", cut


@pytest.mark.parametrize("name", _WHOLE)
def test_attack_63_cut_at_every_offset(name: str, refuses: _Refuses) -> None:
    data = whole(_WHOLE[name])
    assert [found.code for found in check_bytes(data).findings] == ["BK603"]
    for cut in range(len(data)):
        refuses(data[:cut], *expected_after_cut(data, cut))


@pytest.mark.parametrize("name", _WHOLE)
def test_attack_63_every_byte_appended(name: str, refuses: _Refuses) -> None:
    data = whole(_WHOLE[name])
    for byte in range(256):
        refuses(data + bytes([byte]), "BK208", len(data))


@pytest.mark.parametrize("name", _WHOLE)
def test_attack_63_second_pickle_and_archive_behind(name: str, refuses: _Refuses) -> None:
    data = whole(_WHOLE[name])
    for tail in (data, data[128:], b"\x80\x04.", b"PK\5\6" + bytes(18), bytes(1 << 16)):
        refuses(data + tail, "BK208", len(data))


def test_attack_63_stop_is_missing_or_early(form: Form, refuses: _Refuses) -> None:
    built = form.file(end=b"", frames=False)
    refuses(built.data, "BK207", len(built.data))
    built = form.file(form.update([HERE, asm.STOP]), frames=False)
    refuses(built.data, "BK328", built.here)
    root = form.file([form.update(), HERE, asm.STOP, form.array()], frames=False)
    refuses(root.data, "BK208", root.here + 1)


_NUMBERS = {
    "denormal": 5e-324, "minus zero": -0.0, "zero": 0.0, "largest": 1.7976931348623157e308,
    "large": 1e30,
}  # fmt: skip


def test_attack_64_values_that_are_finite_are_no_format_error(form: Form) -> None:
    for value in _NUMBERS.values():
        array = form.array((3,), "f8", asm.numbers("f8", [value] * 3))
        assert check_bytes(form.file(form.update(array)).data).findings == ()


@pytest.mark.parametrize("text", ["f2", "f4", "f8"])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_attack_64_values_that_are_not_finite(
    form: Form, text: str, count: int, refuses: _Refuses
) -> None:
    itemsize = int(text[1])
    for code, value in (("BK401", math.nan), ("BK402", math.inf), ("BK402", -math.inf)):
        for at in {0, count // 2, count - 1}:
            values = [0.5] * at + [value] + [0.5] * (count - at - 1)
            body = asm.payload(asm.numbers(text, values))
            head = len(body) - count * itemsize
            array = form.array((count,), text, body=[HERE, body])
            built = among_good(form, array)
            finding = refuses(built.data, code, built.here + head + at * itemsize)
            assert finding.where == "parameters[3]"
            assert check_bytes(built.data, values=False).valid


@pytest.mark.parametrize(("good", "bad"), [(7, 0), (300, 0), (70_000, -1), (70_000, -(2**31))])
def test_what_was_learnt_from_one_file_does_not_judge_the_next(
    form: Form, good: int, bad: int, refuses: _Refuses
) -> None:
    """Two files of one size that differ in the count alone, or in one byte of the structure."""
    count = asm.integer(good)
    file = form.file(form.update(num_samples=[HERE, count]))
    width = len(count) - 1
    replaced = count[:1] + bad.to_bytes(width, "little", signed=True)
    start, end = file.data[: file.here], file.data[file.here + len(count) :]
    assert check_bytes(file.data).valid
    refuses(start + replaced + end, "BK311", file.here)
    assert check_bytes(file.data).valid
    refuses(start + b"\xff" + count[1:] + end, "BK206", file.here)
    again = check_bytes(start + count[:1] + b"\x09" + count[2:] + end)
    assert again.valid
    assert again.layout is not None
    assert again.layout.num_samples == int.from_bytes(b"\x09" + count[2:], "little")


_TRIED = b"\x00\x7f\xff(.)KXbceht\x88\x8a\x95"


def small(form: Form) -> bytes:
    """A good file of every kind of opcode, with little payload: each of its bytes matters."""
    arrays = [form.array((at + 1,), "f2") for at in range(4)]
    return form.file(form.update(*arrays, form.array((2, 1), fortran=asm.TRUE))).data


@pytest.mark.parametrize("name", ["form-c", "form-d", "form-e"])
def test_any_single_byte_replaced_gives_a_verdict(name: str) -> None:
    """One outcome is allowed on any bytes: a report whose offsets lie in the file."""
    data = small(_WHOLE[name])
    for at in range(len(data)):
        for byte in {*_TRIED, data[at] ^ 1, data[at] ^ 0x80}:
            gives_a_verdict(data[:at] + bytes([byte]) + data[at + 1 :])


@pytest.mark.parametrize("name", ["form-c", "form-d", "form-e"])
def test_any_single_byte_inserted_or_left_out_gives_a_verdict(name: str) -> None:
    data = small(_WHOLE[name])
    for at in range(len(data)):
        gives_a_verdict(data[:at] + data[at + 1 :])
        for byte in _TRIED:
            gives_a_verdict(data[:at] + bytes([byte]) + data[at:])


def gives_a_verdict(data: bytes) -> None:
    """Files of one size come one after another: what is kept of one must not judge the next."""
    report = check_bytes(data)
    for found in report.findings:
        assert found.offset is None or 0 <= found.offset <= len(data)
    assert report.valid is all(found.severity == "warning" for found in report.findings)
    assert report == judge(source_of(data), fast=False).report
