"""The command line: exit codes, streams, formats, and what a person sees when things go wrong."""

import errno
import json
import os
import pty
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bkformat.cli import main

from .files import asm, update, zeros

FIXTURES = Path(__file__).parents[2] / "fixtures"
VALID = str(FIXTURES / "valid" / "base-numpy-2.4.6-python-3.11.npy")
CANONICAL = str(FIXTURES / "valid" / "canonical.npy")
BARE = str(FIXTURES / "valid" / "aggregate-bare-2-form-e.npy")
NAN = str(FIXTURES / "invalid" / "BK401-f4-form-e.npy")
HOSTILE = str(FIXTURES / "invalid" / "BK203-os-system-protocol-4.npy")
WARNING = str(FIXTURES / "warning" / "BK601-dtype-i8.npy")
PROTOCOL_2 = str(FIXTURES / "invalid" / "BK202-n-npint64-numpy-1.16.6-python-2.7.npy")


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def call(*arguments: str) -> Run:
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        captured = capsys.readouterr()
        code = exit_.value.code
        return Run(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


def child(*arguments: str, data: bytes = b"", cwd: Path | None = None) -> Run:
    """The command line as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bkformat", *arguments],
        input=data, capture_output=True, cwd=cwd, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


# --- exit codes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "code"),
    [
        ([VALID], 0),
        ([WARNING], 0),
        ([NAN], 1),
        ([VALID, NAN], 1),
        (["missing.npy"], 2),
        ([VALID, "missing.npy"], 2),
        ([NAN, "missing.npy"], 2),
        ([os.devnull], 2),
    ],
)
@pytest.mark.parametrize("command", ["validate", "inspect"])
def test_exit_code(run: Callable[..., Run], command: str, paths: list[str], code: int) -> None:
    options = ["--stats"] if command == "inspect" else []
    assert run(command, *options, *paths).code == code


def test_strict_refuses_warnings_and_leaves_severities(run: Callable[..., Run]) -> None:
    done = run("validate", "--strict", "--format", "json", WARNING)
    (file,) = json.loads(done.out)["files"]
    assert done.code == 1
    assert file["valid"] is False
    assert [found["severity"] for found in file["findings"]] == ["warning"]


def test_no_values_passes_nan(run: Callable[..., Run]) -> None:
    assert run("validate", "--no-values", NAN).code == 0


def test_kind_aggregate_takes_a_bare_file(run: Callable[..., Run]) -> None:
    assert run("validate", BARE).code == 1
    assert run("validate", "--kind", "aggregate", BARE).code == 0


def test_max_size_is_trouble_not_a_verdict(run: Callable[..., Run]) -> None:
    done = run("validate", "--max-size", "100", VALID)
    assert done.code == 2
    assert "446 bytes is past the limit of 100" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate"],
        ["validate", "--jobs", "0", VALID],
        ["validate", "--format", "yaml", VALID],
        ["validate", "--schema", VALID, "--against", VALID, VALID],
        ["validate", "--schema", VALID, VALID],
        ["validate", "--schema", "missing.json", VALID],
        ["validate", "--against", HOSTILE, VALID],
        ["validate", "--against", "missing.npy", VALID],
        ["explain", "BK999"],
        ["explain", "BK401", "999"],
        ["explain"],
        ["validate", "--max-size", "10M", VALID],
        ["validate", "--max-size", "0", VALID],
        ["validate", "--max-size", "\u0663", VALID],
        ["schema"],
        ["schema", "--json-schema", VALID],
        ["schema", "missing.npy"],
        ["validate", "-", "-"],
        ["validate", "--against", "-", "-"],
        ["nonsense"],
    ],
)
def test_bad_usage_is_2_and_says_so_in_few_words(
    run: Callable[..., Run], arguments: list[str]
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert 1 <= len(done.err.strip().splitlines()) <= 4
    assert "Traceback" not in done.err


# --- paths -----------------------------------------------------------------------------------


def test_folder_is_walked_and_links_are_not(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    shutil.copy(VALID, tmp_path / "b" / "deep" / "2.npy")
    shutil.copy(VALID, tmp_path / "1.npy")
    shutil.copy(NAN, tmp_path / "not-looked-at.txt")
    (tmp_path / "link.npy").symlink_to(NAN)
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    done = run("validate", "--format", "json", str(tmp_path))
    paths = [Path(file["path"]).relative_to(tmp_path) for file in json.loads(done.out)["files"]]
    assert paths == [Path("1.npy"), Path("link.npy"), Path("b/deep/2.npy")]
    # Whoever keeps updates behind links must not take silence for a verdict on them.
    assert [file["valid"] for file in json.loads(done.out)["files"]] == [True, None, True]
    assert done.code == 2
    assert [line.split(": a link")[0] for line in done.err.splitlines()] == [
        f"bkformat: {tmp_path / 'link.npy'}",
        f"bkformat: {tmp_path / 'b' / 'up'}",
    ]
    (tmp_path / "link.npy").unlink()
    assert run("validate", str(tmp_path)).code == 0


def test_a_link_that_is_named_is_followed(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to(NAN)
    assert run("validate", str(tmp_path / "link.npy")).code == 1


def test_folder_without_updates_is_trouble(run: Callable[..., Run], tmp_path: Path) -> None:
    done = run("validate", str(tmp_path))
    assert done.code == 2
    assert "no .npy file in this folder" in done.err


def test_results_stand_in_the_order_of_the_input(run: Callable[..., Run]) -> None:
    given = [NAN, "missing.npy", VALID, str(FIXTURES / "warning"), HOSTILE]
    done = run("validate", "--format", "json", *given)
    paths = [file["path"] for file in json.loads(done.out)["files"]]
    expected = sorted(str(path) for path in (FIXTURES / "warning").glob("*.npy"))
    assert paths == [NAN, "missing.npy", VALID, *expected, HOSTILE]


def test_jobs_change_nothing(tmp_path: Path) -> None:
    folder = str(FIXTURES / "invalid")
    one = child("validate", "--format", "json", folder, "missing.npy", VALID)
    two = child("validate", "--format", "json", "--jobs", "2", folder, "missing.npy", VALID)
    assert one == two
    assert one.code == 2


def test_standard_input() -> None:
    good = child("validate", "-", data=Path(VALID).read_bytes())
    assert (good.code, good.out) == (0, "-: valid (update, num_samples 1,329, 2 arrays)\n")
    bad = child("validate", "-q", VALID, "-", data=Path(NAN).read_bytes())
    assert bad.code == 1
    assert bad.out.startswith("-: invalid")
    large = child("validate", "--max-size", "100", "-", data=Path(VALID).read_bytes())
    assert large.code == 2
    assert child("inspect", "-", data=Path(VALID).read_bytes()).code == 0
    assert child("schema", "-", data=Path(VALID).read_bytes()).code == 0


# --- formats ---------------------------------------------------------------------------------


def test_json_has_the_keys_others_rely_on(run: Callable[..., Run]) -> None:
    done = run("validate", "--sha256", "--format", "json", VALID, NAN, "missing.npy")
    report = json.loads(done.out)
    assert list(report) == ["version", "files", "summary"]
    assert report["version"] == 1
    assert report["summary"] == {"valid": 1, "invalid": 1, "unjudged": 1}
    keys = [
        "path", "valid", "error", "kind", "num_samples", "num_parameters", "nbytes", "sha256",
        "findings",
    ]  # fmt: skip
    assert all(list(file) == keys for file in report["files"])
    valid, invalid, unjudged = report["files"]
    assert (valid["valid"], valid["num_samples"], valid["num_parameters"]) == (True, 1329, 2)
    assert len(valid["sha256"]) == 64
    assert unjudged == dict.fromkeys(keys) | {
        "path": "missing.npy", "findings": [], "error": os.strerror(errno.ENOENT),
    }  # fmt: skip
    (found,) = invalid["findings"]
    assert list(found) == ["code", "name", "severity", "message", "offset", "where", "hint"]
    assert (found["code"], found["severity"], found["where"]) == ("BK401", "error", "parameters[0]")


def test_inspect_json_has_the_keys_others_rely_on(run: Callable[..., Run]) -> None:
    done = run("inspect", "--stats", "--format", "json", VALID, PROTOCOL_2, HOSTILE)
    report = json.loads(done.out)
    valid, old, hostile = report["files"]
    assert list(report) == ["version", "files"]
    assert list(valid) == [
        "path", "valid", "error", "kind", "num_samples", "num_parameters", "num_elements", "nbytes",
        "protocol", "writer", "loads_on", "stopped_at", "findings", "arrays",
    ]  # fmt: skip
    assert (valid["protocol"], valid["writer"], valid["loads_on"]) == (4, "E", ">=1.26.1")
    assert valid["stopped_at"] is None
    array = valid["arrays"][0]
    assert list(array) == [
        "index", "name", "dtype", "shape", "order", "offset", "nbytes", "aligned", "stats",
    ]  # fmt: skip
    assert (array["dtype"], array["shape"], array["order"]) == ("float32", [3, 4], "C")
    # 0, 1/8, ... 11/8: known by hand.
    stats = array["stats"]
    assert (stats["min"], stats["max"], stats["mean"]) == (0.0, 1.375, 0.6875)
    assert stats["zeros"] == pytest.approx(1 / 12)
    assert (old["protocol"], old["writer"], old["stopped_at"]) == (2, "A", 128)
    assert (hostile["valid"], hostile["stopped_at"]) == (False, hostile["findings"][-1]["offset"])


def test_inspect_tells_what_was_not_read(run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "cut.npy"
    path.write_bytes(Path(VALID).read_bytes()[:200])
    out = run("inspect", str(path)).out
    assert "num_samples  not read\n" in out
    assert "parameters   not read\n" in out
    path.write_bytes(update(*zeros((2,), (3,)), form=asm.D)[:-20])
    out = run("inspect", str(path)).out
    assert "num_samples  7\n" in out
    assert "parameters   1 (2 elements) before reading stopped\n" in out


def test_inspect_calls_arrays_what_findings_do(run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    outer = np.empty(2, dtype=object)
    outer[0], outer[1] = 7, [np.zeros(2, "f4"), None, np.array([np.nan], "f4")]
    np.save(path, outer, allow_pickle=True)
    schema = tmp_path / "schema.json"
    names = [{"name": name} for name in ("first", "second", "third")]
    schema.write_text(json.dumps({"version": 1, "parameters": names}))
    options = ("--stats", "--schema", str(schema), str(path))
    (file,) = json.loads(run("inspect", "--format", "json", *options).out)["files"]
    assert [(array["index"], array["name"]) for array in file["arrays"]] == [
        (0, "first"), (2, "third"),
    ]  # fmt: skip
    assert [array["stats"]["nan"] for array in file["arrays"]] == [0, 1]
    lines = run("inspect", *options).out.splitlines()
    assert len([line for line in lines if line.startswith("      2  ")]) == 2
    assert any("third" in line and line.startswith("      2") for line in lines)


def test_inspect_takes_a_bare_file_for_an_aggregate(run: Callable[..., Run]) -> None:
    (file,) = json.loads(run("inspect", "--format", "json", BARE).out)["files"]
    assert (file["kind"], file["valid"], file["num_samples"]) == ("aggregate", True, None)


def test_github_annotations(run: Callable[..., Run]) -> None:
    done = run("validate", "--format", "github", NAN, WARNING, "missing.npy", VALID)
    lines = done.out.splitlines()
    assert [line.split(" ")[0] for line in lines[:3]] == ["::error", "::warning", "::error"]
    assert f"file={NAN},title=BK401 nan::parameters[0]: " in lines[0]
    assert lines[3:] == ["4 files: 2 valid (1 with warnings), 1 invalid, 1 unjudged"]


def test_junit_counts(run: Callable[..., Run]) -> None:
    done = run("validate", "--format", "junit", NAN, WARNING, "missing.npy", VALID)
    (suite,) = ET.fromstring(done.out)  # noqa: S314  (our own output)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [
        ["failure"], ["system-out"], ["error"], [],
    ]  # fmt: skip


def test_text_fits_80_columns(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES / "invalid")
    names = sorted(path.name for path in Path().glob("*.npy"))
    done = run("validate", *names)
    long = [line for line in done.out.splitlines() if len(line) > 80 and not line.startswith("BK")]
    assert long == []
    done = run("inspect", "--stats", *names)
    assert [
        line for line in done.out.splitlines() if len(line) > 80 and not line.startswith("BK")
    ] == []


def test_quiet_says_nothing_of_valid_files(run: Callable[..., Run]) -> None:
    assert run("validate", "-q", VALID, WARNING) == (0, "", "")
    assert run("validate", "-q", VALID, NAN).out.startswith(f"{NAN}: invalid")


# --- what a stranger wrote -------------------------------------------------------------------

EVIL_NAMES = [
    "red\x1b[31m.npy",
    "two\nlines.npy",
    "::error::x.npy",
    "bidi\u202egnp.npy",
    "nul-ish\x07\x7f\x85.npy",
    os.fsdecode(b"not-utf8-\xff\xfe.npy"),
    "<&'\">]]>.npy",
    "fffe\ufffe.npy",
    "%0A%25,:.npy",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("form", ["text", "json", "github", "junit"])
def test_evil_file_names(tmp_path: Path, name: str, form: str) -> None:
    shutil.copy(NAN, tmp_path / name)
    done = child("validate", "--format", form, name, f"missing-{name}", cwd=tmp_path)
    for stream in (done.out, done.err):
        assert not any(ord(char) < 32 and char != "\n" for char in stream)
        assert not any(char in stream for char in "\x7f\x85\u202e\ufffe")
    assert done.code == 2
    if form == "json":
        assert [file["valid"] for file in json.loads(done.out)["files"]] == [False, None]
    elif form == "junit":
        (suite,) = ET.fromstring(done.out)  # noqa: S314  (our own output)
        assert len(suite) == 2
    elif form == "github":
        commands = [line for line in done.out.splitlines() if line.startswith("::")]
        assert len(commands) == 2
        assert all(line.startswith("::error file=") for line in commands)
    else:
        assert done.out.count(": invalid") == 1


@pytest.mark.parametrize("command", ["validate", "inspect"])
def test_evil_schema_names(run: Callable[..., Run], tmp_path: Path, command: str) -> None:
    schema = {
        "version": 1,
        "parameters": [
            {"name": "\x1b[31m\n::error::\u202e", "dtype": "float64", "shape": [9]},
            {"name": "x" * 500},
        ],
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    done = run(command, "--schema", str(path), VALID)
    assert done.code == 1
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert not any(line.startswith("::") for line in done.out.splitlines())
    assert max(map(len, done.out.splitlines())) <= max(80, len(VALID) + 40)


def test_evil_schema_keys(run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"version": 1, "\x1b[31m\n::error::x": 1}))
    done = run("validate", "--schema", str(path), VALID)
    assert done.code == 2
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 1


# --- a terminal, a pipe, an interruption -----------------------------------------------------


def test_closed_pipe_is_quiet_and_no_verdict() -> None:
    command = f"{sys.executable} -m bkformat validate {FIXTURES / 'invalid'} | head -n 1; "
    command += "echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""
    assert done.stdout.splitlines()[1:] == [b"2"]


def test_module_of_the_command_line_runs_it() -> None:
    command = [sys.executable, "-m", "bkformat.cli", "validate", NAN]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_a_reference_must_be_valid_itself(run: Callable[..., Run], tmp_path: Path) -> None:
    for refused in (NAN, PROTOCOL_2, str(FIXTURES / "invalid" / "BK307-false-protocol-4.npy")):
        done = run("validate", "--against", refused, VALID)
        assert (done.code, done.out) == (2, "")
        assert "gives no schema: BK" in done.err
    assert run("schema", NAN).code == 1
    assert child("validate", "--against", "-", VALID, data=Path(VALID).read_bytes()).code == 0


def test_counts_include_what_is_not_listed(run: Callable[..., Run], tmp_path: Path) -> None:
    outer = np.empty(2, object)
    outer[0], outer[1] = 1, [np.zeros(1, ">f4") for _ in range(250)]
    path = tmp_path / "update.npy"
    np.save(path, outer, allow_pickle=True)
    lines = run("validate", str(path)).out.splitlines()
    assert lines[0].endswith("invalid (250 errors)")
    assert lines[-1].strip() == "and 150 more big-endian findings"


def test_progress_bar_on_a_terminal_alone(tmp_path: Path) -> None:
    data = Path(VALID).read_bytes()
    for index in range(600):
        (tmp_path / f"{index:03}.npy").write_bytes(data)
    command = [sys.executable, "-m", "bkformat", "validate", str(tmp_path)]
    master, slave = pty.openpty()
    report = tmp_path / "report"
    with report.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=slave):
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # how a pty says that the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(master)
    assert b"judging" in shown
    assert report.read_bytes().count(b"valid (update") == 600
    assert child("validate", str(tmp_path)).err == ""


def test_internal_errors_are_one_line(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("what\x1b[31m")

    monkeypatch.setattr("bkformat.files.judge_paths", broken)
    done = run("validate", VALID)
    assert done.code == 2
    assert done.err.startswith("bkformat: internal error")
    assert len(done.err.splitlines()) == 1
    assert "\x1b" not in done.err


# --- schema, rules, explain, version ---------------------------------------------------------


def test_schema_of_a_file_is_fitted_by_it(run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(run("schema", CANONICAL).out)
    assert run("validate", "--schema", str(path), CANONICAL).code == 0
    assert run("validate", "--schema", str(path), VALID).code == 1
    assert run("validate", "--against", CANONICAL, VALID).code == 1
    assert run("validate", "--against", VALID, VALID).code == 0


def test_schema_of_a_refused_file_is_1(run: Callable[..., Run]) -> None:
    done = run("schema", HOSTILE)
    assert (done.code, done.out) == (1, "")
    assert "BK203" in done.err


def test_json_schema_describes_the_model(run: Callable[..., Run]) -> None:
    described = json.loads(run("schema", "--json-schema").out)
    assert described["additionalProperties"] is False
    assert described["required"] == ["version"]


def test_rules_and_explain_cover_every_rule(run: Callable[..., Run]) -> None:
    from bkformat.rules import RULES

    listed = json.loads(run("rules", "--format", "json").out)["rules"]
    assert [rule["code"] for rule in listed] == list(RULES)
    text = run("rules").out
    assert all(f"{code} " in text for code in RULES)
    for code, rule in RULES.items():
        explained = run("explain", code)
        assert explained.out.startswith(f"{code} {rule.name}")
        assert max(map(len, explained.out.splitlines())) <= 80
    assert run("explain", "bk203").out == run("explain", "foreign-global").out
    assert run("explain", "203").out == run("explain", "BK203").out
    two = run("explain", "BK203", "BK401").out
    assert two == run("explain", "BK203").out + "\n" + run("explain", "BK401").out


def test_version(run: Callable[..., Run]) -> None:
    assert run("--version").out.startswith("bkformat 0.")
