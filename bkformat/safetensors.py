"""Updates in .safetensors.

    u64      length of the header, little-endian; at most 100 MB
    header   JSON: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets"}}, spaces
    data     the arrays: little-endian, C order, without a hole

The format sorts arrays as it likes, so their order goes to the metadata, as does num_samples:

    "num_samples"   such as "1329"; left out for an aggregate of arrays alone
    "order"         the names in the order of the model, a JSON list

Source: safetensors/src/tensor.rs.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bkformat.array_files import by_number, judged_dtype
from bkformat.errors import InvalidSourceError
from bkformat.findings import quoted
from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.members import Content, Member, stored_member
from bkformat.source import FileSource, Source, open_file
from bkformat.values import BLOCK

__all__ = ["open_safetensors", "safetensors_pieces"]

_MAX_HEADER = 100_000_000
_METADATA = "__metadata__"
_NAMES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32",
    "uint32": "U32", "int64": "I64", "uint64": "U64", "float16": "F16", "float32": "F32",
    "float64": "F64",
}  # fmt: skip
_DTYPES = {code: name for name, code in _NAMES.items()}
_NUMBERED = re.compile(r"parameters\.(0|[1-9][0-9]*)")


class _Entry(NamedTuple):
    """What the header says of one array; `start` counts from the start of the file."""

    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@contextlib.contextmanager
def open_safetensors(
    path: str, *, names: Sequence[str] | None = None, dtype: str | None = None
) -> Iterator[Content]:
    """The arrays of a file, read when they are asked for.

    Args:
        path: a regular file.
        names: the order of the model; without it that of the metadata, of the numbers of
            parameters.0, ..., or of the header.
        dtype: what the arrays are converted to, if that is given; bfloat16 needs it.

    Raises:
        InvalidSourceError: the file is broken, or holds what an update can't.
        OSError: the file can't be read.
    """
    with open_file(path) as source:
        entries, metadata = _read_header(source)
        members = [_member(source, e, dtype) for e in _ordered(entries, metadata, names)]
        ordered = names is not None or "order" in metadata or _numbered(entries)
        yield Content(_num_samples(metadata), members, ordered)


def _read_header(source: FileSource) -> tuple[dict[str, _Entry], dict[str, str]]:
    if source.nbytes < 8:
        raise InvalidSourceError("no .safetensors: shorter than 8 bytes")
    length = int.from_bytes(source.read_at(0, 8), "little")
    if length > min(_MAX_HEADER, source.nbytes - 8):
        raise InvalidSourceError(f"no .safetensors: a header of {length:,} bytes")
    try:
        fields = json.loads(source.read_at(8, length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise InvalidSourceError("the header is no JSON") from exc
    if not isinstance(fields, dict):
        raise InvalidSourceError("the header is no JSON object")
    metadata = fields.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        raise InvalidSourceError(f"{_METADATA} is not a mapping of text to text")
    entries = {name: _entry(name, value, 8 + length) for name, value in fields.items()}
    _account(entries.values(), 8 + length, source.nbytes)
    return entries, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidSourceError(f"{quoted(key)[1:-1]} stands in the header twice")
        found[key] = value
    return found


def _entry(name: str, value: Any, data: int) -> _Entry:
    where = quoted(name)[1:-1]
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidSourceError(f"{where}: not dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise InvalidSourceError(f"{where}: shape or data_offsets are no sizes")
    if type(code) is not str or (code not in _DTYPES and code != "BF16"):
        raise InvalidSourceError(f"{where}: an array of {quoted(code)}, which no update holds")
    if len(shape) > 32:
        raise InvalidSourceError(f"{where}: {len(shape)} dimensions")
    start, stop = offsets
    needed = prod(shape) * (2 if code == "BF16" else np.dtype(_DTYPES[code]).itemsize)
    if stop - start != needed:
        raise InvalidSourceError(f"{where}: {stop - start:,} bytes where it needs {needed:,}")
    return _Entry(name, code, tuple(shape), data + start, needed)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _account(entries: Iterable[_Entry], start: int, stop: int) -> None:
    """Every byte of the data belongs to exactly one array."""
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.nbytes)):
        if entry.start != start:
            raise InvalidSourceError(f"{quoted(entry.name)[1:-1]}: a hole or overlap before it")
        start += entry.nbytes
    if start != stop:
        raise InvalidSourceError(f"the arrays end at {start:,}, the file at {stop:,}")


def _num_samples(metadata: dict[str, str]) -> int | None:
    text = metadata.get("num_samples")
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,15}", text) or int(text) > MAX_NUM_SAMPLES:
        raise InvalidSourceError(f"num_samples in the metadata is {quoted(text)}")
    return int(text)


def _numbered(names: Iterable[str]) -> bool:
    return all(map(_NUMBERED.fullmatch, names))


def _ordered(
    entries: dict[str, _Entry], metadata: dict[str, str], names: Sequence[str] | None
) -> list[_Entry]:
    if not entries:
        raise InvalidSourceError("it holds no array")
    if names is None and "order" in metadata:
        try:
            names = json.loads(metadata["order"])
        except (ValueError, RecursionError) as exc:
            raise InvalidSourceError("order in the metadata is no JSON") from exc
    if names is None:
        names = sorted(entries, key=by_number) if _numbered(entries) else list(entries)
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise InvalidSourceError("order in the metadata is no list of names")
    if len(names) != len(entries) or set(names) != entries.keys():
        raise InvalidSourceError("the arrays are not those that the order names")
    return [entries[name] for name in names]


def _member(source: Source, entry: _Entry, dtype: str | None) -> Member:
    where = quoted(entry.name)[1:-1]
    read = partial(_blocks, source, entry)
    if entry.code == "BF16":
        if dtype is None:
            message = f"{where}: BK224 extension-dtype: bfloat16; fix: ask for a conversion, "
            raise InvalidSourceError(message + "such as --dtype float32")
        stored, wide = np.dtype("<f4"), partial(_widened, source, entry)
        return stored_member(entry.name, stored, entry.shape, wide, dtype=dtype)
    stored = np.dtype(_DTYPES[entry.code]).newbyteorder("<")
    judged_dtype(stored, entry.shape, dtype, where)
    return stored_member(entry.name, stored, entry.shape, read, dtype=dtype)


def _blocks(source: Source, entry: _Entry) -> Iterator[bytes]:
    for at in range(0, entry.nbytes, BLOCK):
        yield source.read_at(entry.start + at, min(BLOCK, entry.nbytes - at))


def _widened(source: Source, entry: _Entry) -> Iterator[bytes]:
    """bfloat16 is the upper half of float32."""
    for block in _blocks(source, entry):
        yield (np.frombuffer(block, "<u2").astype("<u4") << 16).tobytes()


def safetensors_pieces(content: Content) -> Iterator[bytes | memoryview]:
    """The bytes of a file one after another; equal contents give equal bytes.

    Arrays without a name are called parameters.0, parameters.1, ... by their place.

    Raises:
        InvalidSourceError: two arrays have the same name.
    """
    names = [member.name or f"parameters.{at}" for at, member in enumerate(content.members)]
    if len(set(names)) < len(names) or _METADATA in names:
        raise InvalidSourceError("two arrays have the same name, or one is __metadata__")
    # Wide elements first, so that all are aligned.
    placed = sorted(
        zip(names, content.members, strict=True),
        key=lambda item: -np.dtype(item[1].dtype).itemsize,
    )
    metadata = {} if content.num_samples is None else {"num_samples": str(content.num_samples)}
    metadata["order"] = json.dumps(names)
    header: dict[str, Any] = {_METADATA: metadata}
    start = 0
    for name, member in placed:
        stop = start + member.nbytes
        header[name] = {
            "dtype": _NAMES[member.dtype],
            "shape": list(member.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, member in placed:
        yield from member.blocks()
