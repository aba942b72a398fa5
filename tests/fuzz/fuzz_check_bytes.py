"""Any bytes give a Report that holds together, and never an exception."""

from __future__ import annotations

import hashlib
import sys

import atheris

with atheris.instrument_imports(include=["bkformat"]):
    from bkformat import RULES, Report, UpdateSchema, check_bytes
    from bkformat import comparison as _comparison  # noqa: F401  (what is imported late is instrumented too)
    from bkformat import values as _values  # noqa: F401

_SCHEMA = UpdateSchema.model_validate(
    {
        "version": 1,
        "num_samples": {"min": 2, "max": 1000},
        "dtypes": ["float32", "complex64"],
        "max_abs": 10,
        "max_nbytes": 1000,
        "parameters": [{"dtype": "float32", "shape": [3, None]}, {"shape": [2]}],
    }
)


def one_input(data: bytes) -> None:
    for options in (
        {},
        {"kind": "aggregate", "values": False},
        {"schema": _SCHEMA, "sha256": True},
    ):
        report = check_bytes(data, **options)  # type: ignore[arg-type]
        assert type(report) is Report
        assert report.nbytes == len(data)
        for found in report.findings:
            assert found.code in RULES
            assert found.offset is None or 0 <= found.offset <= len(data)
            assert found.message.isprintable()
        if report.valid:
            assert report.layout is not None
            assert report.layout.stopped_at is None
    assert report.sha256 == hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
