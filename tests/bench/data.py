"""The files that are read: made with np.save in one folder, and kept there for the next run.

Those of the canonical form, which np.save does not write, are made by bkformat.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np

from bkformat import write_update

__all__ = ["NUM_ARRAYS", "Data", "Model", "large_model", "outer"]

Array = np.ndarray[Any, Any]
Model = list[Array]

NUM_ARRAYS = 64
"""Arrays in a large file."""

_MIB = 1 << 20
_SEED = 20240229


@dataclass(frozen=True)
class Data:
    """Files by what is in them, made when they are first asked for.

    Attributes:
        folder: where they lie.
        quick: smaller and fewer.
    """

    folder: Path
    quick: bool

    @property
    def large(self) -> int:
        """Bytes of the payloads of a large file."""
        return (64 if self.quick else 1024) * _MIB

    @property
    def medium(self) -> int:
        """The same, a sixteenth of it."""
        return self.large // 16

    @property
    def num_files(self) -> int:
        """Small files in a folder."""
        return 1_000 if self.quick else 10_000

    @property
    def num_small_arrays(self) -> int:
        """Arrays in a file of many small ones."""
        return 5_000

    def tiny(self) -> Path:
        """Two small arrays: for warming up, and where starting is all there is to do."""
        return self._made("tiny.npy", lambda path: _save(path, 7, _two(16, 8)))

    def of_size(self, nbytes: int, dtype: str = "float32") -> Path:
        """`nbytes` in 64 arrays, as np.save writes them: no payload is aligned."""
        name = f"{dtype}-{nbytes // _MIB}-mib.npy"
        return self._made(name, lambda path: _save(path, 1329, large_model(nbytes, dtype)))

    def aligned(self, nbytes: int, dtype: str = "float32") -> Path:
        """The same in canonical form: every payload begins at a multiple of 64."""
        name = f"{dtype}-{nbytes // _MIB}-mib-aligned.npy"
        return self._made(
            name, lambda path: _save_canonical(path, 1329, large_model(nbytes, dtype))
        )

    def same_arrays(self, form: str) -> Path:
        """Many float32 arrays of shape (8, 4)."""
        count = self.num_small_arrays
        return self._many_arrays(f"same-{count}", [(8, 4)] * count, form)

    def random_arrays(self, form: str) -> Path:
        """Many float32 arrays of 1 to 4 dimensions, each of 1 to 8 elements."""
        rng = np.random.default_rng(_SEED)
        ranks = rng.integers(1, 5, self.num_small_arrays)
        shapes = [tuple(map(int, rng.integers(1, 9, rank))) for rank in ranks]
        return self._many_arrays(f"random-{len(shapes)}", shapes, form)

    def one_model(self) -> Path:
        """A folder of files of one model; values and num_samples differ."""
        return self._made(f"one-model-{self.num_files}", self._save_one_model)

    def many_shapes(self) -> Path:
        """A folder of files, each of other shapes but of as many dimensions."""
        return self._made(f"many-shapes-{self.num_files}", self._save_many_shapes)

    def many_models(self) -> Path:
        """A folder of files of 144 models in turn, which differ in dimensions and dtypes."""
        return self._made(f"many-models-{self.num_files}", self._save_many_models)

    def _many_arrays(self, name: str, shapes: Sequence[tuple[int, ...]], form: str) -> Path:
        save = _FORMS[form]
        return self._made(f"{name}-{form}.npy", lambda path: save(path, 1329, _of_shapes(shapes)))

    def _save_one_model(self, folder: Path) -> None:
        rng = np.random.default_rng(_SEED)
        counts = rng.integers(1, 1_000_000, self.num_files)
        for path, count in zip(_paths(folder), counts, strict=False):
            values = rng.standard_normal((17, 8)).astype(np.float32)
            _save(path, int(count), [values[:16].copy(), values[16].copy()])

    def _save_many_shapes(self, folder: Path) -> None:
        shapes = np.ndindex(10, 10, 10, 10)
        for path, shape, _ in zip(_paths(folder), shapes, range(self.num_files), strict=False):
            dims = tuple(dim + 1 for dim in shape)
            _save(path, 1329, _of_shapes([dims, dims[:1]]))

    def _save_many_models(self, folder: Path) -> None:
        kinds = list(product((1, 2, 3, 4), ("f2", "f4", "f8")))
        models = cycle(product(kinds, repeat=2))
        for path, model, _ in zip(_paths(folder), models, range(self.num_files), strict=False):
            shapes = [(4,) * rank for rank, _ in model]
            arrays = zip(_of_shapes(shapes), model, strict=True)
            _save(path, 1329, [array.astype(dtype) for array, (_, dtype) in arrays])

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        """The path of that name; it appears only when it is complete."""
        path = self.folder / name
        if not path.exists():
            unfinished = self.folder / f"unfinished-{name}"
            if unfinished.is_dir():
                shutil.rmtree(unfinished)
            if not unfinished.suffix:
                unfinished.mkdir()
            make(unfinished)
            os.sync()  # so that writing back does not fall into what is measured
            unfinished.rename(path)
        return path


def _paths(folder: Path) -> Iterator[Path]:
    index = 0
    while True:
        yield folder / f"{index:05}.npy"
        index += 1


def _two(rows: int, columns: int) -> Model:
    return [np.ones((rows, columns), np.float32), np.ones(columns, np.float32)]


def large_model(nbytes: int, dtype: str) -> Model:
    """Arrays of equal size; none is zero, so that no page of the file is a hole."""
    size = nbytes // NUM_ARRAYS // np.dtype(dtype).itemsize
    values = np.random.default_rng(_SEED).standard_normal(size, np.float32).astype(dtype)
    return [np.roll(values, index).reshape(256, -1) for index in range(NUM_ARRAYS)]


def _of_shapes(shapes: Sequence[tuple[int, ...]]) -> Model:
    rng = np.random.default_rng(_SEED)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


# --- writers ---------------------------------------------------------------------------------


def outer(num_samples: int, arrays: Model) -> Array:
    outer = np.empty(2, dtype=object)
    outer[0], outer[1] = num_samples, arrays
    return outer


def _save(path: Path, num_samples: int, arrays: Model) -> None:
    with path.open("wb") as file:  # np.save would add a suffix to a name
        np.save(file, outer(num_samples, arrays), allow_pickle=True)


def _header() -> bytes:
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _save_old(path: Path, num_samples: int, arrays: Model) -> None:
    """As numpy 1.19 to 1.26 writes: protocol 3, and the module by its old name."""
    text = pickle.dumps(outer(num_samples, arrays), protocol=3)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    path.write_bytes(_header() + text.replace(new, old, 1))


def _save_canonical(path: Path, num_samples: int, arrays: Model) -> None:
    write_update(path, num_samples, arrays, fsync=False).close()


_FORMS: dict[str, Callable[[Path, int, Model], None]] = {
    "numpy": _save,
    "old": _save_old,
    "canonical": _save_canonical,
}
