"""The bytes of files, in canonical form and as every numpy writes them, without those numpys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.strategies import SearchStrategy

from bkformat import assembler as asm
from bkformat.canonical import canonical_form
from bkformat.dtypes import TEXTS
from bkformat.load import Update
from bkformat.strategies.arguments import choice, value_or_strategy
from bkformat.strategies.updates import updates

__all__ = ["ASSEMBLED", "FILE_FORMS", "array_part", "build_file", "check_form", "update_files"]

ASSEMBLED: dict[str, asm.Form] = {
    "canonical": asm.CANONICAL,
    "C": asm.C,
    "D": asm.D,
    "E": asm.E,
}
"""How the assembler spells each form."""

FILE_FORMS = tuple(ASSEMBLED)


def update_files(
    *,
    update: Update | SearchStrategy[Update] | None = None,
    forms: str | Collection[str] | SearchStrategy[str] = FILE_FORMS,
) -> SearchStrategy[bytes]:
    """The bytes of files that hold updates.

    Equal updates give equal bytes in the same form. To draw a file and what it holds, share the
    update:

        shared = st.shared(updates())

        @given(update=shared, data=update_files(update=shared))

    Args:
        update: what the file holds, or a strategy for it, such as `aggregates()` or
            `updates_for(schema)`; None for `updates()`. Each array is written as an object of its
            own. What is wrong with its values is wrong with the file.
        forms: how it is written, or several or a strategy to draw from: "canonical" as bkformat
            does, "C" as numpy 1.17 and 1.18, "D" as numpy 1.19 to 1.26, "E" as numpy 2 does.

    Raises:
        InvalidArgument: no such form, or an update that no file can hold; where it is drawn from a
            strategy, when it is drawn.

    >>> update_files(forms="B")
    Traceback (most recent call last):
    hypothesis.errors.InvalidArgument: forms='B': expected one of canonical, C, D, E
    """
    drawn = updates() if update is None else value_or_strategy(update, "update", _check_update)
    return st.builds(build_file, drawn, choice(forms, "forms", check_form))


def build_file(update: Update, form: str) -> bytes:
    """The file of an update, byte for byte as the writers of that form make it."""
    return _WRITE[form](update)


def array_part(array: np.ndarray[Any, Any], form: asm.Form) -> asm.Part:
    """An array as the assembler has it."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    return form.array(
        array.shape,
        TEXTS[array.dtype.name],
        _payload(array, "F" if fortran else "C"),
        fortran=asm.TRUE if fortran else asm.FALSE,
    )


def check_form(form: Any, name: str) -> str:
    if form not in FILE_FORMS:
        raise InvalidArgument(f"{name}={form!r}: expected one of {', '.join(FILE_FORMS)}")
    return str(form)


def _check_update(update: Any, name: str) -> Update:
    if not isinstance(update, Update):
        kind = type(update).__name__
        raise InvalidArgument(f"Expected Update but got {name}={update!r} (type={kind})")
    if not update.parameters:
        raise InvalidArgument(f"{name}={update!r}: no arrays")
    for array in update.parameters:
        if array.dtype.name not in TEXTS:
            raise InvalidArgument(f"{name}={update!r}: no file can hold {array.dtype.name}")
    return update


def _canonical(update: Update) -> bytes:
    arrays = update.parameters
    form = canonical_form(update.num_samples, [(a.dtype.name, a.shape) for a in arrays])
    payloads = [*(_payload(array, "C") for array in arrays), b""]
    return b"".join(chain.from_iterable(zip(form.heads, payloads, strict=True)))


def _assembled(form: asm.Form, update: Update) -> bytes:
    parts = [array_part(array, form) for array in update.parameters]
    if update.num_samples is not None:
        return form.file(form.update(*parts, num_samples=update.num_samples)).data
    length = len(parts)
    return form.file(form.outer(asm.list_of(*parts), (length,)), shape=f"({length},)").data


def _payload(array: np.ndarray[Any, Any], order: str) -> bytes:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.tobytes("F" if order == "F" else "C")


_WRITE: dict[str, Callable[[Update], bytes]] = {
    "canonical": _canonical,
    **{name: partial(_assembled, ASSEMBLED[name]) for name in ("C", "D", "E")},
}
