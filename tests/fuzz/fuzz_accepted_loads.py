"""What is accepted loads, by the C and the Python unpickler, to exactly the layout we report."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import atheris
import numpy as np

with atheris.instrument_imports(include=["bkformat"]):
    from bkformat import UpdateLayout, check_bytes
    from bkformat import values as _values  # noqa: F401  (what is imported late is instrumented too)

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.array(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.array(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Restricted:
    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED[module, name]  # any other name is a KeyError, and so a finding


class _InC(_Restricted, pickle.Unpickler):
    pass


class _InPython(_Restricted, pickle._Unpickler):  # type: ignore[name-defined,misc]
    pass


def one_input(data: bytes) -> None:
    report = check_bytes(data, kind="aggregate")
    if not report.valid:
        return
    layout = report.layout
    assert layout is not None
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    for unpickler in (_InC, _InPython):
        file = io.BytesIO(data)
        file.seek(start)
        root = unpickler(file).load()
        assert file.tell() == len(data)
        assert_is(root, data, layout)


def assert_is(root: Any, data: bytes, layout: UpdateLayout) -> None:
    assert type(root) is np.ndarray
    assert root.dtype == object
    arrays = list(root)
    if layout.num_samples is not None:
        count, arrays = arrays
        assert type(count) is int
        assert type(arrays) is list
        assert count == layout.num_samples
    assert len(arrays) == len(layout.parameters)
    assert len({id(array) for array in arrays}) == len(arrays)
    for array, said in zip(arrays, layout.parameters, strict=True):
        assert type(array) is np.ndarray
        assert (array.dtype.name, array.shape) == (said.dtype, said.shape)
        assert array.dtype.byteorder in "=|"
        assert array.flags.c_contiguous if said.order == "C" else array.flags.f_contiguous
        assert array.tobytes(said.order) == data[said.offset : said.offset + said.nbytes]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
