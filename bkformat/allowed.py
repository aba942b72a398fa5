"""The names a pickle may import, and what the refused ones most often mean.

Only exact (module, name) pairs are allowed: a prefix such as "numpy" lets numpy.load and worse
through. A refused name stays refused whatever it is; the table below only says how to mend the
common, honest ones.
"""

from __future__ import annotations

from bkformat import rules
from bkformat.findings import Rejected, quoted
from bkformat.rules import Rule
from bkformat.symbols import Global

__all__ = ["ALLOWED_GLOBALS", "refuse_global"]

_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")

ALLOWED_GLOBALS: dict[tuple[str, str], Global] = {
    (found.module, found.name): found
    for found in (
        *(Global(module, "_reconstruct", "reconstruct") for module in _MULTIARRAYS),
        *(Global(module, "scalar", "scalar") for module in _MULTIARRAYS),
        Global("numpy", "ndarray", "ndarray"),
        Global("numpy", "dtype", "dtype"),
    )
}

_HONEST_MISTAKES: dict[tuple[str, str], Rule] = {
    ("collections", "OrderedDict"): rules.ORDERED_DICT,
    ("numpy", "matrix"): rules.ARRAY_SUBCLASS,
    ("numpy", "memmap"): rules.ARRAY_SUBCLASS,
    ("numpy", "recarray"): rules.ARRAY_SUBCLASS,
    ("numpy", "record"): rules.ARRAY_SUBCLASS,
    ("numpy", "chararray"): rules.ARRAY_SUBCLASS,
    ("numpy.rec", "recarray"): rules.ARRAY_SUBCLASS,
    ("numpy.core.records", "recarray"): rules.ARRAY_SUBCLASS,
    ("numpy.char", "chararray"): rules.ARRAY_SUBCLASS,
    ("numpy.matrixlib.defmatrix", "matrix"): rules.ARRAY_SUBCLASS,
    ("numpy.ma.core", "_mareconstruct"): rules.ARRAY_SUBCLASS,
    ("numpy.core._internal", "_convert_to_stringdtype_kwargs"): rules.TEXT_DTYPE,
    ("numpy._core._internal", "_convert_to_stringdtype_kwargs"): rules.TEXT_DTYPE,
    ("torch._utils", "_rebuild_tensor_v2"): rules.TORCH_OBJECT,
    ("torch._utils", "_rebuild_tensor_v3"): rules.TORCH_OBJECT,
    ("torch._utils", "_rebuild_parameter"): rules.TORCH_OBJECT,
    ("torch._utils", "_rebuild_parameter_with_state"): rules.TORCH_OBJECT,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): rules.TORCH_OBJECT,
    ("torch._tensor", "_rebuild_from_type_v2"): rules.TORCH_OBJECT,
    ("torch.storage", "_load_from_bytes"): rules.TORCH_OBJECT,
    ("ml_dtypes", "bfloat16"): rules.EXTENSION_DTYPE,
    ("ml_dtypes", "int4"): rules.EXTENSION_DTYPE,
    ("ml_dtypes", "uint4"): rules.EXTENSION_DTYPE,
    ("ml_dtypes", "float8_e4m3fn"): rules.EXTENSION_DTYPE,
    ("ml_dtypes", "float8_e5m2"): rules.EXTENSION_DTYPE,
}

_HINTS: dict[tuple[str, str], str] = {
    ("jax._src.array", "_reconstruct_array"): "make it a numpy array: np.asarray(x)",
    ("jaxlib.xla_extension", "ArrayImpl"): "make it a numpy array: np.asarray(x)",
    ("pandas._libs.internals", "_unpickle_block"): "make it a numpy array: x.to_numpy()",
    ("pandas.core.series", "Series"): "make it a numpy array: x.to_numpy()",
    ("cupy._core.core", "array"): "make it a numpy array: cupy.asnumpy(x)",
}


def refuse_global(module: str, name: str, offset: int) -> Rejected:
    """The refusal of a name that is not allowed, with a remedy where the mistake is a known one."""
    rule = _HONEST_MISTAKES.get((module, name), rules.FOREIGN_GLOBAL)
    message = f"the pickle imports {quoted(f'{module}.{name}')}"
    return Rejected(rule, offset, message, hint=_HINTS.get((module, name)))
