"""Judging with and without the accelerators."""

from __future__ import annotations

from typing import Any

from bkformat import Report, UpdateSchema, recall
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

OPTIONS: list[dict[str, Any]] = [
    {},
    {"sha256": True},
    {"kind": "aggregate"},
    {"kind": None, "values": False},
    {"schema": SCHEMA, "sha256": True},
    {"schema": SCHEMA},
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
