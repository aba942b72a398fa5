"""The public surface, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest

import bkformat


def test_all_is_exactly_this_list() -> None:
    assert bkformat.__all__ == [
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


def test_every_public_name_is_there() -> None:
    for name in bkformat.__all__:
        value = getattr(bkformat, name)
        assert getattr(value, "__name__", name) == name
    assert set(bkformat.__all__) <= set(dir(bkformat))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bkformat.nothing


def test_the_types_are_shipped() -> None:
    assert files("bkformat").joinpath("py.typed").is_file()


def _loaded(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.split())


_HEAVY = {"numpy", "pydantic", "click", "pickle", "_pickle"}


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = _loaded("import bkformat")
    assert not loaded & _HEAVY
    assert {name for name in loaded if name.startswith("bkformat")} == {"bkformat"}


def test_judging_structure_loads_neither_numpy_nor_pydantic() -> None:
    code = "import bkformat; bkformat.check_bytes(b'', values=False); bkformat.check_file"
    assert not _loaded(code) & (_HEAVY | {"hashlib"})


def test_values_load_numpy_and_schemas_pydantic_alone() -> None:
    assert _loaded("from bkformat import values") & _HEAVY <= {"numpy", "pickle", "_pickle"}
    assert "pydantic" in _loaded("import bkformat; bkformat.UpdateSchema")
    assert "numpy" not in _loaded("import bkformat; bkformat.UpdateSchema")
