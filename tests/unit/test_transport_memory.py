"""A transfer takes no more memory for a large file than for a small one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = Path(__file__).parents[1] / "bench" / "transport.py"


def test_a_transfer_holds_no_file_in_memory() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, str(_SCRIPT), "--memory", "--mib", "64"],
        capture_output=True, text=True, check=True, timeout=240, env=environment,
    )  # fmt: skip
    mib = json.loads(run.stdout)
    assert set(mib) == {"upload", "download"}
    assert max(mib.values()) < 32, mib
