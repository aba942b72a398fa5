"""The names a pickle may import."""

from __future__ import annotations

import pytest

from bkformat.allowed import ALLOWED_GLOBALS, refuse_global


def test_exactly_these_names() -> None:
    assert set(ALLOWED_GLOBALS) == {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),  # understood, and refused later
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
    for pair, found in ALLOWED_GLOBALS.items():
        assert (found.module, found.name) == pair


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        ("os", "system", "BK203"),
        ("numpy", "load", "BK203"),
        ("numpy", "dtype.__class__", "BK203"),
        ("Numpy", "dtype", "BK203"),
        ("numpy", "matrix", "BK222"),
        ("torch._utils", "_rebuild_tensor_v2", "BK223"),
        ("ml_dtypes", "bfloat16", "BK224"),
        ("collections", "OrderedDict", "BK225"),
    ],
)
def test_others_are_refused_with_a_remedy(module: str, name: str, code: str) -> None:
    found = refuse_global(module, name, 9).finding
    assert (found.code, found.offset) == (code, 9)
    assert found.hint
    assert f"{module}.{name}" in found.message


def test_a_known_library_has_a_hint_of_its_own() -> None:
    found = refuse_global("pandas.core.series", "Series", 0).finding
    assert found.code == "BK203"
    assert "to_numpy" in (found.hint or "")
