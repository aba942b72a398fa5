"""Tables and figures for people."""

from __future__ import annotations

import pytest

from bkformat.tables import before_after, columns, cut, number, size


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    rows = [("1", "", "one"), ("20", "", "")]
    assert list(columns(("n", "", "name"), rows, right=(0,))) == [
        "",
        "   n  name",
        "   1  one",
        "  20",
    ]


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (1000, 1000, "1,000"),
        (None, None, "none"),
        (1000, None, "1,000 -> none"),
        ("float32", "float64", "float32 -> float64"),
        ((1, 2), (1, 2), "(1, 2)"),
    ],
)
def test_before_and_after(a: object, b: object, text: str) -> None:
    assert before_after(a, b) == text


def test_figures() -> None:
    assert [size(nbytes) for nbytes in (0, 1023, 1024, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
    ]
    assert (number(None), number(1 / 3)) == ("-", "0.3333")
    assert cut("\x1b[31m" + "x" * 9, 10) == "\\x1b[31..."
