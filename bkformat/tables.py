"""Tables for a terminal of 80 columns, and figures for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bkformat.escape import printable

__all__ = ["before_after", "columns", "cut", "number", "size"]


def columns(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int]
) -> Iterator[str]:
    """An empty line and a table, whose columns are as wide as they need to be.

    Args:
        heads: of the columns; one that is empty in every row too is left out.
        rows: cells, safe to show.
        right: indices of the columns that are aligned to the right.
    """
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    right = set(right)
    yield ""
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def number(value: float | None) -> str:
    """Four digits, "-" for None."""
    return "-" if value is None else f"{value:.4g}"


def cut(text: str, width: int) -> str:
    """A stranger's text, made safe and cut."""
    shown = printable(text)
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def size(nbytes: int) -> str:
    """Bytes for people: powers of 1,024."""
    if nbytes < 1024:
        return f"{nbytes} B"
    power = min((nbytes.bit_length() - 1) // 10, 4)
    return f"{nbytes / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def before_after(a: object, b: object) -> str:
    """One text where both are the same, else both; integers with commas, "none" for None."""
    texts = [
        "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        for value in (a, b)
    ]
    return texts[0] if texts[0] == texts[1] else " -> ".join(texts)
