"""The published client's helpers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import InvalidUpdateError, check_bytes
from bktransport.compat import convert_pytorch_numpy, validate_weight_shape

from .files import FIXTURES
from .transport import UPDATE


def test_a_valid_file_is_true_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    path.write_bytes(UPDATE)
    assert validate_weight_shape(path) is True
    assert validate_weight_shape(str(path)) is True
    assert validate_weight_shape(UPDATE) is True
    with path.open("rb") as file:
        assert validate_weight_shape(file) is True
        assert file.tell() == 0  # the published client's callers send it next
    assert validate_weight_shape(io.BytesIO(UPDATE)) is True


@pytest.mark.parametrize("path", sorted((FIXTURES / "invalid").glob("BK2*.npy"))[:5])
def test_an_invalid_file_raises(path: Path) -> None:
    with pytest.raises(InvalidUpdateError) as caught:
        validate_weight_shape(path)
    assert not caught.value.report.valid
    with path.open("rb") as file, pytest.raises(InvalidUpdateError):
        validate_weight_shape(file)


def test_anything_else(tmp_path: Path) -> None:
    other: Any
    for other in (None, 7, [UPDATE]):
        with pytest.raises(TypeError, match="a path, bytes or an open file"):
            validate_weight_shape(other)
    with pytest.raises(FileNotFoundError):
        validate_weight_shape(tmp_path / "none")


class _Tensor:
    """As much of a torch tensor as is used."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def detach(self) -> _Tensor:
        return self

    def cpu(self) -> _Tensor:
        return self

    def numpy(self) -> Any:
        return self._array


def test_parameters_become_an_update() -> None:
    arrays = [np.arange(6, dtype="f4").reshape(2, 3), np.ones(2, "f4")]
    model = [("a", _Tensor(arrays[0])), ("b", arrays[1])]
    update = convert_pytorch_numpy(iter(model), 9)
    assert (update.shape, update[0]) == ((2,), 9)
    assert all(np.array_equal(*pair) for pair in zip(update[1], arrays, strict=True))
    file = io.BytesIO()
    np.save(file, update)
    report = check_bytes(file.getvalue())
    assert report.valid
    assert convert_pytorch_numpy(model)[0] == 1
