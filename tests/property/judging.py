"""Judging with and without the accelerators."""

from __future__ import annotations

from typing import Any, get_args

from bkformat import Report, UpdateSchema, recall
from bkformat.schema import DTypeName
from bkformat.source import BytesSource
from bkformat.validate import judge

# Bounds that some generated files keep and others break.
SCHEMA = UpdateSchema.model_validate(
    {
        "version": 1,
        "num_samples": {"min": 2, "max": 70_000},
        "dtypes": ["float16", "float32", "float64", "uint8", "int8", "bool", "complex64"],
        "max_abs": 90,
        "max_nbytes": 3000,
    }
)

# Nothing at all is said of integers, bools and empty arrays, as an aggregate's own schema may ask.
LENIENT = UpdateSchema.model_validate(
    {"version": 1, "dtypes": get_args(DTypeName), "parameters": [{"shape": [0]}, *[{}] * 3]}
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"sha256": True},
    {"kind": "aggregate"},
    {"kind": None, "values": False},
    {"schema": SCHEMA, "sha256": True},
    {"schema": SCHEMA},
    {"schema": LENIENT},
]


def forget() -> None:
    """Empty the memory of structures, so that what is judged next is read."""
    recall.forget()


def judged(data: bytes, *, fast: bool, **options: Any) -> Report:
    return judge(BytesSource(data), **options, fast=fast).report


def assert_no_path_matters(data: bytes, **options: Any) -> Report:
    """The slow path, the fast path and a recalled structure say the same in every word."""
    slow = judged(data, fast=False, **options)
    forget()
    assert judged(data, fast=True, **options) == slow
    assert judged(data, fast=True, **options) == slow
    return slow
