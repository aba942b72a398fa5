"""The slow path, the fast path and a recalled structure give equal reports on any bytes."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["bkformat"]):
    from bkformat import UpdateSchema, recall
    from bkformat import comparison as _comparison  # noqa: F401  (what is imported late is instrumented too)
    from bkformat import values as _values  # noqa: F401
    from bkformat.source import BytesSource
    from bkformat.validate import judge

# Integers, bools and empty arrays are asked for, so that they too are found without a flaw.
_SCHEMA = UpdateSchema.model_validate(
    {
        "version": 1,
        "max_abs": 90,
        "num_samples": {"max": 1000},
        "dtypes": ["bool", "int8", "uint8", "int64", "float16", "float32", "float64", "complex64"],
        "parameters": [{"shape": [0]}, {}],
    }
)


def one_input(data: bytes) -> None:
    for options in ({}, {"kind": None, "sha256": True, "schema": _SCHEMA}):
        slow = judge(BytesSource(data), **options, fast=False).report  # type: ignore[arg-type]
        # Whatever earlier inputs left behind is recalled, or not.
        assert judge(BytesSource(data), **options).report == slow  # type: ignore[arg-type]
        recall.forget()
        for _ in range(2):
            assert judge(BytesSource(data), **options).report == slow  # type: ignore[arg-type]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
