"""Run by other numpys: writes updates into a folder, and says on standard output what they hold."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]


def ramp(dtype: str, *shape: int) -> Any:
    return (np.arange(int(np.prod(shape))) % 100).astype(dtype).reshape(shape)


def cases() -> Iterator[tuple[str, int, list[Any]]]:
    """Name, number of samples, arrays."""
    for dtype in DTYPES:
        yield f"dtype-{dtype}", 7, [ramp(dtype, 3, 4), ramp(dtype), ramp(dtype, 1)]
    weights = ramp("f4", 6, 8)
    yield (
        "fortran",
        7,
        [np.asfortranarray(weights), weights.T, np.asfortranarray(ramp("f8", 2, 3, 4))],
    )
    yield "strided", 7, [weights[::2], weights[:, ::3], weights[::-1], weights[1:, 1:]]
    yield "no-dimensions", 7, [np.array(1.5), np.array(2, "f4")]
    yield "empty", 7, [np.zeros((0,), "f4"), np.zeros((3, 0, 2), "f8"), weights]
    yield (
        "past-64-KiB",
        7,
        [ramp("f4", 200, 100), ramp("f8", 3), ramp("f8", 300, 300), ramp("f4", 2)],
    )
    yield "300-arrays", 7, [ramp("f4", at % 5 + 1, 2) for at in range(300)]
    yield "1100-arrays", 7, [ramp("f4", 2) for _ in range(1100)]
    yield "shared-byte", 7, [np.array([98], "u1"), np.array([[98]], "u1")]
    yield "32-dimensions", 7, [np.zeros((1,) * 32, "f4")]
    for count in (1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**53):
        yield f"count-{count}", count, [weights]


def main(folder: Path) -> None:
    told = {"version": np.__version__, "files": {}}
    for name, count, arrays in cases():
        outer = np.empty(2, dtype=object)
        outer[0], outer[1] = count, arrays
        np.save(folder / f"{name}.npy", outer, allow_pickle=True)
        told["files"][name] = [count, [describe(array) for array in arrays]]
    print(json.dumps(told))  # noqa: T201


def describe(array: Any) -> list[Any]:
    return [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
