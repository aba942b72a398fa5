"""What the texts of dtypes mean, held against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from bkformat.dtypes import ITEMSIZES, DTypeText, parse_dtype, refusal

_ALLOWED = {
    "b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16",
}  # fmt: skip


@pytest.mark.parametrize("text", sorted(_ALLOWED))
def test_numbers_are_named_as_numpy_names_them(text: str) -> None:
    dtype = np.dtype(text)
    assert parse_dtype(text) == DTypeText(dtype.name, dtype.itemsize)
    assert ITEMSIZES[dtype.name] == dtype.itemsize


def test_nothing_else_may_be_in_an_update() -> None:
    assert {np.dtype(text).name for text in _ALLOWED} == set(ITEMSIZES)
    unrefused = {name for name in ITEMSIZES if refusal(name) is None}
    assert unrefused == set(ITEMSIZES) - {"complex64", "complex128"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("c8", "BK332"), ("c16", "BK332"), ("f16", "BK333"), ("f12", "BK333"), ("c32", "BK333"),
        ("V8", "BK334"), ("S5", "BK335"), ("U5", "BK335"), ("M8", "BK336"), ("m8", "BK336"),
        ("O8", "BK337"), ("O4", "BK337"),
    ],
)  # fmt: skip
def test_known_ones_that_are_refused(text: str, code: str) -> None:
    parsed = parse_dtype(text)
    assert parsed is not None
    rule = refusal(parsed.name)
    assert rule is not None
    assert rule.code == code


def test_big_endian_is_refused() -> None:
    rule = refusal(">f4")
    assert rule is not None
    assert rule.code == "BK331"


@pytest.mark.parametrize("text", ["S5", "U5", "V7"])
def test_sizes_of_sized_ones(text: str) -> None:
    assert parse_dtype(text) == DTypeText(text, np.dtype(text).itemsize)


@pytest.mark.parametrize(
    "text",
    ["", "f", "f3", "f4,f4", "2f4", "<f4", "float32", "f04", "S", "S-1", "O", "b", "F4", "f4 "],
)
def test_texts_that_numpy_does_not_write(text: str) -> None:
    assert parse_dtype(text) is None
