"""build, repair and convert from the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from bkformat import build_update, check_file, load_schema
from bkformat.cli import cli, main

from .files import FIXTURES

W = np.arange(12, dtype="float32").reshape(3, 4) / 8
B = np.arange(4, dtype="float32")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Ran(NamedTuple):
    """How a command ended, and what it printed on both streams."""

    exit_code: object
    output: str


def run(*arguments: object) -> Ran:
    """By `main`, so that errors end as they do for a person."""
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(argument) for argument in arguments])
    return Ran(ended.value.code, printed.getvalue())


def test_build_from_an_npz() -> None:
    np.savez("model.npz", weight=W, bias=B)
    result = run(
        "build", "--num-samples", 7, "model.npz", "-o", "u.npy", "--write-schema", "s.json"
    )
    assert result.exit_code == 0
    assert result.output == "u.npy: valid (update, num_samples 7, 2 arrays)\n"
    assert Path("u.npy").read_bytes() == build_update(7, [W, B])
    assert [spec.name for spec in load_schema("s.json").parameters or ()] == ["weight", "bias"]
    assert run("validate", "--schema", "s.json", "u.npy").exit_code == 0
    with np.load("model.npz") as archive:
        assert Path("u.npy").read_bytes() == build_update(7, archive)


def test_build_from_branchkey_layers() -> None:
    layers = {f"layer_{at}": np.full(2, at, "float32") for at in range(12)}
    np.savez("model.npz", weighting=np.array([7.0]), **dict(sorted(layers.items())))
    assert run("build", "--num-samples", 7, "model.npz", "-o", "u.npy").exit_code == 0
    assert Path("u.npy").read_bytes() == build_update(7, layers)
    result = run("build", "--num-samples", 8, "model.npz", "-o", "v.npy")
    assert (result.exit_code, Path("v.npy").exists()) == (1, False)
    assert "weighting is 7" in result.output


def test_build_from_a_folder() -> None:
    os.mkdir("layers")
    for at in range(12):
        np.save(f"layers/layer_{at}.npy", np.full(2, at, [">f4", "f8"][at % 2]))
    np.save("layers/layer_12.npy", np.asfortranarray(W))
    assert run("build", "--num-samples", 7, "layers", "-o", "u.npy").exit_code == 0
    arrays = [np.full(2, at, ["f4", "f8"][at % 2]) for at in range(12)]
    assert Path("u.npy").read_bytes() == build_update(7, [*arrays, W])
    np.save("layers/layer_13.npy", np.array([None]), allow_pickle=True)
    result = run("build", "--num-samples", 7, "layers", "-o", "v.npy")
    assert (result.exit_code, Path("v.npy").exists()) == (1, False)
    assert "array of objects" in result.output
    os.mkdir("none")
    assert run("build", "--num-samples", 7, "none", "-o", "v.npy").exit_code == 1


def test_build_from_a_folder_of_many_files() -> None:
    os.mkdir("layers")
    for at in range(1500):
        np.save(f"layers/{at}.npy", np.full(2, at, "float32"))
    assert run("build", "--num-samples", 7, "layers", "-o", "u.npy").exit_code == 0
    arrays = [np.full(2, at, "float32") for at in range(1500)]
    assert Path("u.npy").read_bytes() == build_update(7, arrays)


def test_nothing_is_overwritten_that_is_read() -> None:
    os.mkdir("layers")
    np.save("layers/w.npy", W)
    np.save("layers/b.npy", B)
    np.savez("m.npz", weight=W)
    before = Path("layers/w.npy").read_bytes(), Path("m.npz").read_bytes()
    for source, out, schema in (
        ("layers", "layers/w.npy", "s.json"),
        ("layers", "u.npy", "layers/w.npy"),
        ("m.npz", "u.npy", "m.npz"),
        ("m.npz", "u.npy", "./u.npy"),
        ("m.npz", "u.npy", "no/s.json"),
        ("m.npz", "u.npy", "."),
    ):
        wanted = ["-o", out, "--write-schema", schema]
        assert run("build", "--num-samples", 7, source, *wanted).exit_code == 2
        assert not Path("u.npy").exists()
    assert (Path("layers/w.npy").read_bytes(), Path("m.npz").read_bytes()) == before
    result = run("build", "--num-samples", 7, "layers", "-o", "u.npy")
    assert (result.exit_code, "alphabetical" in result.output) == (0, True)
    result = run("build", "--num-samples", 7, "missing", "-o", "v.npy")
    assert (result.exit_code, "No such file" in result.output) == (2, True)


def test_build_from_safetensors() -> None:
    safetensors.numpy.save_file({"z": W, "a": B}, "m.safetensors")
    result = run("build", "--num-samples", 7, "m.safetensors", "-o", "u.npy")
    assert result.exit_code == 0
    assert "in which order" in result.output
    schema = {"version": 1, "parameters": [{"name": "z"}, {"name": "a", "shape": [4]}]}
    Path("s.json").write_text(json.dumps(schema), "utf-8")
    result = run("build", "--num-samples", 7, "m.safetensors", "-o", "u.npy", "--schema", "s.json")
    assert (result.exit_code, "order" in result.output) == (0, False)
    assert Path("u.npy").read_bytes() == build_update(7, [W, B])


def test_build_bfloat16() -> None:
    header = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    halves = (np.array([1.5, -2], "float32").view("uint32") >> 16).astype("<u2").tobytes()
    Path("m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + halves)
    result = run("build", "--num-samples", 7, "m.safetensors", "-o", "u.npy")
    assert (result.exit_code, "BK224" in result.output) == (1, True)
    wanted = ["--dtype", "float32"]
    assert run("build", "--num-samples", 7, "m.safetensors", "-o", "u.npy", *wanted).exit_code == 0
    assert Path("u.npy").read_bytes() == build_update(7, [np.array([1.5, -2], "float32")])


@pytest.mark.parametrize("value", [300.0, -1.0, np.nan, np.inf])
def test_build_to_integers_that_do_not_fit(value: float) -> None:
    turned = np.asfortranarray(np.array([[1.0, 2.0], [3.0, value]]))
    for name, array in (("a.npz", np.array([1.0, value])), ("b.npz", turned)):
        np.savez(name, weight=array)
        result = run("build", "--num-samples", 7, name, "-o", "u.npy", "--dtype", "uint8")
        assert (result.exit_code, Path("u.npy").exists()) == (2, False)
        assert result.output == "bkformat: weight holds values that uint8 does not\n"


def test_build_converts() -> None:
    turned = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    np.savez("a.npz", one=turned, two=np.arange(3))
    wanted = ["-o", "u.npy", "--dtype", "float32"]
    assert run("build", "--num-samples", 7, "a.npz", *wanted).exit_code == 0
    arrays = [turned.astype("float32"), np.arange(3, dtype="float32")]
    assert Path("u.npy").read_bytes() == build_update(7, arrays)


def test_build_fits_a_schema() -> None:
    np.savez("model.npz", weight=W, bias=B)
    schema = {"version": 1, "parameters": [{"name": "bias"}, {"name": "weight", "shape": [4, 3]}]}
    Path("s.json").write_text(json.dumps(schema), "utf-8")
    result = run("build", "--num-samples", 7, "model.npz", "-o", "u.npy", "--schema", "s.json")
    assert (result.exit_code, Path("u.npy").exists()) == (1, False)
    assert "BK503" in result.output
    Path("s.json").write_text('{"version": 1, "parameters": [{"name": "x"}]}', "utf-8")
    result = run("build", "--num-samples", 7, "model.npz", "-o", "u.npy", "--schema", "s.json")
    assert (result.exit_code, "'x' is missing" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "--num-samples", "0", "m.npz", "-o", "u.npy"], 2, "0 is not in the range"),
        (["build", "m.npz", "-o", "u.npy"], 2, "--num-samples"),
        (["build", "--num-samples", "7", "m.npz"], 2, "--output"),
        (["build", "--num-samples", "7", "none.npz", "-o", "u.npy"], 2, "No such file"),
        (["build", "--num-samples", "7", "m.txt", "-o", "u.npy"], 2, "No such file"),
        (["build", "--num-samples", "7", "m.npz", "-o", "no/u.npy"], 2, "No such file"),
        (["build", "--num-samples", "7", "m.npz", "-o", "."], 2, "Is a directory"),
        (["build", "--num-samples", "7", "m.npz", "-o", "m.npz"], 2, "same file"),
        (["build", "--num-samples", "7", "m.npz", "-o", "u.npy", "--max-size", "9"], 2, "past the"),
        (["build", "--num-samples", "7", "m.npz", "-o", "u.npy", "--schema", "m.npz"], 2, "schema"),
        (["build", "--num-samples", "7", "bad.npz", "-o", "u.npy"], 1, "BK401"),
        (["convert", "m.npz", "m.safetensors"], 1, "weight: neither weighting"),
        (["convert", "m.npz", "x"], 2, "must end in"),
        (["convert", "none.npy", "x.npz"], 2, "No such file"),
        (["repair", "m.npz", "-o", "u.npy"], 1, "BK103"),
        (["repair", "none.npy", "-o", "u.npy"], 2, "No such file"),
    ],
)
def test_one_line_says_what_to_do(arguments: list[str], code: int, message: str) -> None:
    np.savez("m.npz", weight=W, bias=B)
    np.savez("bad.npz", weight=np.array([np.nan]))
    result = run(*arguments)
    assert (result.exit_code, message in result.output) == (code, True), result.output
    assert "Traceback" not in result.output
    assert sorted(os.listdir()) == ["bad.npz", "m.npz"]


def test_repair() -> None:
    path = FIXTURES / "invalid" / "BK309-n-npint64-numpy-2.4.6-python-3.11.npy"
    result = run("repair", path, "-o", "u.npy")
    assert result.exit_code == 0
    assert result.output == (
        "u.npy: valid (update, num_samples 1,329, 2 arrays)\n"
        "  the form of numpy 2 rewritten in canonical form\n"
        "  num_samples: a numpy integer made a plain int (BK309)\n"
    )
    assert check_file("u.npy").valid
    result = run("repair", "u.npy", "-o", "v.npy")
    assert "nothing: it was canonical already" in result.output


def test_convert() -> None:
    Path("u.npy").write_bytes(build_update(1329, [W, B]))
    result = run("convert", "u.npy", "u.safetensors")
    assert result.exit_code == 0
    assert result.output.startswith("u.safetensors: update, num_samples 1,329, 2 arrays, ")
    assert run("convert", "u.safetensors", "v.npy").exit_code == 0
    assert Path("v.npy").read_bytes() == Path("u.npy").read_bytes()


@pytest.mark.parametrize("command", ["build", "repair", "convert"])
def test_help_fits_the_terminal(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80


def _slow_build(folder: Path) -> subprocess.Popen[Any]:
    """A child that writes an update for a long time, because its source is a large archive."""
    if not Path("big.npz").exists():
        np.savez("big.npz", layer=np.zeros(50_000_000, "float32"))
    return subprocess.Popen(
        [sys.executable, "-m", "bkformat", "build", "--num-samples", "7", "big.npz", "-o", "u.npy"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_no_litter(folder: Path, number: signal.Signals) -> None:
    Path("u.npy").write_bytes(b"old")
    child = _slow_build(folder)
    while child.poll() is None and not list(folder.glob(".bkformat-*")):
        time.sleep(0.001)
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert b"Traceback" not in error
    assert sorted(os.listdir()) == ["big.npz", "u.npy"]
    assert Path("u.npy").read_bytes() == b"old"
