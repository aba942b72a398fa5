"""The header of an .npy file, right or wrong."""

from __future__ import annotations


def npy_header(
    shape: str = "(2,)",
    *,
    descr: str = "'|O'",
    fortran: str = "False",
    version: tuple[int, int] = (1, 0),
    align: int = 64,
    text: str | None = None,
) -> bytes:
    """The .npy header, padded so that the data begins at a multiple of `align`."""
    if text is None:
        text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    width = 2 if version == (1, 0) else 4
    encoded = text.encode("latin-1" if version < (3, 0) else "utf-8")
    padding = -(8 + width + len(encoded) + 1) % align
    return raw_header(encoded + b" " * padding + b"\n", version)


def raw_header(text: bytes, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """Magic, version, length and text as they are given."""
    width = 2 if version == (1, 0) else 4
    length = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + length.to_bytes(width, "little") + text
