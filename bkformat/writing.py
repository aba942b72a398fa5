"""Members to a canonical file, and the proof that it is valid.

The file is judged as any other is: each block is read back as soon as it is written, is hashed, and
every value in it is looked at. In the end the structure is read as a stranger's would be. Only then
the file gets its name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from bkformat.arrays import ArrayLayout
from bkformat.canonical import CanonicalForm, canonical_form
from bkformat.errors import InvalidUpdateError
from bkformat.findings import Finding, Report
from bkformat.layout import Kind
from bkformat.members import Content, Member
from bkformat.output import Output, replacing, write_all
from bkformat.proof import ValidatedUpdate, prove_written
from bkformat.source import FileSource, too_large
from bkformat.validate import check_structure
from bkformat.values import FINITE, hash_and_judge

__all__ = ["canonical_pieces", "form_of", "write_canonical", "write_checked"]

_SIGNATURE = itemgetter(1, 2)

_PIECE = 1 << 20
"""Bytes written at a time, to be read back while they are still in the processor's cache."""


def form_of(num_samples: int | None, members: Sequence[Member]) -> CanonicalForm:
    """Where everything goes."""
    return canonical_form(num_samples, list(map(_SIGNATURE, members)))


def canonical_pieces(
    form: CanonicalForm, members: Iterable[Member]
) -> Iterator[bytes | memoryview]:
    """The bytes of a file one after another; none larger than 1 MiB."""
    for head, member in zip(form.heads, members, strict=False):
        yield head
        for block in member.blocks():
            if len(block) <= _PIECE:
                yield block
            else:
                yield from (block[at : at + _PIECE] for at in range(0, len(block), _PIECE))
    yield form.heads[-1]


def write_canonical(
    path: str | os.PathLike[str],
    num_samples: int | None,
    members: Sequence[Member],
    *,
    fsync: bool = True,
    max_size: int | None = None,
) -> ValidatedUpdate:
    """Write a file, judge it and give it its name.

    Args:
        path: the target, which is replaced in one step; a link is followed.
        num_samples: None for an aggregate of arrays alone.
        members: at least one, of allowed dtypes.
        fsync: wait until the file is on the disk.
        max_size: bytes; nothing larger is written.

    Raises:
        InvalidUpdateError: a value is not finite; nothing was written.
        OSError: the file can't be written, or would be past `max_size`.
    """
    fd = -1
    try:
        with _judged(path, num_samples, members, fsync, max_size, hashed=True) as (output, report):
            fd = os.open(output.path, os.O_RDONLY)
            proof = prove_written(FileSource(fd), report)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return proof


def write_checked(
    path: str | os.PathLike[str],
    content: Content,
    *,
    fsync: bool = True,
    max_size: int | None = None,
) -> Report:
    """The same without a proof, and so without hashing; arguments and errors as there."""
    count, members, _ = content
    with _judged(path, count, members, fsync, max_size, hashed=False) as (_, report):
        return report


@contextlib.contextmanager
def _judged(
    path: str | os.PathLike[str],
    num_samples: int | None,
    members: Sequence[Member],
    fsync: bool,
    max_size: int | None,
    *,
    hashed: bool,
) -> Iterator[tuple[Output, Report]]:
    """The file, written and found to be valid; it gets its name when the block ends."""
    form = form_of(num_samples, members)
    if max_size is not None and form.nbytes > max_size:
        raise too_large(form.nbytes, max_size, path)
    kind: Kind = "update" if num_samples is not None else "aggregate"
    with replacing(path, fsync=fsync) as output:
        digest, found = _write_and_judge(output, form, members, hashed=hashed)
        report = check_structure(FileSource(output.fd), kind, digest or None, found)
        if not report.valid:
            raise InvalidUpdateError(report)
        yield output, report


def _write_and_judge(
    output: Output, form: CanonicalForm, members: Sequence[Member], *, hashed: bool
) -> tuple[str, list[Finding]]:
    """The digest of what was written, and what is wrong with its values."""
    os.ftruncate(output.fd, form.nbytes)
    layouts = [
        ArrayLayout(member.dtype, member.shape, "C", offset, nbytes)
        for member, offset, nbytes in zip(members, form.offsets, form.lengths, strict=True)
    ]
    growing = _Growing(output, canonical_pieces(form, members))
    return hash_and_judge(growing, form.structure(), layouts, FINITE, hashed=hashed)


class _Growing:
    """A source over a file that is written as far as it is asked for."""

    def __init__(self, output: Output, pieces: Iterable[bytes | memoryview]) -> None:
        self._source = FileSource(output.fd)
        self._writes = write_all(output.fd, pieces)
        self._written = 0
        self.nbytes = self._source.nbytes

    def _reach(self, end: int) -> None:
        while self._written < end:
            self._written = next(self._writes)

    def read_at(self, offset: int, length: int) -> bytes:
        self._reach(offset + length)
        return self._source.read_at(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._reach(offset + len(buffer))
        self._source.read_into(offset, buffer)

    def check_unchanged(self) -> None:
        """It changes all the time."""
