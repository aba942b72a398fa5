"""Files with a single fault, one way or more for every rule that bytes can break."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.strategies import SearchStrategy

from bkformat.rules import ERROR, RULES
from bkformat.strategies.arguments import choice
from bkformat.strategies.bases import FAULTS

__all__ = ["faulty_files"]

for _module in ("header_faults", "stream_faults", "layout_faults"):
    import_module(f"bkformat.strategies.{_module}")


def faulty_files(
    *, codes: str | Collection[str] | SearchStrategy[str] | None = None
) -> SearchStrategy[tuple[bytes, str]]:
    """Files that break one rule and no other: their bytes, and the code of the rule.

    Each is a valid update of any form with one thing wrong at one place. `check_bytes` finds that
    code alone and no warning. Payloads are harmless, but such files are not meant to be loaded.
    Examples shrink towards a small file and the first of the codes.

    Args:
        codes: of errors, "BK101" to "BK402", or several or a strategy to draw from; None for all.

    Raises:
        InvalidArgument: no such rule, or one that no file breaks by itself: BK5xx needs a schema,
            and BK6xx are warnings.

    >>> from hypothesis import find
    >>> data, code = find(faulty_files(codes="BK311"), lambda drawn: True)
    >>> from bkformat import check_bytes
    >>> check_bytes(data).summary()
    'BK311 num-samples-range: num_samples: 0 samples'
    >>> faulty_files(codes="BK503")
    Traceback (most recent call last):
    hypothesis.errors.InvalidArgument: codes='BK503': no error that a file has by itself
    """
    return _faulty(choice(sorted(FAULTS) if codes is None else codes, "codes", _check_code))


@st.composite
def _faulty(draw: st.DrawFn, codes: SearchStrategy[str]) -> tuple[bytes, str]:
    code = draw(codes)
    return draw(st.sampled_from(FAULTS[code]))(draw), code


def _check_code(code: Any, name: str) -> str:
    if code not in RULES:
        raise InvalidArgument(f"{name}={code!r}: no such rule")
    if code not in FAULTS or RULES[code].severity != ERROR:
        raise InvalidArgument(f"{name}={code!r}: no error that a file has by itself")
    return str(code)
