"""Two files side by side: the value, the command line, exit codes, JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import Diff, InvalidUpdateError, UpdateChangedError, diff, diff_files
from bkformat.cli import main
from bkformat.diff import sources_equal
from bkformat.source import open_file

from .files import FIXTURES, aggregate, asm, update, zeros

VALID = FIXTURES / "valid" / "base-numpy-2.4.6-python-3.11.npy"
BARE = FIXTURES / "valid" / "aggregate-bare-2-form-e.npy"
NAN = FIXTURES / "invalid" / "BK401-f4-form-e.npy"
HOSTILE = FIXTURES / "invalid" / "BK203-os-system-protocol-4.npy"

Write = Callable[[str, bytes], str]
Run = tuple[int, str, str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def call(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return call


@pytest.fixture
def compare(write: Write) -> Callable[[bytes, bytes], Diff]:
    """The diff of two files, and that -q would say the same of them."""

    def call(a: bytes, b: bytes) -> Diff:
        paths = write("a.npy", a), write("b.npy", b)
        found = diff_files(*paths)
        with open_file(paths[0]) as source_a, open_file(paths[1]) as source_b:
            assert sources_equal(source_a, source_b, *paths) == found.equal
        return found

    return call


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def call(*arguments: str) -> Run:
        with pytest.raises(SystemExit) as exit_:
            main(["diff", *arguments])
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


Compare = Callable[[bytes, bytes], Diff]
W, V = np.arange(12, dtype="f4").reshape(3, 4), np.ones(4, "f4")


def statuses(found: Diff) -> list[tuple[int | None, int | None, str]]:
    return [(row.a_index, row.b_index, row.status) for row in found.arrays]


# --- equal or not ----------------------------------------------------------------------------


def test_how_a_file_is_written_does_not_matter(compare: Compare) -> None:
    same = update(W, V)
    for other in (
        same,
        update(W, V, form=asm.C),
        update(W, V, form=asm.D),
        update(W, V, memo="used"),
        update(np.asfortranarray(W), V),
    ):
        found = compare(same, other)
        assert found.equal
        assert found.summary() == "unchanged: the same num_samples and 2 arrays, bit for bit"
        assert [row.change.cosine for row in found.arrays if row.change] == [1, 1]


@pytest.mark.parametrize("name", ["base", "fortran", "transposed", "zero-d"])
def test_writers_agree(name: str) -> None:
    paths = sorted((FIXTURES / "valid").glob(f"{name}-numpy-*.npy"))
    assert len(paths) == 3
    assert all(diff_files(paths[0], path).equal for path in paths)


def test_every_fixture_is_what_it_is() -> None:
    for path in sorted((FIXTURES / "valid").glob("*.npy")):
        assert diff_files(path, path).equal


@pytest.mark.parametrize(
    ("b", "summary"),
    [
        (update(W, V, num_samples=8), "unchanged: 2 arrays, bit for bit; num_samples 7 -> 8"),
        (aggregate(W, V), "unchanged: 2 arrays, bit for bit; num_samples 7 -> none"),
        (update(-0.0 * W, V), "changed: "),
        (update(W + 0, -V), "changed: "),
        (update(W), "different structure: 1 removed; unchanged: 1 array, bit for bit"),
        (update(V, W, V), "different structure: 1 added; unchanged: 2 arrays, bit for bit"),
        (
            update(W.astype("f8"), V),
            "different structure: 1 of another dtype; the same values in other bits: 2 arrays",
        ),
        (
            update(W.T.copy(), V),
            "different structure: 1 of another shape; unchanged: 1 array, bit for bit",
        ),
        (update(*zeros((9,))), "different structure: 1 added, 2 removed; no array to compare"),
    ],
)  # fmt: skip
def test_different(compare: Compare, b: bytes, summary: str) -> None:
    found = compare(update(W, V), b)
    assert not found.equal
    assert found.summary().startswith(summary)
    assert str(found) == found.summary()


def test_signs_of_zeros_are_bits(compare: Compare) -> None:
    found = compare(update(*zeros((2,))), update(-zeros((2,))[0]))
    assert not found.equal
    assert found.summary() == "the same values in other bits: 1 array"
    assert found.arrays[0].status == "changed"
    assert found.total.max_abs == 0


def test_two_aggregates_without_a_count(compare: Compare) -> None:
    assert compare(aggregate(W, V), aggregate(W, V)).equal
    assert diff_files(BARE, BARE).equal


def test_nobody_takes_a_diff_for_a_verdict(compare: Compare) -> None:
    with pytest.raises(TypeError, match=r"ask for diff\.equal"):
        bool(compare(update(W), update(V)))


# --- at a glance -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "summary"),
    [
        ([3.003, 4], "small change: 0.0006 times the norm of A, cosine 1; 1 of 2 elements differ"),
        ([3, 4.5], "changed: 0.1 times the norm of A, cosine 0.99846; 1 of 2 elements differ"),
        ([-3, -4], "large change: 2 times the norm of A, cosine -1; 2 of 2 elements differ"),
        ([3e6, 4e6], "exploded: 1e+06 times the norm of A, cosine 1; 2 of 2 elements differ"),
        ([math.nan, 4], "not finite: A has none, B 1 NaN; the finite values are the same; 1 of "),
        ([math.nan, math.inf], "not finite: A has none, B 1 NaN and 1 infinite value; no element"),
    ],
)  # fmt: skip
def test_words(compare: Compare, b: list[float], summary: str) -> None:
    found = compare(update(np.array([3, 4.0])), update(np.array(b, "f8")))
    assert found.summary().startswith(summary)


def test_words_at_the_ends(compare: Compare) -> None:
    found = compare(update(*zeros((2,))), update(np.array([3, 4], "f4")))
    assert found.summary().startswith("changed: A is all zeros, the norm of B is 5; 2 of 2")
    huge = np.full(3, 1.7e308)
    found = compare(update(huge), update(-huge))
    assert found.summary().startswith("exploded: the change is past the range of float64; 3 of 3")
    nan = np.array([math.nan, 1], "f4")
    found = compare(update(nan), update(nan * np.array([1, 2], "f4")))
    assert found.summary().startswith("not finite: A and B have 1 NaN; large change: 1 times")


def test_the_array_that_changed_most_is_named(compare: Compare) -> None:
    a = [np.full(4, 1000.0), np.full(4, 1.0), np.full(4, 10.0)]
    b = [a[0], a[1] * 3, a[2] * 2]
    summary = compare(update(*a), update(*b)).summary()
    assert "(parameters[1]: 2 times its own)" in summary
    assert summary.startswith("changed: ")


# --- structure -------------------------------------------------------------------------------


def test_a_shift_is_found_and_the_rest_compared(compare: Compare) -> None:
    extra = np.zeros((5, 5), "f4")
    found = compare(update(W, V, W), update(W, extra, V, W + 1))
    assert statuses(found) == [
        (0, 0, "equal"), (None, 1, "added"), (1, 2, "equal"), (2, 3, "changed"),
    ]  # fmt: skip
    assert found.structure() == "1 added"
    last = found.arrays[-1].change
    assert last is not None
    assert (last.max_abs, last.num_different) == (1, 12)
    assert found.total.num_elements == 28


def test_another_dtype_is_compared_by_value(compare: Compare) -> None:
    found = compare(update(W, V), update(W.astype("f8") + 0.5, V.astype("f8")))
    assert statuses(found) == [(0, 0, "dtype"), (1, 1, "dtype")]
    changes = [row.change for row in found.arrays if row.change]
    assert [(x.max_abs, x.num_different, x.bits_alone) for x in changes] == [
        (0.5, 12, False), (0, 0, True),
    ]  # fmt: skip


def test_lists_that_were_not_aligned_say_so(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Run], tmp_path: Path
) -> None:
    monkeypatch.setattr("bkformat.alignment.MAX_CELLS", 1)
    assert not compare(update(W, V, V), update(V, W, W)).aligned
    _, out, _ = run(str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    assert "paired by position" in out


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "bool", "int64", "uint8"])
def test_dtypes_that_a_schema_may_allow(compare: Compare, dtype: str) -> None:
    array = np.array([[1, 0, 1], [1, 1, 1]], dtype)
    assert compare(update(array), update(np.asfortranarray(array))).equal
    other = array.copy()
    other[0, 1] = 1
    found = compare(update(array), update(other))
    assert (found.equal, found.total.num_different, found.total.max_abs) == (False, 1, 1)


def test_empty_arrays(compare: Compare) -> None:
    empty = np.zeros((0, 3), "f4")
    assert compare(update(empty), update(empty)).equal
    assert compare(update(empty, V), update(empty, V)).equal


# --- trouble ---------------------------------------------------------------------------------


def test_a_refused_file_is_named(write: Write) -> None:
    path = write("a.npy", update(W))
    for pair in ((path, HOSTILE), (HOSTILE, path)):
        with pytest.raises(
            InvalidUpdateError, match=r"BK203-os-system.*BK203 foreign-global"
        ) as info:
            diff_files(*pair)
        assert info.value.path == str(HOSTILE)
        assert info.value.report.findings[0].code == "BK203"
    with pytest.raises(OSError, match="No such file"):
        diff_files(path, "missing.npy")
    with pytest.raises(TypeError, match="a path is wanted"):
        diff_files(path, update(W))  # type: ignore[arg-type]


def test_values_are_no_reason_to_refuse() -> None:
    found = diff_files(NAN, NAN)
    assert found.equal
    assert found.total.nan_a == found.total.nan_b == 1


@pytest.mark.parametrize("which", ["a.npy", "b.npy"])
@pytest.mark.parametrize("nbytes", [200, 1000])
def test_a_file_that_changes_meanwhile(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: str, nbytes: int
) -> None:
    a, b = write("a.npy", update(W)), write("b.npy", update(W))
    align = diff.align

    def meddle(*arrays: Any) -> Any:
        os.truncate(tmp_path / which, nbytes)
        return align(*arrays)

    monkeypatch.setattr(diff, "align", meddle)
    with pytest.raises(UpdateChangedError) as info:
        diff_files(a, b)
    assert info.value.filename == str(tmp_path / which)


# --- the command line ------------------------------------------------------------------------


TEXT = """\
A a.npy: update, 685 B
B b.npy: update, 817 B
  num_samples  7 -> 9
  parameters   5 (52 elements) -> 6 (77 elements)
  structure    1 added

     A  B  array
  +     1  float32 (5, 5)

    A  shift  array           differ  max abs  max rel  norm B-A   cosine
    0         float32 (3, 4)   equal
    1     +1  float32 (4,)     25.0%      0.5      0.5       0.5  0.98198
  2:5     +1  3 arrays         equal
  all         5 arrays          1.9%      0.5      0.5       0.5  0.99994

