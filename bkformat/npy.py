r"""Stage 1: bytes -> `NpyHeader`.

The file begins with a header that is Python source, which numpy evaluates. Here it is compared with
the exact form that every numpy writes, and nothing is evaluated:

    offset  bytes
    0       \x93NUMPY
    6       version: 01 00, 02 00 or 03 00
    8       header length, little-endian: u16 (1.0) or u32 (2.0, 3.0)
    10, 12  {'descr': '|O', 'fortran_order': False, 'shape': (2,), } spaces \n
    128     the pickle (writers before numpy 1.14: at 80, and '|O8')

The bound on the length comes before the read: numpy reads first and checks later.
Source: numpy/lib/_format_impl.py (the module docstring is the specification).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bkformat import rules
from bkformat.findings import Rejected, quoted
from bkformat.source import Source

__all__ = ["MAX_HEADER", "NpyHeader", "read_header"]

MAX_HEADER = 4096
"""Longest header text in bytes; numpy writes 54 to 118 for an object array."""

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
_OBJECT_DESCRS = ("'|O'", "'|O8'")

_DIM = r"(?:0|[1-9]\d{0,18})"
_HEADER = re.compile(
    r"\{'descr': (?P<descr>'[^'\\]{1,64}'|\[.{0,3800}\]), "
    r"'fortran_order': (?P<fortran>False|True), "
    rf"'shape': \((?P<shape>|{_DIM},|{_DIM}(?:, {_DIM}){{1,63}})\), \}} *\n",
    re.ASCII,
)

# What people rename to .npy: the first bytes, what it is, what to do. For zip files see below.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first: unzstd"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras weights?)",
        f"load the arrays and save them: {rules.RECIPE}",
    ),
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "fetch the file: git lfs pull"),
    (b"\xc2\x93NUMPY", "an .npy file changed as text", "transfer it again as binary"),
    (b"\xef\xbf\xbdNUMPY", "an .npy file changed as text", "transfer it again as binary"),
    (b"<", "HTML or XML text, perhaps an error page", "download the file again"),
    (b"{", "JSON text, perhaps an error reply", "download the file again"),
)


_TORCH = f"save the arrays, [v.detach().cpu().numpy() for v in d.values()], as: {rules.RECIPE}"


class NpyHeader(NamedTuple):
    """What the header says.

    Attributes:
        version: (major, minor) of the .npy format.
        descr: the dtype text between its quotes: "|O" or "|O8".
        shape: elements along each axis.
        data_offset: bytes from the start of the file to the pickle.
    """

    version: tuple[int, int]
    descr: str
    shape: tuple[int, ...]
    data_offset: int


def read_header(source: Source) -> NpyHeader:
    """Read and judge the header.

    Raises:
        Rejected: BK101 to BK112.
    """
    start = source.read_at(0, min(source.nbytes, MAX_HEADER + 12))
    if not start.startswith(_MAGIC):
        raise _not_npy(start, source.nbytes)
    text_start, length = _header_length(start)
    data_offset = text_start + length
    if data_offset > source.nbytes:
        raise Rejected(rules.TRUNCATED_HEADER, source.nbytes, "the file ends inside its header")
    descr, fortran, shape = _parse(start[text_start:data_offset], text_start)
    if descr not in _OBJECT_DESCRS:
        raise Rejected(
            rules.NOT_OBJECT_ARRAY,
            text_start,
            f"a plain array of dtype {quoted(descr.strip(chr(39)))} and shape ({shape}), "
            "not an object array",
        )
    if fortran == "True":
        raise Rejected(rules.HEADER_FORTRAN, text_start, "the header says fortran_order True")
    if data_offset % 16:
        raise Rejected(
            rules.HEADER_ALIGNMENT,
            text_start,
            f"the data begins at {data_offset}, which is not a multiple of 16",
        )
    if data_offset == source.nbytes:
        raise Rejected(rules.NO_PICKLE, data_offset, "the file ends after its header")
    dims = tuple(int(dim) for dim in shape.replace(",", " ").split())
    return NpyHeader((start[6], start[7]), descr.strip("'"), dims, data_offset)


def _header_length(start: bytes) -> tuple[int, int]:
    """Where the header text starts and how long it says it is, bounded before it is believed."""
    version = start[6:8]
    if len(version) < 2:
        raise Rejected(rules.TRUNCATED_HEADER, len(start), "the file ends inside its header")
    width = _LENGTH_BYTES.get(version)
    if width is None:
        raise Rejected(rules.NPY_VERSION, 6, f".npy version {version[0]}.{version[1]}")
    text_start = 8 + width
    if len(start) < text_start:
        raise Rejected(rules.TRUNCATED_HEADER, len(start), "the file ends inside its header")
    length = int.from_bytes(start[8:text_start], "little")
    if length > MAX_HEADER:
        raise Rejected(rules.OVERSIZED_HEADER, 8, f"the header says it is {length:,} bytes long")
    return text_start, length


def _parse(text: bytes, offset: int) -> tuple[str, str, str]:
    match = _HEADER.fullmatch(text.decode("latin-1"))
    if match is None:
        raise Rejected(
            rules.HEADER_FORM, offset, f"the header is not of numpy's form: {quoted(text)[1:]}"
        )
    return match["descr"], match["fortran"], match["shape"]


def _not_npy(start: bytes, nbytes: int) -> Rejected:
    """The rule for a file without the magic: what it is, if that can be told."""
    if not nbytes:
        return Rejected(rules.EMPTY_FILE, 0, "the file is empty")
    if _MAGIC.startswith(start):
        return Rejected(rules.TRUNCATED_HEADER, nbytes, "the file ends inside its header")
    if start.startswith(b"PK\x03\x04"):
        return _zip(start)
    for magic, what, remedy in _OTHER_FORMATS:
        if start.startswith(magic):
            return Rejected(rules.OTHER_FORMAT, 0, f"this is {what}, not an .npy file", hint=remedy)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= nbytes:
        remedy = rules.OTHER_FORMAT.fix
        return Rejected(
            rules.OTHER_FORMAT, 0, "this is a safetensors file, not an .npy file", hint=remedy
        )
    if start[0] == 0x80 or start.startswith((b"cnumpy", b"(", b"ccollections", b"ctorch")):
        return Rejected(rules.BARE_PICKLE, 0, "a pickle without the .npy header")
    return Rejected(rules.NOT_NPY, 0, f"not an .npy file: it begins {quoted(start[:8])[1:]}")


def _zip(start: bytes) -> Rejected:
    """A zip file, by the name of its first member."""
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    if name.endswith(b".npy"):
        what, remedy = "an .npz archive", rules.OTHER_FORMAT.fix
    elif name.endswith((b"/data.pkl", b"/version", b"/.format_version", b"/byteorder")):
        what, remedy = "a PyTorch file (torch.save)", _TORCH
    else:
        what, remedy = "a zip archive", "unpack it first"
    return Rejected(rules.OTHER_FORMAT, 0, f"this is {what}, not an .npy file", hint=remedy)
