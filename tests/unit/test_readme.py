"""The README's examples give what they show, and the commands it names exist."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"```console\n\$ (.*?)\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("command", "expected"), SESSIONS)
def test_console_session_prints_what_it_shows(command: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")  # what is written goes elsewhere
    words = shlex.split(command)
    assert words[0] == "bkformat"
    run = subprocess.run(
        [sys.executable, "-m", "bkformat", *words[1:]],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout == expected
    assert run.stderr == ""


def test_there_are_sessions() -> None:
    assert len(SESSIONS) >= 3


def test_python_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(README, {}, "README.md", "README.md", 0)
    runner = doctest.DocTestRunner()
    runner.run(example)
    results = runner.summarize(verbose=False)
    assert results.attempted >= 8
    assert results.failed == 0


def test_json_example_is_a_schema() -> None:
    from bkformat import UpdateSchema

    section = README.split("\n## Schemas\n")[1].split("\n## ")[0]
    (text,) = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    schema = UpdateSchema.model_validate_json(text)
    assert schema.parameters is not None
    assert schema.parameters[1].shape == (None,)


def test_first_command_names_files_that_exist() -> None:
    block = README.split("```sh\n")[1].split("```")[0]
    paths = [word for word in block.split() if word.startswith("fixtures/")]
    assert len(paths) == 3
    assert all(os.path.exists(ROOT / path) for path in paths)


def test_every_command_is_in_the_table() -> None:
    from bkformat.cli import cli

    table = README.split("| command | does |")[1].split("\n\n")[0]
    assert all(f"bkformat {name}" in table for name in cli.commands)
