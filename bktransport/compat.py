"""What the published client offers besides the service: its helpers, made safe."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

from bkformat import InvalidUpdateError, check_bytes, check_file

if TYPE_CHECKING:
    import numpy as np

__all__ = ["convert_pytorch_numpy", "validate_weight_shape"]

_MAX_NBYTES = 1 << 32


def validate_weight_shape(file: bytes | str | os.PathLike[str] | IO[bytes]) -> bool:
    """Judge a file as an update, without executing it; values too.

    Args:
        file: a path, the bytes, or an open binary file, which is read from where it stands and set
            back to its start.

    Returns:
        True.

    Raises:
        InvalidUpdateError: it is no valid update; `.report` says why.
        OSError: the file can't be read.
        TypeError: none of these.
        ValueError: an open file holds more than 4 GiB; give its path.
    """
    if isinstance(file, str | os.PathLike):
        report = check_file(file)
    elif isinstance(file, bytes | bytearray | memoryview):
        report = check_bytes(file)
    elif not hasattr(file, "read"):
        raise TypeError(f"a path, bytes or an open file, not {type(file).__name__}")
    else:
        data = file.read(_MAX_NBYTES + 1)
        file.seek(0)
        if len(data) > _MAX_NBYTES:
            raise ValueError("more than 4 GiB in an open file: give its path instead")
        report = check_bytes(data)
    if not report.valid:
        raise InvalidUpdateError(report)
    return True


def convert_pytorch_numpy(model: Iterable[tuple[str, Any]], weighting: int = 1) -> Any:
    """An object array of shape (2,): the count and the list of arrays, for `np.save`.

    `bkformat.write_update(path, num_samples, model.named_parameters())` writes the file at once.

    Args:
        model: pairs of name and tensor, such as `model.named_parameters()`.
        weighting: samples behind the update.
    """
    import numpy as np

    update: np.ndarray[Any, Any] = np.empty(2, dtype=object)
    update[0] = weighting
    update[1] = [_as_array(parameter) for _, parameter in model]
    return update


def _as_array(parameter: Any) -> Any:
    """Tensors know how to leave the graph and the device; anything else is an array already."""
    import numpy as np

    if hasattr(parameter, "detach"):
        return parameter.detach().cpu().numpy()
    return np.asarray(parameter)
