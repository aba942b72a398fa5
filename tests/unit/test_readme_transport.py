"""What the README says of the loop with the service works as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from bkformat import load_file, write_update
from bktransport.config import Credentials, as_credentials
from bktransport.sandbox import Sandbox

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## The loop with BranchKey\n")[1].split("\n## ")[0]
LOOP, TEST_FILE = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    monkeypatch.setenv("HOME", str(tmp_path))
    write_update("update.npy", 1329, [np.ones((3, 4), "float32")]).close()
    return tmp_path


def _run(text: str, **names: Any) -> dict[str, Any]:
    exec(compile(text, "README.md", "exec"), names)  # noqa: S102  our own README
    return names


def test_the_script_of_the_published_client(folder: Path) -> None:
    with Sandbox(leaves=1) as sandbox:
        names = _run(LOOP, credentials=sandbox.credentials[0], host=sandbox.url)
        state = sandbox.state()
    assert [upload["file_id"] for upload in state["uploads"]] == [names["file_id"]]
    assert names["path"] == Path("aggregated_output", f"{names['aggregation_id']}.npy")
    assert load_file(folder / names["path"], kind="aggregate").num_samples == 1329
    assert [found["data"] for found in state["metrics"]] == ['{"accuracy": 0.93}']


def test_the_test_file(folder: Path) -> None:
    _run(TEST_FILE)["test_my_site"](folder)


def test_every_command_is_in_the_table() -> None:
    from bktransport.cli import cli

    table = SECTION.split("| command | does |")[1].split("\n\n")[0]
    named = re.findall(r"^\| `bktransport (\w+)", table, re.MULTILINE)
    assert named == cli.list_commands(None)  # type: ignore[arg-type]


def test_every_fault_of_the_sandbox_named_here_exists() -> None:
    from bktransport.sandbox.faults import Faults

    named = re.findall(r"--fail (\S+)", SECTION)
    assert named == ["lost-reply", "busy:3"]
    assert Faults(named)


def test_the_credentials_are_some() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", SECTION, re.DOTALL)
    credentials = as_credentials(json.loads(text))
    assert set(Credentials.model_fields) == set(json.loads(text))
    assert credentials.port == 5672


def test_the_run_is_started_as_it_says() -> None:
    (command,) = re.findall(r"^curl (--data .*)", SECTION, re.MULTILINE)
    assert command.split()[:3] == ["--data", "start", '"$URL/sandbox/run"']
    with Sandbox(leaves=1) as sandbox:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl sends it
        url = sandbox.url + "/sandbox/run"
        assert requests.post(url, data="start", headers=headers, timeout=60).status_code == 200
        assert sandbox.state()["run"] == "start"
