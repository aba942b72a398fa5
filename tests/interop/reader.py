"""Run by numpys back to 1.16, so in Python 3.7: loads updates, and says what it got.

Each line of standard input is a path; each line of standard output is the answer, in JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np


def described(path: str) -> dict[str, Any]:
    outer = np.load(path, allow_pickle=True)
    count, arrays = outer
    return {
        "numpy": np.__version__,
        "outer": [type(outer).__name__, str(outer.dtype), list(outer.shape)],
        "count": [type(count).__name__, repr(count)],
        "list": type(arrays).__name__,
        "arrays": [
            [
                type(array).__name__,
                array.dtype.str,
                array.dtype.isnative,
                list(array.shape),
                array.flags.c_contiguous and array.flags.writeable,
                hashlib.sha256(array.tobytes()).hexdigest(),
            ]
            for array in arrays
        ],
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(described(line.rstrip("\n"))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
