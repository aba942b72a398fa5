"""What every loader must say of a file, told from the layout that we report and the bytes alone."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from bkformat import UpdateLayout

LOADERS = ["np.load", "pickle.loads", "C unpickler", "Python unpickler"]


def expected(data: bytes, layout: UpdateLayout) -> dict[str, Any]:
    """The answer of each loader in `loader.py`."""
    count = layout.num_samples
    bare = count is None
    length = len(layout.parameters) if bare else 2
    told: dict[str, Any] = {
        "outer": ["ndarray", "object", [length]],
        "count": None if bare else ["int", repr(count)],
        "shared": False,
    }
    if not bare:
        told["list"] = "list"
    arrays = []
    for array in layout.parameters:
        payload = data[array.offset : array.offset + array.nbytes]
        dtype = np.dtype(array.dtype).newbyteorder("<")
        values = np.frombuffer(payload, dtype).reshape(array.shape, order=array.order)
        flags = [values.flags.c_contiguous, values.flags.f_contiguous]
        digests = [hashlib.sha256(values.tobytes(order)).hexdigest() for order in ("C", "F")]
        assert hashlib.sha256(payload).hexdigest() in digests
        arrays.append(["ndarray", dtype.str, list(array.shape), flags, digests])
    told["arrays"] = arrays
    return told
