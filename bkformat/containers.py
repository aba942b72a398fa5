"""What callers hold their parameters in -> named arrays, without importing any framework.

    list, tuple, iterator       of arrays, or of pairs (name, array)
    mapping                     name to array: a state_dict, an open .npz
    array                       numpy; anything with detach() and cpu() (PyTorch); anything with
                                __array__ (JAX, Keras, TensorFlow, CuPy's is refused by CuPy)

What an update can't hold is told by the rule that the written file would break.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bkformat import rules
from bkformat.arrays import MAX_DIMENSIONS
from bkformat.dtypes import ITEMSIZES, refusal
from bkformat.findings import Finding, finding, quoted
from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.members import NAMES, Member, array_member, plain_member, refuse_garbage

__all__ = ["checked_dtype", "dtype_finding", "named_arrays", "read_num_samples", "read_parameters"]

_Named = tuple["str | None", Any]
_ORDERED = "give a list of arrays, or a mapping of name to array"
_MODELS = ("state_dict", "get_weights")
"""How models of PyTorch and Keras give their arrays; some models can be iterated over too."""

_NESTED = "give a flat list: jax.tree.leaves(parameters)"


class RefusedError(Exception):
    """An argument that can't become part of an update."""

    def __init__(self, rule: rules.Rule, message: str, where: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.finding: Finding = finding(rule, message, where=where, hint=hint)


def checked_dtype(dtype: object) -> str | None:
    """The name of the dtype that was asked for.

    Raises:
        TypeError: it is no dtype.
        ValueError: no update holds such a dtype.
    """
    if dtype is None:
        return None
    name = np.dtype(dtype).name  # type: ignore[call-overload]
    if name not in ITEMSIZES or refusal(name) is not None:
        allowed = [known for known in ITEMSIZES if refusal(known) is None]
        raise ValueError(f"dtype is one of {', '.join(allowed)}, not {quoted(name)}")
    return str(name)


def read_num_samples(value: object) -> int:
    """A plain int of whatever is exactly an integer.

    Raises:
        RefusedError: BK306 to BK311.
    """
    where = "num_samples"
    if isinstance(value, (bool, np.bool_)) or _is_bool_array(value):
        raise RefusedError(rules.NUM_SAMPLES_BOOL, f"{_shown(value)} in place of an int", where)
    if len(getattr(value, "shape", ())):  # PyTorch takes a tensor of one element for a number
        raise _no_count(value, where)
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  (whatever a stranger's __index__ raises)
        raise _no_count(value, where) from None
    if not 1 <= count <= MAX_NUM_SAMPLES:
        message = f"{count:,} samples" if abs(count) < 1 << 80 else "far too many samples"
        raise RefusedError(rules.NUM_SAMPLES_RANGE, message, where)
    return count


def _is_bool_array(value: object) -> bool:
    return str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def _shown(value: object) -> str:
    """A plain value as it is, anything else by its type: what its repr holds is anyone's guess."""
    plain = value is None or isinstance(value, (str, bytes, int, float, np.generic))
    return quoted(value) if plain else f"a {quoted(type(value).__name__)[1:-1]}"


def _no_count(value: object, where: str) -> RefusedError:
    message = f"{_shown(value)} in place of an int"
    if isinstance(value, (float, np.floating)):
        hint = f"give it as a plain int: {int(value)}" if float(value).is_integer() else None
        return RefusedError(rules.NUM_SAMPLES_FLOAT, message, where, hint)
    if hasattr(value, "__array__"):
        return RefusedError(rules.NUM_SAMPLES_ARRAY, "an array in place of an int", where)
    return RefusedError(rules.NUM_SAMPLES_TYPE, message, where)


def named_arrays(parameters: object) -> list[_Named]:
    """The items of a container and their names, None where it has none.

    Raises:
        RefusedError: BK313 to BK315.
    """
    where = "parameters"
    for method in _MODELS:
        if hasattr(parameters, method):
            message, hint = "a model in place of its arrays", f"give model.{method}()"
            raise RefusedError(rules.PARAMETERS_TYPE, message, where, hint)
    if isinstance(parameters, Mapping) or _is_mapping(parameters):
        mapping: Any = parameters
        items: list[_Named] = [(str(name), mapping[name]) for name in mapping.keys()]  # noqa: SIM118
    elif not isinstance(parameters, Iterable) or _is_no_list(parameters):
        message = f"{quoted(type(parameters).__name__)[1:-1]} in place of a list of arrays"
        raise RefusedError(rules.PARAMETERS_TYPE, message, where, _ORDERED)
    else:
        listed = list(parameters)
        pairs = bool(listed) and all(map(_is_pair, listed))
        items = [(str(name), array) for name, array in listed] if pairs else _unnamed(listed)
    if not items:
        raise RefusedError(rules.NO_PARAMETERS, "nothing in it", where)
    return items


def _unnamed(items: list[Any]) -> list[_Named]:
    return [(None, item) for item in items]


def _is_mapping(value: object) -> bool:
    """An open .npz is no Mapping for every numpy; it behaves as one."""
    return hasattr(value, "keys") and hasattr(value, "__getitem__")


def _is_no_list(value: object) -> bool:
    """Iterable, but with rows, letters or no order instead of arrays."""
    unordered = isinstance(value, (str, bytes, bytearray, memoryview, set, frozenset))
    return unordered or hasattr(value, "__array__")


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def read_parameters(
    parameters: object, dtype: str | None = None
) -> tuple[list[Member], list[Finding]]:
    """The arrays of a container as members, and what is wrong with the others.

    Args:
        parameters: see the head of this module.
        dtype: what every array is converted to, if that is given.
    """
    try:
        items = named_arrays(parameters)
    except RefusedError as exc:
        return [], [exc.finding]
    members: list[Member] = []
    findings: list[Finding] = []
    for index, (name, item) in enumerate(items):
        usual = _USUAL.get(item.dtype) if type(item) is np.ndarray and dtype is None else None
        if usual is not None and item.ndim <= MAX_DIMENSIONS:
            members.append(plain_member(name, item, usual))
            continue
        try:
            members.append(_member(name, item, dtype, f"parameters[{index}]"))
        except RefusedError as exc:
            findings.append(exc.finding)
    return members, findings


_USUAL = {dtype: name for dtype, name in NAMES.items() if refusal(name) is None}


def _member(name: str | None, item: object, dtype: str | None, where: str) -> Member:
    array = _as_array(item, dtype, where)
    if array.ndim > MAX_DIMENSIONS:
        raise RefusedError(rules.TOO_MANY_DIMENSIONS, f"{array.ndim} dimensions", f"{where}.shape")
    found = dtype_finding(array.dtype, array.shape, dtype, where)
    if found is not None:
        raise RefusedError(*found)
    if dtype is not None and array.dtype.name != dtype:
        refuse_garbage(array, dtype, where)
    return array_member(name, array, dtype)


def dtype_finding(
    stored: np.dtype[Any], shape: tuple[int, ...], dtype: str | None, where: str
) -> tuple[rules.Rule, str, str] | None:
    """Why an array of this dtype can't go into an update, as a rule, a message and a place."""
    name = stored.name
    where, message = f"{where}.dtype", f"{quoted(name)[1:-1]} of shape {quoted(shape)}"
    if stored.names is not None:
        return rules.STRUCTURED_DTYPE, message, where
    if stored.kind in "SUTVO":
        known = {"V": rules.VOID, "O": rules.OBJECT_DTYPE}.get(stored.kind, rules.TEXT_DTYPE)
        extension = stored.kind == "V" and not name.startswith("void")
        if extension and dtype is not None:
            return None
        return (rules.EXTENSION_DTYPE if extension else known), message, where
    if stored.kind in "mM":
        return rules.DATETIME, message, where
    rule = refusal(name) if stored.kind in "biufc" else rules.EXTENSION_DTYPE
    if rule is None and name in ITEMSIZES:
        return None
    convertible = stored.kind in "biuf" or rule is rules.EXTENSION_DTYPE
    if dtype is not None and convertible:
        return None
    return rule or rules.EXTENSION_DTYPE, message, where


def _as_array(item: object, dtype: str | None, where: str) -> np.ndarray[Any, Any]:
    if type(item) is np.ndarray or isinstance(item, np.memmap):
        return np.asarray(item)
    if isinstance(item, np.ndarray):
        message = f"a {quoted(type(item).__name__)[1:-1]} in place of an array"
        raise RefusedError(rules.ARRAY_SUBCLASS, message, where)
    if isinstance(item, np.generic):
        message = f"a numpy {item.dtype.name} scalar in place of an array"
        raise RefusedError(rules.NUMPY_SCALAR, message, where)
    if isinstance(item, (bool, int, float, complex)):
        message = f"the {type(item).__name__} {quoted(item)} in place of an array"
        raise RefusedError(rules.PYTHON_NUMBER, message, where)
    if isinstance(item, Mapping):
        message = "a dict in place of an array"
        raise RefusedError(rules.PARAMETERS_DICT, message, where, _NESTED)
    return _converted(item, dtype, where)


def _converted(item: Any, dtype: str | None, where: str) -> np.ndarray[Any, Any]:
    """A foreign array as numpy's, by its own protocol."""
    kind = quoted(type(item).__name__)[1:-1]
    torch_like = hasattr(item, "detach") and hasattr(item, "cpu")
    if not torch_like and not hasattr(item, "__array__"):
        raise RefusedError(rules.NOT_AN_ARRAY, f"{kind} in place of an array", where)
    try:
        if torch_like:
            item = item.detach().cpu()
            if str(item.dtype).startswith(_TORCH_EXTENSIONS):
                if dtype is None:
                    kind = quoted(str(item.dtype))[1:-1].removeprefix("torch.")
                    message = f"{kind} of shape {quoted(tuple(item.shape))}"
                    raise RefusedError(rules.EXTENSION_DTYPE, message, f"{where}.dtype", _CONVERT)
                item = item.float()  # float32 holds every one of their values
            found = item.numpy()
        else:
            found = np.asarray(item)
    except RefusedError:
        raise
    except Exception as exc:
        message = f"{kind} gives no array: {quoted(str(exc) or type(exc).__name__)[1:-1]}"
        raise RefusedError(rules.NOT_AN_ARRAY, message, where, _DENSE) from exc
    if type(found) is not np.ndarray:
        raise RefusedError(rules.NOT_AN_ARRAY, f"{kind} gives no array", where)
    return found


_CONVERT = "ask for a conversion: dtype='float32'"
_TORCH_EXTENSIONS = ("torch.bfloat16", "torch.float8")
_DENSE = "make it a dense array of numbers on the CPU: np.asarray(x), or t.to_dense() of a tensor"
