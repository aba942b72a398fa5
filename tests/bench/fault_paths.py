"""Puts the tests' folder on the path, for `proxy`, `hostile_http` and `interop`."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["TESTS"]

TESTS = Path(__file__).resolve().parents[1]
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))
