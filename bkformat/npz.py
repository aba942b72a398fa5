"""Updates in .npz, as BranchKey 2.9 and 3.x read and write them.

    weighting               num_samples, float64 of one element; aggregates have none
    layer_0 ... layer_k     the arrays; k is a number: layer_10 comes after layer_9
    __bk_payload_kind__     3.x may add it: "federated_learning", or something that is no update

A zip archive of plain .npy files, deflated. Every size that the archive declares is compared with
what is there, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO, Any

import numpy as np

from bkformat.array_files import ArrayHeader, by_number, judged_dtype, read_header
from bkformat.errors import InvalidSourceError
from bkformat.findings import quoted
from bkformat.layout import MAX_NUM_SAMPLES
from bkformat.members import Content, Member, little_endian, stored_member
from bkformat.source import open_fd
from bkformat.values import BLOCK

__all__ = ["open_npz", "write_npz"]

_KIND = "__bk_payload_kind__"
_LAYER = re.compile(r"layer_(0|[1-9][0-9]*)")
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SMALL = 4096
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@contextlib.contextmanager
def open_npz(path: str, *, layers: bool = True, dtype: str | None = None) -> Iterator[Content]:
    """The arrays of an archive, read when they are asked for.

    Args:
        path: a regular file.
        layers: whether it must be of BranchKey's form; otherwise arrays of any names, in their
            order there, make up the content.
        dtype: what the arrays are converted to, if that is given.

    Raises:
        InvalidSourceError: the archive is broken, or of another form.
        OSError: the file can't be read.
    """
    with open(open_fd(path), "rb") as file:
        with _translated("no .npz"):
            archive = zipfile.ZipFile(file)
        with archive:
            infos = _members(archive)
            _judge_kind(archive, infos.pop(_KIND, None))
            is_layers = all(map(_LAYER.fullmatch, infos.keys() - {"weighting"}))
            count = None
            if layers or is_layers:
                count = _weighting(archive, infos.pop("weighting", None))
                names = _layer_names(infos)
            else:
                names = list(infos)
            members = [_member(archive, infos[name], name, dtype) for name in names]
            yield Content(count, members)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names without .npy."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        where = quoted(info.filename)[1:-1]
        if name == info.filename:
            raise InvalidSourceError(f"{where}: not an .npy in the archive")
        if name in infos:
            raise InvalidSourceError(f"{where}: stands in the archive twice")
        if info.flag_bits & 1 or info.compress_type not in _STORED:
            raise InvalidSourceError(f"{where}: encrypted, or compressed by another method")
        infos[name] = info
    return infos


def _layer_names(infos: Mapping[str, zipfile.ZipInfo]) -> list[str]:
    """layer_0 ... layer_k in the order of their numbers, without a gap."""
    for name in infos:
        if not _LAYER.fullmatch(name):
            raise InvalidSourceError(f"{quoted(name)[1:-1]}: neither weighting nor layer_0, ...")
    names = sorted(infos, key=by_number)
    if not names:
        raise InvalidSourceError("no layer_0")
    for index, name in enumerate(names):
        if name != f"layer_{index}":
            raise InvalidSourceError(f"layer_{index} is missing")
    return names


def _judge_kind(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> None:
    if info is None:
        return
    value = _small_array(archive, info)
    if value.size != 1 or value.dtype.kind != "U" or value.item() != "federated_learning":
        raise InvalidSourceError(f"{_KIND}: {quoted(value.tolist())}, which is no update")


def _weighting(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> int | None:
    """num_samples; None where the archive has none."""
    if info is None:
        return None
    value = _small_array(archive, info)
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise InvalidSourceError("weighting: not a single number")
    number = value.item()
    if not 1 <= number <= MAX_NUM_SAMPLES or number != int(number):
        raise InvalidSourceError(f"weighting: {number!r} is no number of samples, 1 to 2**53")
    return int(number)


def _small_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    where = quoted(info.filename)[1:-1]
    if info.file_size > _SMALL:
        raise InvalidSourceError(f"{where}: {info.file_size:,} bytes for a single value")
    header, start = _header(archive, info)
    data = b"".join(bytes(block) for block in _blocks(archive, info, header, start))
    if header.dtype.kind not in "fiubU":
        raise InvalidSourceError(f"{where}: an array of {header.dtype.name}")
    return np.frombuffer(data, header.dtype)


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, dtype: str | None
) -> Member:
    header, start = _header(archive, info)
    judged_dtype(header.dtype, header.shape, dtype, quoted(info.filename)[1:-1])
    read = partial(_blocks, archive, info, header, start)
    return stored_member(
        name, header.dtype, header.shape, read, fortran=header.fortran, dtype=dtype
    )


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[ArrayHeader, int]:
    """The header of a member, and how long it is."""
    where = quoted(info.filename)[1:-1]
    with _opened(archive, info) as file:
        header = read_header(file, where)
        start = file.tell()
    if info.file_size - start != header.nbytes:
        raise InvalidSourceError(
            f"{where}: {info.file_size - start:,} bytes where shape {quoted(header.shape)} "
            f"of {header.dtype.name} needs {header.nbytes:,}"
        )
    return header, start


def _blocks(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader, start: int
) -> Iterator[bytes | memoryview]:
    """The elements of a member in blocks; what the archive promised is what comes."""
    with _opened(archive, info) as file:
        _exactly(file, start)
        step = BLOCK - BLOCK % (header.dtype.itemsize or 1)
        for at in range(0, header.nbytes, step):
            yield _exactly(file, min(step, header.nbytes - at))
        file.read(1)  # at the end the checksum is compared


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            raise EOFError("the archive ends too early")
        data += more
    return data


@contextlib.contextmanager
def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """A member for reading."""
    with _translated(quoted(info.filename)[1:-1]), archive.open(info) as file:
        yield file


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """What zip raises for a broken archive, as our own."""
    try:
        yield
    except (*_BROKEN, OSError) as exc:
        # An offset before the start of the file is an OSError, as trouble with the disk is.
        if isinstance(exc, OSError) and exc.errno != errno.EINVAL:
            raise
        raise InvalidSourceError(f"{where}: {quoted(str(exc) or repr(exc))[1:-1]}") from exc


def write_npz(file: IO[bytes], content: Content) -> None:
    """Write an archive; equal contents give equal bytes with the same zlib.

    Args:
        file: open for writing and seeking, at its start.
        content: num_samples becomes the weighting; an aggregate without one gets none.
    """
    with zipfile.ZipFile(file, "w") as archive:
        if content.num_samples is not None:
            count = np.array([content.num_samples], "<f8")
            _write(archive, "weighting", Member(None, "float64", (1,), (count.tobytes(),).__iter__))
        for index, member in enumerate(content.members):
            _write(archive, f"layer_{index}", member)


def _write(archive: zipfile.ZipFile, name: str, member: Member) -> None:
    info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that nothing depends on the clock
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    fields = {
        "descr": little_endian(member.dtype).str,
        "fortran_order": False,
        "shape": member.shape,
    }
    with archive.open(info, "w", force_zip64=member.nbytes >= 1 << 31) as target:
        np.lib.format.write_array_header_1_0(target, fields)
        for block in member.blocks():
            target.write(block)
