"""An update of the arrays in other files: .npz, .safetensors, or a folder of .npy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bkformat.array_files import array_file, array_folder
from bkformat.arrays import ArrayLayout
from bkformat.errors import InvalidSourceError, InvalidUpdateError
from bkformat.findings import Report, bounded
from bkformat.layout import UpdateLayout
from bkformat.limits import limit_for, refuse_same_file, without_offsets
from bkformat.members import Content, Member
from bkformat.npz import open_npz
from bkformat.output import replacing, write_all
from bkformat.safetensors import open_safetensors
from bkformat.writing import write_checked

if TYPE_CHECKING:
    from bkformat.schema import UpdateSchema

__all__ = ["Built", "build_file"]

_UNORDERED = (
    "the file does not say in which order the model has its arrays; they are taken as its header "
    "has them (--schema with names gives another order)"
)
_UNNUMBERED = (
    "names without numbers are taken in alphabetical order, which may not be the model's (--schema "
    "with names gives another order)"
)


class Built(NamedTuple):
    """What was written.

    Attributes:
        report: on the update; it is valid.
        names: of its arrays.
        note: what the caller should know, or None.
    """

    report: Report
    names: list[str | None]
    note: str | None

    def write_schema(self, path: str) -> None:
        """Write the schema that the update fits, with the names that it has no place for."""
        from bkformat.schema import infer_schema

        if self.report.layout is None:
            raise ValueError("there is no layout")
        schema = infer_schema(self.report.layout, names=self.names)
        with replacing(path) as output:
            for _ in write_all(output.fd, [schema.to_json().encode()]):
                pass


def build_file(
    source: str,
    out: str,
    num_samples: int,
    *,
    dtype: str | None = None,
    schema: UpdateSchema | None = None,
    max_size: int | None = None,
) -> Built:
    """Write an update of the arrays in a file or folder.

    Args:
        source: .npz, .safetensors, .npy or a folder of .npy files.
        out: the update.
        num_samples: samples behind it.
        dtype: what every array is converted to, if that is given.
        schema: what the update must fit; where it has names, they give the order.
        max_size: bytes; None for 8 times the source, and at least 256 MiB.

    Raises:
        InvalidSourceError: the source is broken, or holds what an update can't.
        InvalidUpdateError: a value is not finite, or the schema is not met.
        OSError: something can't be read or written.
    """
    refuse_same_file(source, out)
    if os.path.isdir(source) and os.path.realpath(os.path.dirname(out)) == os.path.realpath(source):
        raise ValueError("the output lies among the inputs; write it to another folder")
    with _opened(source, dtype) as (content, note):
        if content.num_samples not in (None, num_samples):
            message = f"its weighting is {content.num_samples:,}, but --num-samples {num_samples:,}"
            raise InvalidSourceError(message)
        members = content.members
        if schema is not None:
            members, ordered = _in_order(members, schema)
            note = None if ordered else note
            _judge_fit(Content(num_samples, members), schema)
        limit = limit_for(_size(source)) if max_size is None else max_size
        with without_offsets():
            report = write_checked(out, Content(num_samples, members), max_size=limit)
    return Built(report, [member.name for member in members], note)


@contextlib.contextmanager
def _opened(source: str, dtype: str | None) -> Iterator[tuple[Content, str | None]]:
    suffix = os.path.splitext(source)[1].lower()
    if os.path.isdir(source):
        members = array_folder(source, dtype)
        numbered = len(members) == 1 or all(re.search("[0-9]", m.name or "") for m in members)
        yield Content(None, members), None if numbered else _UNNUMBERED
    elif suffix == ".npz":
        with open_npz(source, layers=False, dtype=dtype) as content:
            yield content, None
    elif suffix == ".safetensors":
        with open_safetensors(source, dtype=dtype) as content:
            yield content, None if content.ordered else _UNORDERED
    elif suffix == ".npy":
        yield Content(None, [array_file(source, None, dtype)]), None
    elif not os.path.lexists(source):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    else:
        raise ValueError("SOURCE is an .npz, a .safetensors, or a folder of .npy files")


def _in_order(members: list[Member], schema: UpdateSchema) -> tuple[list[Member], bool]:
    """The members in the order of the schema's names, and whether it has names."""
    names = [spec.name for spec in schema.parameters or ()]
    if not any(names):
        return members, False
    by_name = {member.name: member for member in members}
    if len(by_name) < len(members) or set(names) != by_name.keys():
        missing = sorted(set(names) - by_name.keys(), key=str)[:1]
        more = sorted(by_name.keys() - set(names), key=str)[:1]
        lacking = f"{missing[0]!r} is missing" if missing else f"{(more or names)[0]!r} is too many"
        raise InvalidSourceError(f"the arrays are not those that the schema names: {lacking}")
    return [by_name[name] for name in names], True


def _judge_fit(content: Content, schema: UpdateSchema) -> None:
    from bkformat.comparison import compare_layout

    arrays = tuple(ArrayLayout(m.dtype, m.shape, "C", 0, m.nbytes) for m in content.members)
    layout = UpdateLayout("update", content.num_samples, arrays, 1, 3, "canonical", None)
    findings = compare_layout(layout, schema)
    if findings:
        report = Report("update", 0, bounded(findings), layout)
        with without_offsets():
            raise InvalidUpdateError(report)


def _size(source: str) -> int:
    """Bytes of a file, or of the files in a folder."""
    if not os.path.isdir(source):
        return os.stat(source).st_size
    with os.scandir(source) as entries:
        return sum(entry.stat().st_size for entry in entries)
