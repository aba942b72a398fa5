"""The README's test file, of somebody who uses the strategies, passes where it is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def _test_file() -> str:
    section = README.split("\n## In your own tests\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


def _run(folder: Path, text: str) -> str:
    """What pytest says of a file with this text, in a folder without settings of ours."""
    (folder / "test_aggregator.py").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    return done.stdout


def test_the_example_passes(tmp_path: Path) -> None:
    assert "3 passed" in _run(tmp_path, _test_file())


def test_it_finds_what_is_wrong_with_the_code_under_test(tmp_path: Path) -> None:
    text = _test_file()
    broken = text.replace(
        'np.average(np.array(layer, "float64"), axis=0, weights=weights)', "sum(layer)"
    )
    assert broken != text
    said = _run(tmp_path, broken)
    assert "1 failed, 2 passed" in said
    assert "test_mean_lies_between_the_least_and_the_greatest_value" in said
