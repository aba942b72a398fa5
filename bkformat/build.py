"""From arrays to a canonical update: as bytes, or as a file that is judged before it has a name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bkformat.containers import RefusedError, checked_dtype, read_num_samples, read_parameters
from bkformat.errors import InvalidUpdateError
from bkformat.findings import Finding, Report, bounded
from bkformat.member_values import judge_members
from bkformat.members import Member
from bkformat.proof import ValidatedUpdate
from bkformat.writing import canonical_pieces, form_of, write_canonical

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["build_update", "prepare", "write_update"]


def build_update(
    num_samples: Any,
    parameters: Any,
    *,
    dtype: npt.DTypeLike | None = None,
) -> bytes:
    """The bytes of an update in canonical form: equal updates give equal bytes.

    Args:
        num_samples: samples behind the update, 1 to 2**53: whatever is exactly an integer.
        parameters: the arrays in the order of the model: a list, a mapping of name to array, or
            pairs of both, such as `model.named_parameters()`, `model.state_dict()`,
            `model.get_weights()` or `jax.tree.leaves(parameters)`. Byte order and memory layout
            do not matter; names are not stored.
        dtype: convert every array to this dtype, even if that loses something.

    Raises:
        InvalidUpdateError: an update can't hold this; `.report` names the argument and the rule.
        TypeError: `dtype` is no dtype.
        ValueError: no update holds arrays of `dtype`, or `dtype` can't hold the values.

    >>> import numpy as np
    >>> data = build_update(1329, [np.zeros((3, 4), "float32"), np.zeros(4, "float32")])
    >>> len(data)
    535
    >>> build_update(0, [])
    Traceback (most recent call last):
    bkformat.errors.InvalidUpdateError: BK311 num-samples-range: num_samples: 0 samples ...
    """
    count, members = prepare(num_samples, parameters, dtype)
    return b"".join(canonical_pieces(form_of(count, members), members))


def write_update(
    path: str | os.PathLike[str],
    num_samples: Any,
    parameters: Any,
    *,
    dtype: npt.DTypeLike | None = None,
    fsync: bool = True,
) -> ValidatedUpdate:
    """Write an update in canonical form, judge it, and give it its name.

    The file is written beside `path` and takes its place in one step, so an interrupted or failed
    write leaves the old file as it was. Arrays are not copied as a whole.

    Args:
        path: the file; a link is followed, so that what it names is replaced.
        num_samples: as for `build_update`.
        parameters: as for `build_update`.
        dtype: as for `build_update`.
        fsync: wait until the file and its name are on the disk.

    Returns:
        The proof, as `validate_file` gives it; close it, or use it in a `with` statement.

    Raises:
        InvalidUpdateError: an update can't hold this; nothing was written.
        OSError: the file can't be written; the old one is as it was.
        TypeError: `dtype` is no dtype.
        ValueError: no update holds arrays of `dtype`, or `dtype` can't hold the values.
    """
    count, members = prepare(num_samples, parameters, dtype)
    return write_canonical(path, count, members, fsync=fsync)


def prepare(
    num_samples: Any, parameters: Any, dtype: npt.DTypeLike | None = None
) -> tuple[int, list[Member]]:
    """The arguments as a count and members, all of them judged; every value is looked at.

    Raises:
        InvalidUpdateError: as for `build_update`.
        TypeError: as for `build_update`.
        ValueError: as for `build_update`.
    """
    name = checked_dtype(dtype)
    findings: list[Finding] = []
    count = 0
    try:
        count = read_num_samples(num_samples)
    except RefusedError as exc:
        findings.append(exc.finding)
    members, found = read_parameters(parameters, name)
    findings += found or _value_findings(members, converted=name)
    if findings:
        refuse(findings)
    return count, members


def refuse(findings: Sequence[Finding]) -> None:
    """Raise the error that a file with these findings would."""
    raise InvalidUpdateError(Report("update", 0, bounded(findings), values_checked=True))


def _value_findings(members: Sequence[Member], *, converted: str | None) -> list[Finding]:
    found = judge_members(members)
    if converted is None:
        return found
    hint = f"check for values past the range of {converted}, and for NaN"
    return [replace(one, hint=hint) for one in found]
