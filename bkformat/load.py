"""From a valid file to arrays: mapped without a copy, read-only, aligned where the file is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from bkformat.layout import Kind
    from bkformat.schema import UpdateSchema

__all__ = ["Update", "load_file"]


@dataclass(frozen=True, eq=False)
class Update:
    """What a valid file holds.

    Attributes:
        num_samples: samples behind the update; None for an aggregate without a count.
        parameters: the arrays in the order of the file, read-only.
    """

    num_samples: int | None
    parameters: list[np.ndarray[Any, Any]]

    def __repr__(self) -> str:
        return f"<Update of {len(self.parameters):,} arrays, num_samples {self.num_samples}>"


def load_file(
    path: str | os.PathLike[str],
    *,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    mmap: bool = True,
) -> Update:
    """Judge a file and give its arrays.

    Args:
        path: a regular file; links are followed.
        schema: what is expected of the file, beyond what every update must be.
        kind: "update" or "aggregate".
        values: look at every value first.
        mmap: map the file instead of copying it. Mapped arrays see later changes of the file, and
            if it is truncated, touching them kills the process. `mmap=False` copies by pread.

    Returns:
        The count and the arrays. The mapping lives as long as the last array over it.

    Raises:
        InvalidUpdateError: the file is not valid; `.report` says why.
        OSError: the file can't be opened or read, or is no regular file.

    >>> update = load_file("fixtures/valid/base-numpy-2.4.6-python-3.11.npy")
    >>> update.num_samples, update.parameters[0].shape, update.parameters[0].dtype.name
    (1329, (3, 4), 'float32')
    """
    # Not above: whoever imports Hypothesis imports this module, for the sake of `Update`.
    from bkformat.errors import InvalidUpdateError
    from bkformat.source import open_file
    from bkformat.validate import check_options, judge
    from bkformat.views import copy_arrays, map_arrays

    check_options(schema=schema, kind=kind)
    with open_file(path) as source:
        report = judge(source, schema, kind, values).report
        if not report.valid or report.layout is None:
            raise InvalidUpdateError(report)
        layouts = report.layout.parameters
        if mmap:
            arrays = map_arrays(source, layouts)
        else:
            arrays, _ = copy_arrays(source, layouts)
        source.check_unchanged()
    return Update(report.layout.num_samples, arrays)
