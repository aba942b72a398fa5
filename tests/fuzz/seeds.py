"""Seeds: small fixtures of every verdict. `python tests/fuzz/seeds.py FOLDER` copies them there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

_FIXTURES = Path(__file__).parents[2] / "fixtures"
_LARGEST = 4096
"""Bytes: the fuzzer spends its time on edits, and small files leave it more of them."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for path in sorted(_FIXTURES.glob("*/*.npy")):
        if path.stat().st_size <= _LARGEST:
            shutil.copyfile(path, folder / f"{path.parent.name}-{path.name}")
            count += 1
    print(f"{count} seeds in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
