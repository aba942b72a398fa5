"""Read, inspect and validate federated-learning updates without ever executing them.

An update is `[num_samples, [array, array, ...]]` saved by `np.save` as an object array, which is a
pickle. Everything here reads such files as data. Names are imported when they are first used, so
`import bkformat` loads neither numpy nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bkformat.arrays import ArrayLayout
    from bkformat.build import build_update, write_update
    from bkformat.convert import Conversion, convert_file
    from bkformat.diff import ArrayDiff, Diff, diff_files
    from bkformat.errors import (
        BkFormatError,
        InvalidSchemaError,
        InvalidSourceError,
        InvalidUpdateError,
        UpdateChangedError,
    )
    from bkformat.findings import Finding, Report
    from bkformat.layout import UpdateLayout
    from bkformat.load import Update, load_file
    from bkformat.many import check_many
    from bkformat.proof import ValidatedUpdate, validate_bytes, validate_file
    from bkformat.repair import RepairReport, repair_file
    from bkformat.rules import RULES, Rule
    from bkformat.schema import ArraySpec, UpdateSchema, infer_schema, load_schema
    from bkformat.validate import check_bytes, check_file, inspect_file

__all__ = [
    "RULES",
    "ArrayDiff",
    "ArrayLayout",
    "ArraySpec",
    "BkFormatError",
    "Conversion",
    "Diff",
    "Finding",
    "InvalidSchemaError",
    "InvalidSourceError",
    "InvalidUpdateError",
    "RepairReport",
    "Report",
    "Rule",
    "Update",
    "UpdateChangedError",
    "UpdateLayout",
    "UpdateSchema",
    "ValidatedUpdate",
    "build_update",
    "check_bytes",
    "check_file",
    "check_many",
    "convert_file",
    "diff_files",
    "infer_schema",
    "inspect_file",
    "load_file",
    "load_schema",
    "repair_file",
    "validate_bytes",
    "validate_file",
    "write_update",
]

_HOMES = {
    "arrays": ("ArrayLayout",),
    "build": ("build_update", "write_update"),
    "convert": ("Conversion", "convert_file"),
    "diff": ("ArrayDiff", "Diff", "diff_files"),
    "errors": (
        "BkFormatError",
        "InvalidSchemaError",
        "InvalidSourceError",
        "InvalidUpdateError",
        "UpdateChangedError",
    ),
    "findings": ("Finding", "Report"),
    "layout": ("UpdateLayout",),
    "load": ("Update", "load_file"),
    "many": ("check_many",),
    "proof": ("ValidatedUpdate", "validate_bytes", "validate_file"),
    "repair": ("RepairReport", "repair_file"),
    "rules": ("RULES", "Rule"),
    "schema": ("ArraySpec", "UpdateSchema", "infer_schema", "load_schema"),
    "validate": ("check_bytes", "check_file", "inspect_file"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bkformat")
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
