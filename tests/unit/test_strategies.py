"""What strategies refuse, when they are loaded, and that Hypothesis knows them by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

import bkformat
from bkformat import RULES, Update, UpdateSchema, check_bytes, load_file
from bkformat import strategies as bkst
from bkformat.rules import ERROR
from bkformat.strategies.bases import FAULTS
from bkformat.strategies.files import build_file

FIXTURES = Path(__file__).parents[2] / "fixtures"


def schema(**keys: Any) -> UpdateSchema:
    return UpdateSchema.model_validate({"version": 1, **keys})


_FIRST = settings(phases=[Phase.generate], max_examples=1)


def some(strategy: st.SearchStrategy[Any]) -> Any:
    """One example."""
    return find(strategy, lambda _: True, settings=_FIRST)


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_samples": 0}, "num_samples=0: expected 1 to"),
        ({"num_samples": 2**53 + 1}, "expected 1 to"),
        ({"num_samples": True}, "Expected int but got num_samples=True"),
        ({"num_samples": 1.0}, "Expected int but got num_samples=1.0"),
        ({"num_samples": "7"}, "Expected int but got num_samples='7'"),
        ({"min_arrays": 0}, "Invalid size min_arrays=0 < 1"),
        ({"min_arrays": None}, "Expected int but got min_arrays=None"),
        ({"max_arrays": 1.5}, "Expected int but got max_arrays=1.5"),
        ({"min_arrays": 3, "max_arrays": 2}, "Cannot have max_arrays=2 < min_arrays=3"),
        ({"dtypes": "complex64"}, "dtypes='complex64': expected one of float32"),
        ({"dtypes": ["float32", "no such"]}, "dtypes='no such': no dtype"),
        ({"dtypes": ()}, "nothing to choose from"),
        ({"dtypes": object}, "expected one of float32"),
        ({"dtypes": np.dtype("f4").newbyteorder("S")}, "expected one of float32"),
        ({"shapes": -1}, "-1 is no dimension"),
        ({"shapes": (2, 1.5)}, "1.5 is no dimension"),
        ({"shapes": (True,)}, "True is no dimension"),
        ({"shapes": "23"}, "expected a tuple of at most 32 integers"),
        ({"shapes": (1,) * 33}, "expected a tuple of at most 32 integers"),
        ({"elements": 1.0}, "Expected a strategy or a mapping but got elements=1.0"),
        ({"orders": "K"}, "orders='K': expected one of C, F, strided"),
        ({"orders": ["C", None]}, "orders=None"),
        ({"strict": True, "dtypes": "int64"}, "dtypes='int64' gets a warning, but strict=True"),
        ({"strict": True, "shapes": (0, 3)}, "gets a warning, but strict=True"),
    ],
)
def test_wrong_arguments_are_refused_at_once(keywords: dict[str, Any], message: str) -> None:
    for strategy in (bkst.updates, bkst.aggregates):
        with pytest.raises(InvalidArgument) as caught:
            strategy(**keywords)
        assert message in str(caught.value)


def test_an_update_has_a_count_and_an_aggregate_need_not() -> None:
    untyped: Any = bkst.updates
    with pytest.raises(InvalidArgument, match="Expected int but got num_samples=None"):
        untyped(num_samples=None)
    assert some(bkst.aggregates(num_samples=None)).num_samples is None
    assert some(bkst.aggregates(num_samples=3)).num_samples == 3


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: bkst.updates(num_samples=st.just(0)), "num_samples=0"),
        (lambda: bkst.updates(dtypes=st.just("U5")), "dtypes='U5'"),
        (lambda: bkst.updates(shapes=st.just((-1,))), "-1 is no dimension"),
        (lambda: bkst.updates(orders=st.just("K")), "orders='K'"),
        (lambda: bkst.updates(shapes=st.just((0,)), strict=True), "gets a warning"),
        (lambda: bkst.update_files(update=st.just(7)), "Expected Update but got update=7"),
        (lambda: bkst.update_files(forms=st.just("B")), "forms='B'"),
        (lambda: bkst.faulty_files(codes=st.just("BK999")), "no such rule"),
        (lambda: bkst.updates_for(st.just(schema(parameters=[]))), "at least one array"),
    ],
)
def test_what_a_strategy_gives_is_checked_when_it_is_drawn(
    strategy: Callable[[], st.SearchStrategy[Any]], message: str
) -> None:
    drawn_from = strategy()
    with pytest.raises(InvalidArgument) as caught:
        some(drawn_from)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"update": 7}, "Expected Update but got update=7"),
        ({"update": Update(1, [])}, "no arrays"),
        ({"update": Update(1, [np.array(["a"])])}, "no file can hold str32"),
        ({"forms": "B"}, "forms='B': expected one of canonical, C, D, E"),
        ({"forms": ["D", 3]}, "forms=3"),
        ({"forms": []}, "nothing to choose from"),
    ],
)
def test_update_files_refuses(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        bkst.update_files(**keywords)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("BK999", "codes='BK999': no such rule"),
        ("nan", "no such rule"),
        ("BK503", "no error that a file has by itself"),
        (["BK401", "BK601"], "codes='BK601': no error that a file has by itself"),
        ([], "nothing to choose from"),
        (401, "no such rule"),
    ],
)
def test_faulty_files_refuses(codes: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        bkst.faulty_files(codes=codes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"parameters": []}, "an update has at least one array"),
        ({"dtypes": []}, "no dtype is allowed"),
        (
            {"dtypes": ["float32"], "parameters": [{"dtype": "float64"}]},
            "no dtype is allowed for parameters[0]",
        ),
        ({"dtypes": [], "parameters": [{}]}, "no dtype is allowed for parameters[0]"),
        ({"parameters": [{}, {"shape": [2**62, 0, 2]}]}, "parameters[1] is past 2**63-1 bytes"),
        ({"max_nbytes": 100}, "the smallest file found has"),
    ],
)
def test_schemas_that_nothing_fits_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        bkst.updates_for(schema(**keys))
    assert message in str(caught.value)


def test_a_schema_is_an_update_schema() -> None:
    untyped: Any = bkst.updates_for
    for wrong in ({"version": 1}, "model.json", None):
        with pytest.raises(InvalidArgument, match="Expected UpdateSchema but got schema="):
            untyped(wrong)
    with pytest.raises(InvalidArgument, match="min_arrays=0"):
        bkst.schemas(min_arrays=0)


def test_the_smallest_file_of_a_schema_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        bkst.updates_for(schema(max_nbytes=100, parameters=[{"dtype": "float32", "shape": [3]}]))
    nbytes = int(str(caught.value).split()[-2])
    assert some(bkst.updates_for(schema(max_nbytes=nbytes, parameters=[{"shape": [3]}])))


# --- files and faults ------------------------------------------------------------------------


def _by_numpy() -> list[tuple[str, str]]:
    """Valid files that np.save wrote with a header of version 1.0, and their forms."""
    found = []
    for entry in json.loads((FIXTURES / "manifest.json").read_text("utf-8"))["files"]:
        if (
            entry["valid"]
            and entry["origin"].startswith("numpy")
            and "-version-" not in entry["path"]
        ):
            report = bkformat.check_file(FIXTURES / entry["path"], kind="aggregate")
            assert report.layout is not None
            found.append((entry["path"], report.layout.writer))
    return found


def test_forms_are_byte_for_byte_what_real_numpys_wrote() -> None:
    files = _by_numpy()
    assert {form for _, form in files} == {"C", "D", "E"}
    for path, form in files:
        update = load_file(FIXTURES / path, kind="aggregate")
        assert build_file(update, form) == (FIXTURES / path).read_bytes(), path


def test_there_is_a_fault_for_every_error_that_a_file_has_by_itself() -> None:
    errors = {code for code, rule in RULES.items() if rule.severity == ERROR}
    needs_a_schema = {code for code in errors if code.startswith("BK5")}
    assert set(FAULTS) == errors - needs_a_schema


@given(bkst.update_files(update=Update(7, [np.arange(3.0)]), forms=("C", "D")))
@settings(max_examples=5)
def test_an_update_may_be_a_value(data: bytes) -> None:
    layout = check_bytes(data).layout
    assert layout is not None
    assert layout.num_samples == 7


# --- loading ---------------------------------------------------------------------------------


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_without_hypothesis_one_line_says_what_to_install() -> None:
    done = _run("import sys; sys.modules['hypothesis'] = None; import bkformat.strategies")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        'ImportError: bkformat.strategies needs Hypothesis: pip install "bkformat[strategies]"'
    )


def test_the_package_does_not_import_hypothesis() -> None:
    code = "import bkformat, sys; [getattr(bkformat, name) for name in bkformat.__all__]"
    done = _run(f"{code}; print('hypothesis' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_hypothesis_does_not_import_numpy_or_pydantic_for_our_sake() -> None:
    code = "import hypothesis, sys; print(sorted({'numpy', 'pydantic'} & set(sys.modules)))"
    done = _run(f"{code}; print(sorted(name for name in sys.modules if name.startswith('bkf')))")
    ours = ["bkformat", "bkformat.hypothesis_entry", "bkformat.load"]
    assert (done.stdout, done.stderr) == (f"[]\n{ours}\n", "")


def test_the_assembler_imports_neither_numpy_nor_hypothesis() -> None:
    code = "import bkformat.assembler.breaches, sys; print(*sorted(sys.modules))"
    loaded = set(_run(code).stdout.split())
    assert not loaded & {"numpy", "hypothesis", "pickle", "pydantic"}
    ours = {name for name in loaded if name.startswith("bkformat.")}
    assert {name.split(".")[1] for name in ours} == {"assembler"}


def test_hypothesis_knows_updates_by_itself() -> None:
    code = (
        "from hypothesis import find, strategies as st; from bkformat import Update; "
        "print(find(st.from_type(Update), lambda update: True))"
    )
    done = _run(code)
    assert (done.stdout, done.stderr) == ("<Update of 1 arrays, num_samples 1>\n", "")


@given(...)
@settings(max_examples=20)
def test_an_annotation_is_enough(update: Update) -> None:
    assert update.num_samples is not None
    assert check_bytes(build_file(update, "E")).valid


def test_all_is_exactly_this_list() -> None:
    assert bkst.__all__ == [
        "aggregates",
        "faulty_files",
        "schemas",
        "update_files",
        "updates",
        "updates_for",
    ]
    assert all(callable(getattr(bkst, name)) for name in bkst.__all__)