different structure: 1 added; changed: 0.0111 times the norm of A
(parameters[1]: 0.25 times its own), cosine 0.999938; 1 of 52 elements differ;
num_samples 7 -> 9
"""


def test_text(
    write: Write, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = V.copy()
    changed[1] = 1.5
    write("a.npy", update(W, V, W, W, W))
    write("b.npy", update(W, np.zeros((5, 5), "f4"), changed, W, W, W, num_samples=9))
    monkeypatch.chdir(tmp_path)
    code, out, err = run("a.npy", "b.npy")
    assert (code, err) == (1, "")
    assert out == TEXT


def test_text_of_what_is_not_finite(write: Write, run: Callable[..., Run]) -> None:
    a, b = np.array([1, math.nan, 0.0]), np.array([math.inf, math.nan, -0.0])
    _, out, _ = run(write("a", update(a, -a[2:])), write("b", update(b, a[2:])))
    lines = out.splitlines()
    assert lines[7].split() == ["0", "float64", "(3,)", "33.3%", "0", "-", "0", "-"]
    assert lines[8].split() == ["1", "float64", "(1,)", "bits"]
    assert lines[10].startswith("  bits: the same values in other bits")
    assert lines[12] == "  index  NaN in A  NaN in B  inf in A  inf in B"
    assert lines[13].split() == ["0", "1", "1", "0", "1"]
    assert lines[15].startswith("not finite: A has 1 NaN, B 1 NaN and 1 infinite value; the finite")


def test_thousands_of_arrays_are_a_few_lines(write: Write, run: Callable[..., Run]) -> None:
    a = zeros(*[(1 + index % 3,) for index in range(3000)])
    b = a[:50] + zeros(*[(9,)] * 40) + a[50:2000] + a[2005:]
    b[100] = b[100] + 1
    code, out, _ = run(write("a", update(*a)), write("b", update(*b)))
    assert code == 1
    assert len(out.splitlines()) < 25
    assert "  +             50:90  40 arrays: float32 (9,)" in out
    assert "  -  2000:2005         5 arrays: float32 (" in out
    code, out, _ = run(
        write("a", update(*a)), write("b", update(*[array.astype("f8") for array in a]))
    )
    assert len(out.splitlines()) < 18
    assert "  ~  0:3000  0:3000  3,000 arrays: float32 -> float64\n" in out


def test_text_fits_80_columns(
    write: Write, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    a = [generator.standard_normal((1, 2, 3, 1, 2, 3, 1, 1)) for _ in range(1200)]
    b = [a[0].astype("f4"), np.zeros((1,) * 32, "f4"), *(-array * 1e200 for array in a[1:])]
    b[5] = np.zeros(36, "f4")
    write("a", update(*a))
    write("b", update(*b))
    monkeypatch.chdir(tmp_path)
    for arguments in (("a", "b"), ("b", "a")):
        _, out, _ = run(*arguments)
        assert max(map(len, out.splitlines())) <= 80


def test_json_is_strict_and_has_the_keys_others_rely_on(
    write: Write, run: Callable[..., Run]
) -> None:
    huge = np.array([1.7e308, math.nan, math.inf])
    a, b = write("a", update(W, huge)), write("b", update(V, W + 1, -huge, num_samples=9))
    code, out, _ = run("--format", "json", a, b)

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    told = json.loads(out, parse_constant=refuse)
    assert code == 1
    assert list(told) == ["version", "a", "b", "equal", "summary", "aligned", "total", "arrays"]
    assert told["a"] == {
        "path": a, "kind": "update", "num_samples": 7, "num_parameters": 2, "num_elements": 15,
        "nbytes": os.stat(a).st_size,
    }  # fmt: skip
    assert (told["version"], told["equal"], told["aligned"]) == (1, False, True)
    assert told["b"]["num_samples"] == 9
    assert told["summary"] == str(diff_files(a, b))
    added, changed, exploded = told["arrays"]
    assert added == {
        "a_index": None, "b_index": 0, "name": None, "status": "added", "a_dtype": None,
        "b_dtype": "float32", "a_shape": None, "b_shape": [4], "change": None,
    }  # fmt: skip
    assert (changed["a_index"], changed["b_index"], changed["status"]) == (0, 1, "changed")
    assert list(changed["change"]) == list(told["total"]) == [
        "num_elements", "identical", "num_different", "max_abs", "max_rel", "norm", "norm_a",
        "norm_b", "cosine", "nan_a", "nan_b", "inf_a", "inf_b",
    ]  # fmt: skip
    assert (changed["change"]["max_abs"], changed["change"]["norm"]) == (1, math.sqrt(12))
    assert (exploded["change"]["max_abs"], exploded["change"]["norm"]) == (None, None)
    assert exploded["change"]["inf_b"] == 1


@pytest.mark.parametrize("options", [[], ["-q"], ["--format", "json"]])
def test_exit_codes(write: Write, run: Callable[..., Run], options: list[str]) -> None:
    a, b = write("a.npy", update(W)), write("b.npy", update(W + 1))
    assert run(*options, a, a)[0] == 0
    assert run(*options, a, b)[0] == 1
    assert run(*options, a, str(BARE))[0] == 1
    for trouble in ((a, "missing.npy"), ("missing.npy", a), (a, str(HOSTILE)), (a, os.devnull)):
        code, out, err = run(*options, *trouble)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
    assert run("-q", a, b) == (1, "", "")


@pytest.mark.parametrize(
    "arguments", [[], ["a"], ["a", "b", "c"], ["-", "-"], ["--format", "x", "a", "b"]]
)
def test_bad_usage(run: Callable[..., Run], arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert 1 <= len(err.splitlines()) <= 4


def test_a_refused_file_is_one_line(run: Callable[..., Run]) -> None:
    _, _, err = run(str(VALID), str(HOSTILE))
    assert err.startswith(f"bkformat: {HOSTILE} can't be compared: BK203 foreign-global: ")


def test_names_of_a_schema(write: Write, run: Callable[..., Run]) -> None:
    names = ["\x1b[31m" + "x" * 60, None]
    schema = {"version": 1, "parameters": [{"name": name} for name in names]}
    path = write("schema.json", json.dumps(schema).encode())
    a, b = write("a", update(W, V)), write("b", update(W + 1, V + 1, V))
    _, out, _ = run("--schema", path, a, b)
    assert "\\x1b[31mxx" in out
    assert "\x1b" not in out
    _, out, _ = run("--schema", path, "--format", "json", a, b)
    assert [row["name"] for row in json.loads(out)["arrays"]] == [*names, None]
    assert run("--schema", a, a, b)[0] == 2


def test_evil_paths(tmp_path: Path) -> None:
    name = os.fsdecode(b"red\x1b[31m\n\xff.npy")
    shutil.copy(VALID, tmp_path / name)
    for options in ([], ["--format", "json"]):
        for other in (name, f"missing-{name}"):
            done = subprocess.run(
                [sys.executable, "-m", "bkformat", "diff", *options, name, other],
                capture_output=True, cwd=tmp_path, check=False,
            )  # fmt: skip
            assert done.returncode == (0 if other == name else 2)
            assert b"\x1b" not in done.stdout + done.stderr
            assert b"\xff" not in done.stdout + done.stderr


def test_standard_input() -> None:
    command = [sys.executable, "-m", "bkformat", "diff", "-q"]
    for pair in (("-", str(VALID)), (str(VALID), "-")):
        done = subprocess.run([*command, *pair], input=VALID.read_bytes(), check=False)
        assert done.returncode == 0
