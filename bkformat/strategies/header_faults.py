"""Faults of the file and its header: BK1xx."""

from __future__ import annotations

import json
import zlib

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bkformat import assembler as asm
from bkformat.npy import MAX_HEADER
from bkformat.strategies.bases import SMALL, draw_base, fault
from bkformat.strategies.files import FILE_FORMS, build_file

__all__: list[str] = []

_FILES = st.builds(build_file, SMALL, st.sampled_from(FILE_FORMS))
_VERSIONS = st.sampled_from([(1, 0), (2, 0), (3, 0)])
_MAGIC = b"\x93NUMPY"


def _with_header(draw: st.DrawFn, header: bytes) -> bytes:
    """A good pickle behind this header."""
    base = draw_base(draw)
    return header + base.form.stream(base.root, offset=len(header)).data


# --- no .npy file ----------------------------------------------------------------------------


@fault("BK101")
def _nothing(draw: st.DrawFn) -> bytes:
    return b""


@fault("BK102")
def _numbers_as_text(draw: st.DrawFn) -> bytes:
    rows = st.lists(st.floats(allow_nan=False), min_size=1, max_size=5)
    return ",".join(map(repr, draw(rows))).encode()


@fault("BK102")
def _zeros(draw: st.DrawFn) -> bytes:
    return bytes(draw(st.integers(1, 500)))


@fault("BK102")
def _damaged_magic(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(_FILES))
    at = draw(st.integers(0, len(_MAGIC) - 1))
    data[at] = draw(st.sampled_from([other for other in b"\0NAY" if other != _MAGIC[at]]))
    return bytes(data)


_STARTS = [
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",  # gzip
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",  # zstd
    b"\x89HDF\r\n\x1a\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:",
    b"<!DOCTYPE html><html>",
    b'{"detail": "',
]


@fault("BK103")
def _other_format(draw: st.DrawFn) -> bytes:
    return draw(st.sampled_from(_STARTS)) + draw(st.binary(max_size=40))


@fault("BK103")
def _zip(draw: st.DrawFn) -> bytes:
    """The first member of an archive, as np.savez, torch.save and zip make them."""
    member = draw(st.sampled_from([b"layer_0.npy", b"archive/data.pkl", b"notes.txt"]))
    content = draw(_FILES)
    sizes = [zlib.crc32(content), len(content), len(content)]
    fields = b"\x14\0" + bytes(8) + b"".join(size.to_bytes(4, "little") for size in sizes)
    return b"PK\x03\x04" + fields + len(member).to_bytes(2, "little") + b"\0\0" + member + content


@fault("BK103")
def _safetensors(draw: st.DrawFn) -> bytes:
    length = draw(st.integers(0, 4))
    spec = {"dtype": "F32", "shape": [length], "data_offsets": [0, 4 * length]}
    header = json.dumps({"w": spec}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * length)


@fault("BK104")
def _pickle_alone(draw: st.DrawFn) -> bytes:
    return _with_header(draw, b"")


@fault("BK104")
def _old_pickle_alone(draw: st.DrawFn) -> bytes:
    base = draw_base(draw)
    return asm.proto(draw(st.sampled_from([2, 5]))) + base.form.stream(base.root).data[2:]


# --- version and length ----------------------------------------------------------------------


@fault("BK105")
def _version(draw: st.DrawFn) -> bytes:
    known = ((1, 0), (2, 0), (3, 0))
    pairs = st.tuples(st.integers(0, 255), st.integers(0, 255))
    version = draw(pairs.filter(lambda pair: pair not in known))
    return _MAGIC + bytes(version) + draw(_FILES)[8:]


@fault("BK106")
def _cut_in_header(draw: st.DrawFn) -> bytes:
    header = asm.npy_header(version=draw(_VERSIONS))
    return header[: draw(st.integers(1, len(header) - 1))]


@fault("BK106")
def _promised_header(draw: st.DrawFn) -> bytes:
    version = draw(_VERSIONS)
    data = _with_header(draw, asm.npy_header(version=version))
    text = data[10 if version == (1, 0) else 12 :]
    return asm.raw_header(text, version, draw(st.integers(len(text) + 1, MAX_HEADER)))


@fault("BK107")
def _long_header(draw: st.DrawFn) -> bytes:
    version = draw(_VERSIONS)
    data = _with_header(draw, asm.npy_header(version=version))
    most = 2**16 - 1 if version == (1, 0) else 2**32 - 1
    length = draw(st.integers(MAX_HEADER + 1, most))
    return asm.raw_header(data[10 if version == (1, 0) else 12 :], version, length)


# --- its text --------------------------------------------------------------------------------

_TEXTS = [
    "{'descr': '|O', 'shape': (2,), }",
    "{'fortran_order': False, 'descr': '|O', 'shape': (2,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,), 'shape': (3,), }",
    '{"descr": "|O", "fortran_order": False, "shape": (2,), }',
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2L,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (-2,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': tuple([2]), }",
    "__import__('os').mkdir()",
    "",
]
# Between these stand a dtype and dimensions, where other letters break other rules.
_PIECES = ("{'descr': ", ", 'fortran_order': False, 'shape': (", "), }")
_BETWEEN = ("'|O'", "2,", "")


@fault("BK108")
def _other_text(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(_TEXTS))
    return _with_header(draw, asm.npy_header(text=text, version=draw(_VERSIONS)))


@fault("BK108")
def _damaged_text(draw: st.DrawFn) -> bytes:
    """One letter of the text left out, doubled, or another in its place."""
    pieces = list(_PIECES)
    which = draw(st.integers(0, len(pieces) - 1))
    piece = pieces[which]
    at = draw(st.integers(0, len(piece) - 1))
    instead = draw(st.sampled_from(["", piece[at] * 2, "\0", "\t", "\xb2"]))
    pieces[which] = piece[:at] + instead + piece[at + 1 :]
    text = "".join(part for pair in zip(pieces, _BETWEEN, strict=True) for part in pair)
    return _with_header(draw, asm.npy_header(text=text, version=draw(_VERSIONS)))


@fault("BK109")
def _plain_array(draw: st.DrawFn) -> bytes:
    dtypes = st.sampled_from(["float32", "float64", "int64", "complex64", "bool"])
    shapes = npst.array_shapes(min_dims=0, max_dims=3, max_side=3)
    array = draw(npst.arrays(dtypes.map(np.dtype), shapes))
    shape = repr(array.shape)
    return asm.npy_header(shape, descr=repr(array.dtype.str)) + array.tobytes()


@fault("BK109")
def _numbers_before_a_pickle(draw: st.DrawFn) -> bytes:
    descr = draw(st.sampled_from(["'<f4'", "'<i8'", "[('a', '|O'), ('b', '<i4')]"]))
    return _with_header(draw, asm.npy_header(descr=descr))


@fault("BK110")
def _fortran(draw: st.DrawFn) -> bytes:
    return _with_header(draw, asm.npy_header(fortran="True", version=draw(_VERSIONS)))


@fault("BK111")
def _alignment(draw: st.DrawFn) -> bytes:
    version = draw(_VERSIONS)
    text = asm.npy_header(version=version)[10 if version == (1, 0) else 12 :].rstrip()
    spaces = draw(st.integers(0, 200))
    width = (10 if version == (1, 0) else 12) + len(text) + 1
    spaces += (width + spaces) % 16 == 0
    return _with_header(draw, asm.raw_header(text + b" " * spaces + b"\n", version))


@fault("BK112")
def _header_alone(draw: st.DrawFn) -> bytes:
    return asm.npy_header(version=draw(_VERSIONS))
