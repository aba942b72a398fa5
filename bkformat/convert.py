"""Between .npy, .npz and .safetensors, told apart by the suffix; in blocks, never unpickled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bkformat.errors import InvalidSourceError, InvalidUpdateError
from bkformat.findings import Finding, Report, quoted
from bkformat.layout import MAX_NUM_SAMPLES, Kind
from bkformat.limits import limit_for, refuse_same_file, without_offsets
from bkformat.member_values import watched_blocks
from bkformat.members import Content, Member, source_member
from bkformat.npz import open_npz, write_npz
from bkformat.output import replacing, write_all
from bkformat.safetensors import open_safetensors, safetensors_pieces
from bkformat.source import open_file, too_large
from bkformat.validate import judge
from bkformat.writing import write_checked

if TYPE_CHECKING:
    from bkformat.schema import UpdateSchema

__all__ = ["SUFFIXES", "Conversion", "convert_file", "suffix_of"]

SUFFIXES = (".npy", ".npz", ".safetensors")


class Conversion(NamedTuple):
    """What was written.

    Attributes:
        kind: "update", or "aggregate" for arrays without a count.
        num_samples: samples behind it, or None.
        num_parameters: how many arrays.
        nbytes: bytes of the output.
    """

    kind: Kind
    num_samples: int | None
    num_parameters: int
    nbytes: int


def convert_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    num_samples: int | None = None,
    schema: UpdateSchema | None = None,
    max_size: int | None = None,
    fsync: bool = True,
) -> Conversion:
    """Convert between .npy, .npz (as BranchKey 2.9 and 3.x have it) and .safetensors.

    Values stay the same bit for bit, and the way back gives the same update; every value is looked
    at on the way.

    Args:
        path: the input; its suffix says what it is.
        out: the output; its suffix says what it becomes. It is replaced in one step.
        num_samples: for an input without a count, such as an aggregate in .npz; it must agree with
            one that is there.
        schema: names the arrays, for .safetensors; and what the arrays must be.
        max_size: bytes of the output (for .npz before it is compressed); None for 8 times the
            input, and at least 256 MiB.
        fsync: wait until the output is on the disk.

    Raises:
        InvalidUpdateError: an .npy is not valid, or a value is not finite; nothing was written.
        InvalidSourceError: the input is broken or does not fit; nothing was written.
        OSError: the input can't be read, or the output can't be written or would be too large.
        ValueError: another suffix, both the same, or input and output are one file.
    """
    readers = {".npy": _open_update, ".npz": _open_npz, ".safetensors": _open_safetensors}
    source, target = suffix_of(path), suffix_of(out)
    if source == target:
        raise ValueError(f"both are {source}; repair rewrites an .npy")
    refuse_same_file(path, out)
    _check_num_samples(num_samples)
    with readers[source](os.fsdecode(path), schema) as content:
        content = Content(_agreed(content.num_samples, num_samples, source), content.members)
        if target == ".npy" and content.num_samples is None and source == ".npz":
            raise InvalidSourceError("it has no weighting; give --num-samples")
        limit = limit_for(os.stat(path).st_size) if max_size is None else max_size
        total = sum(member.nbytes for member in content.members)
        if total > limit:
            raise too_large(total, limit, out)
        with without_offsets():
            nbytes = _write(out, target, content, fsync, limit)
    kind: Kind = "update" if content.num_samples is not None else "aggregate"
    return Conversion(kind, content.num_samples, len(content.members), nbytes)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The suffix of a path in lower case.

    Raises:
        ValueError: it is none that can be converted.
    """
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    if suffix not in SUFFIXES:
        shown = quoted(os.path.basename(os.fsdecode(path)))[1:-1]
        raise ValueError(f"{shown}: the name must end in {', '.join(SUFFIXES)}")
    return suffix


def _check_num_samples(given: object) -> None:
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise TypeError(f"num_samples is an int, not {type(given).__name__}")
    if given is not None and not 1 <= given <= MAX_NUM_SAMPLES:
        raise ValueError(f"num_samples is 1 to 2**53, not {given}")


def _agreed(found: int | None, given: int | None, suffix: str) -> int | None:
    if found is not None and given is not None and found != given:
        raise InvalidSourceError(
            f"num_samples is {found:,} in the {suffix}, but {given:,} is given"
        )
    return given if found is None else found


@contextlib.contextmanager
def _open_update(path: str, schema: UpdateSchema | None) -> Iterator[Content]:
    with open_file(path) as source:
        report = judge(source, schema, None, values=False).report
        layout = report.layout
        if not report.valid or layout is None:
            raise InvalidUpdateError(report)
        names: Sequence[str | None] = _names(schema) or [None] * len(layout.parameters)
        members = []
        for index, (array, name) in enumerate(zip(layout.parameters, names, strict=True)):
            if array.dtype.startswith("complex"):
                raise InvalidSourceError(f"parameters[{index}]: {array.dtype} has no place there")
            members.append(source_member(source, array, name))
        yield Content(layout.num_samples, members)
        source.check_unchanged()


@contextlib.contextmanager
def _open_npz(path: str, schema: UpdateSchema | None) -> Iterator[Content]:
    with open_npz(path) as content:
        names = _names(schema)
        if names is None:
            # layer_0 is only where it stands; in .safetensors it gets the usual name.
            members = [member._replace(name=None) for member in content.members]
        elif len(names) != len(content.members):
            raise InvalidSourceError(f"{len(content.members):,} arrays, {len(names):,} names")
        else:
            pairs = zip(names, content.members, strict=True)
            members = [member._replace(name=name) for name, member in pairs]
        yield Content(content.num_samples, members)


@contextlib.contextmanager
def _open_safetensors(path: str, schema: UpdateSchema | None) -> Iterator[Content]:
    names = _names(schema)
    with open_safetensors(path, names=names) as content:
        yield content


def _names(schema: UpdateSchema | None) -> list[str] | None:
    """The names that a schema has for all arrays; None if it has none at all."""
    specs = schema.parameters if schema is not None else None
    names = [spec.name for spec in specs or () if spec.name is not None]
    if not names:
        return None
    if specs is None or len(names) < len(specs):
        raise InvalidSourceError("the schema names some of the arrays and not others")
    return names


def _write(
    out: str | os.PathLike[str], suffix: str, content: Content, fsync: bool, limit: int
) -> int:
    """Write the file; its size in bytes."""
    if suffix == ".npy":
        return write_checked(out, content, fsync=fsync, max_size=limit).nbytes
    members = [_checked(index, member) for index, member in enumerate(content.members)]
    checked = Content(content.num_samples, members)
    with replacing(out, fsync=fsync) as output:
        if suffix == ".npz":
            with open(output.fd, "wb", closefd=False) as file:
                write_npz(file, checked)
        else:
            for _ in write_all(output.fd, safetensors_pieces(checked)):
                pass
        return os.fstat(output.fd).st_size


def _checked(index: int, member: Member) -> Member:
    return member._replace(blocks=partial(_judged, index, member))


def _judged(index: int, member: Member) -> Iterator[bytes | memoryview]:
    """The blocks.

    Raises:
        InvalidUpdateError: at the end, if a value was not finite.
    """
    found: list[Finding] = []
    yield from watched_blocks(index, member, found)
    if found:
        raise InvalidUpdateError(Report("update", 0, tuple(found), values_checked=True))
