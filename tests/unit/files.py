"""Files for unit tests, written opcode by opcode by the assembler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bkformat import assembler as asm

FIXTURES = Path(__file__).parents[2] / "fixtures"

Array = np.ndarray[Any, Any]

_TEXTS = {
    "bool": "b1", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4",
    "float64": "f8", "complex64": "c8", "complex128": "c16",
}  # fmt: skip


def array_part(array: Array, form: Any) -> Any:
    fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
    return form.array(
        array.shape,
        _TEXTS[array.dtype.name],
        array.tobytes("F" if fortran else "C"),
        fortran=asm.TRUE if fortran else asm.FALSE,
    )


def update(
    *arrays: Array, num_samples: int = 7, form: Any = None, memo: str | None = None
) -> bytes:
    """The bytes of an update of these arrays, in form E unless another is given."""
    form = form or asm.E
    parts = [array_part(array, form) for array in arrays]
    return bytes(form.file(form.update(*parts, num_samples=num_samples), memo=memo).data)


def aggregate(*arrays: Array) -> bytes:
    items = asm.list_of(*(array_part(array, asm.E) for array in arrays))
    outer = asm.E.outer(items, (len(arrays),))
    return bytes(asm.E.file(outer, shape=f"({len(arrays)},)").data)


def zeros(*shapes: Sequence[int], dtype: str = "float32") -> list[Array]:
    return [np.zeros(tuple(shape), dtype) for shape in shapes]


def codes(report: Any) -> list[str]:
    return [found.code for found in report.findings]
