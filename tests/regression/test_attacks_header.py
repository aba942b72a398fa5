"""Attacks through the .npy header, which numpy evaluates, and through what is not .npy at all."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable

import pytest

from bkformat import Finding, check_bytes
from bkformat import assembler as asm
from bkformat.assembler import C, D, E, Form

_FORMS = {"form C": C, "form D": D, "form E": E}
_Refuses = Callable[..., Finding]
_TEXT = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
_VERSIONS = [(1, 0), (2, 0), (3, 0)]


@pytest.fixture(params=[*_FORMS.values()], ids=[*_FORMS])
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


@pytest.fixture(params=_VERSIONS, ids=["1.0", "2.0", "3.0"])
def version(request: pytest.FixtureRequest) -> tuple[int, int]:
    chosen: tuple[int, int] = request.param
    return chosen


def text_start(version: tuple[int, int]) -> int:
    return 10 if version == (1, 0) else 12


def with_text(text: str | bytes, version: tuple[int, int], padding: bytes = b" ") -> bytes:
    """A file whose header holds this text, padded to a multiple of 64."""
    encoded = text.encode() if isinstance(text, str) else text
    start = text_start(version)
    encoded += padding * (-(start + len(encoded) + 1) % 64) + b"\n"
    header = asm.raw_header(encoded, version)
    return header + E.stream(E.update(), offset=len(header)).data


def test_headers_below_differ_from_a_good_one_in_one_thing(version: tuple[int, int]) -> None:
    assert check_bytes(with_text(_TEXT, version)).valid


def test_attack_45_length_past_the_end(version: tuple[int, int], refuses: _Refuses) -> None:
    good = with_text(_TEXT, version)
    start = text_start(version)
    for length in (len(good) - start + 1, 4000, 4096):
        data = asm.raw_header(good[start:], version, length)
        refuses(data, "BK106", len(data))
    for length in (4097, 10_000, 65535):
        data = asm.raw_header(good[start:], version, length)
        refuses(data, "BK107", 8)


@pytest.mark.parametrize("length", [4097, 2**16, 2**31, 2**32 - 1])
def test_attack_46_length_of_4_gib(length: int, refuses: _Refuses) -> None:
    for version in ((2, 0), (3, 0)):
        text = with_text(_TEXT, version)[12:]
        refuses(asm.raw_header(text, version, length), "BK107", 8)
        refuses(asm.raw_header(b"", version, length), "BK107", 8)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('marker')",
        "{'descr': '|O', 'fortran_order': False, 'shape': (__import__('os').mkdir('marker'),), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': tuple([2]), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1+1,), }",
        "{'descr': '|' 'O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': f'|O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': b'|O', 'fortran_order': False, 'shape': (2,), }",
        "{**{'descr': '|O', 'fortran_order': False, 'shape': (2,), }}",
        "dict(descr='|O', fortran_order=False, shape=(2,))",
        "{'descr': '|O', 'fortran_order': not True, 'shape': (2,), }",
        "lambda: 0",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }; 0",
    ],
)
def test_attack_47_code_in_the_header(
    version: tuple[int, int], text: str, refuses: _Refuses
) -> None:
    refuses(with_text(text, version), "BK108", text_start(version))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000 + ")" * 2000,
        "[" * 4000,
        "{" * 4000,
        "-" * 4000 + "1",
        "{'descr': '|O', 'fortran_order': False, 'shape': " + "(" * 1900 + ")" * 1900 + ", }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), []: 0, }",
        "{{}: 0}",
        "{'descr': " + "[" * 3000 + ", 'fortran_order': False, 'shape': (2,), }",
    ],
)
def test_attack_48_deep_or_unhashable(
    version: tuple[int, int], text: str, refuses: _Refuses
) -> None:
    refuses(with_text(text, version), "BK108", text_start(version))


def test_attack_49_other_versions(form: Form, refuses: _Refuses) -> None:
    good = form.file().data
    known = {bytes(version) for version in _VERSIONS}
    for major in range(256):
        for minor in (0, 1, 255):
            if bytes((major, minor)) not in known:
                refuses(good[:6] + bytes((major, minor)) + good[8:], "BK105", 6)


def test_attack_50_large_header(version: tuple[int, int], refuses: _Refuses) -> None:
    for room in (4096, 8192, 60_000):
        text = (_TEXT + " " * (room - len(_TEXT) - 1) + "\n").encode()
        start = text_start(version)
        data = asm.raw_header(text, version) + E.stream(E.update()).data
        if room == 4096:
            # 4,096 bytes are allowed, but then the data lies 10 or 12 bytes off.
            refuses(data, "BK111", start)
        else:
            refuses(data, "BK107", 8)


@pytest.mark.parametrize("padding", [b"\0", b"\t", b"\n", b"\r", b"#", b"\xa0", b"\x0c", b"x"])
def test_attack_50_padding_of_other_bytes(
    version: tuple[int, int], padding: bytes, refuses: _Refuses
) -> None:
    refuses(with_text(_TEXT, version, padding), "BK108", text_start(version))


def test_attack_50_no_line_end_and_inner_line_ends(
    version: tuple[int, int], refuses: _Refuses
) -> None:
    start = text_start(version)
    good = with_text(_TEXT, version)
    end = good.index(b"\n", start)
    refuses(good[:end] + b" " + good[end + 1 :], "BK108", start)
    refuses(good[: end - 1] + b"\n\n" + good[end + 1 :], "BK108", start)
    refuses(good[: end - 1] + b"\r\n" + good[end + 1 :], "BK108", start)
    refuses(with_text(_TEXT.replace("False, ", "False,\n"), version), "BK108", start)


def test_attack_50_data_at_another_offset(version: tuple[int, int], refuses: _Refuses) -> None:
    start = text_start(version)
    for spaces in range(64):
        header = asm.raw_header(_TEXT.encode() + b" " * spaces + b"\n", version)
        data = header + E.stream(E.update(), offset=len(header)).data
        if len(header) % 16:
            refuses(data, "BK111", start)
        else:
            assert check_bytes(data).valid


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), 'shape': (2,), }",
        "{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), 'x': 1, }",
        "{'descr': '|O', 'fortran_order': False, }",
        "{'descr': '|O', 'shape': (2,), }",
        "{'fortran_order': False, 'shape': (2,), }",
        "{'fortran_order': False, 'descr': '|O', 'shape': (2,), }",
        "{'descr': '|O', 'shape': (2,), 'fortran_order': False, }",
        "{'shape': (2,), 'fortran_order': False, 'descr': '|O', }",
        "{'Descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "{}",
        "",
        "[]",
        "{'descr': '|O','fortran_order': False,'shape': (2,),}",
        " {'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        '{"descr": "|O", "fortran_order": False, "shape": (2,), }',
        "{u'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
    ],
)
def test_attack_51_keys_twice_missing_extra_or_in_another_order(
    version: tuple[int, int], text: str, refuses: _Refuses
) -> None:
    refuses(with_text(text, version), "BK108", text_start(version))


@pytest.mark.parametrize("shape", ["(2L,)", "(2l,)", "(2, 1L)", "(2.,)", "(2e0,)", "(2j,)"])
def test_attack_52_suffixes_of_numbers(
    version: tuple[int, int], shape: str, refuses: _Refuses
) -> None:
    refuses(with_text(_TEXT.replace("(2,)", shape), version), "BK108", text_start(version))


@pytest.mark.parametrize(
    "shape", ["(-2,)", "(True,)", "(None,)", "(0x2,)", "(0b10,)", "(2_0,)", "(02 ,)", "[2]", "2",
              "(2)", "('2',)", "((2,),)", "(+2,)", "(2,,)", "(,)", "(" + "9" * 20 + ",)",
              "(" + "1, " * 64 + "1)", "(\u0662,)", "(\u00b2,)", "(2, )"],
)  # fmt: skip
def test_attack_53_malformed_shapes(
    version: tuple[int, int], shape: str, refuses: _Refuses
) -> None:
    refuses(with_text(_TEXT.replace("(2,)", shape), version), "BK108", text_start(version))


def test_attack_53_4200_digits(version: tuple[int, int], refuses: _Refuses) -> None:
    """Python refuses to parse more than 4,300 digits, and takes long over a few less."""
    text = _TEXT.replace("(2,)", "(" + "9" * 4200 + ",)")
    refuses(with_text(text, version), "BK107", 8)
    text = _TEXT.replace("(2,)", "(" + "9" * 4000 + ",)")
    refuses(with_text(text, version), "BK108", text_start(version))


@pytest.mark.parametrize(
    "shape", ["()", "(0,)", "(1,)", "(3,)", "(2, 1)", "(1, 2)", "(9999999999999999999,)"]
)
def test_attack_53_shape_differs_from_the_pickle(form: Form, shape: str, refuses: _Refuses) -> None:
    built = form.file([asm.HERE, form.update()], shape=shape)
    names = 0 if form.protocol < 4 else _texts_of_first_name(form)
    refuses(built.data, "BK303", built.here + names)


def _texts_of_first_name(form: Form) -> int:
    """Bytes of the two texts, and their memo writes, before the first STACK_GLOBAL."""
    return len(asm.unicode8(form.core) + asm.unicode8("_reconstruct") + asm.MEMOIZE * 2)


@pytest.mark.parametrize(
    "descr",
    [
        "'<f4'", "'|S5'", "'<c16'", "'|V8'", "'<M8[s]'", "'<O8'", "'>O'", "'O'", "'object'", "'|o'",
        "'|O4'", "'|O16'", "[('a', '|O')]", "[('a', '|O'), ('b', '<f4')]", "[('a', '<f4', (2,))]",
    ],
)  # fmt: skip
def test_attack_54_other_descr_before_a_pickle(
    version: tuple[int, int], descr: str, refuses: _Refuses
) -> None:
    """Scanners skip the body where the header says numbers."""
    refuses(with_text(_TEXT.replace("'|O'", descr), version), "BK109", text_start(version))


def test_attack_54_fortran_order(version: tuple[int, int], refuses: _Refuses) -> None:
    text = _TEXT.replace("False", "True")
    refuses(with_text(text, version), "BK110", text_start(version))
    for flag in ("0", "1", "None", "'False'", "false"):
        text = _TEXT.replace("False", flag)
        refuses(with_text(text, version), "BK108", text_start(version))


def test_attack_54_raw_pickle(form: Form, refuses: _Refuses) -> None:
    """np.load unpickles what has no magic at all."""
    refuses(form.stream(form.update()).data, "BK104", 0)
    for text in (b"cnumpy.core.multiarray\n_reconstruct\np0\n.", b"(lp0\n.", b"\x80\x02]q\0."):
        refuses(text, "BK104", 0)


def test_attack_54_magic_is_damaged(form: Form, refuses: _Refuses) -> None:
    good = form.file().data
    for at in range(6):
        data = good[:at] + bytes([good[at] ^ 0x20]) + good[at + 1 :]
        refuses(data, "BK102", 0)
        refuses(good[:at] + good[at + 1 :], "BK102", 0)
    refuses(b"\n" + good, "BK102", 0)


def test_attack_54_archives(form: Form, refuses: _Refuses) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("update.npy", form.file().data)
    refuses(file.getvalue(), "BK103", 0)
    refuses(gzip.compress(form.file().data), "BK103", 0)
    refuses(form.file().data + file.getvalue(), "BK208", len(form.file().data))
