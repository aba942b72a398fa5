"""Who wrote a file and who can load it, told from its byte form.

    form       writer                      protocol  names                  dtype arguments
    A          Python 2, numpy <= 1.16     2         numpy.core.multiarray  (text, 0, 1)
    B          Python 3, numpy <= 1.16     2         A and _codecs.encode   (text, 0, 1)
    C          numpy 1.17, 1.18            3         numpy.core.multiarray  (text, 0, 1)
    D          numpy 1.19 to 1.26          3         numpy.core.multiarray  (text, False, True)
    E          numpy 2                     4         numpy._core.multiarray (text, False, True)
    canonical  bkformat                    3 or 4    as D; state version 1 as a padded LONG1

Source: the same update written by 19 pairs of Python and numpy and loaded by 17.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

from bkformat.source import Source

__all__ = ["WRITERS", "Writer", "identify", "loads_on", "peek_refused"]

Writer = Literal["A", "B", "C", "D", "E", "canonical"]

WRITERS: dict[Writer, str] = {
    "A": "numpy 1.16 or older on Python 2",
    "B": "numpy 1.16 or older on Python 3",
    "C": "numpy 1.17 or 1.18",
    "D": "numpy 1.19 to 1.26",
    "E": "numpy 2",
    "canonical": "bkformat",
}

_OLD = frozenset({"numpy.core.multiarray"})
_NEW = frozenset({"numpy._core.multiarray"})
_PEEK = 160


def identify(
    protocol: int, modules: AbstractSet[str], dtype_arguments: AbstractSet[str], *, padded: bool
) -> Writer | None:
    """The byte form of a stream that was read; None where no numpy writes such a mixture."""
    multiarray = modules - {"numpy"}
    if padded and multiarray == _OLD and dtype_arguments == {"bool"}:
        return "canonical"
    if protocol == 3 and multiarray == _OLD:
        forms: dict[frozenset[str], Writer] = {frozenset({"int"}): "C", frozenset({"bool"}): "D"}
        return forms.get(frozenset(dtype_arguments))
    if protocol == 4 and multiarray == _NEW:
        return "E"
    return None


def loads_on(modules: AbstractSet[str]) -> str:
    """The numpy versions that load a file with these names, as a version specifier."""
    return ">=1.26.1" if modules & _NEW else ">=1.16"


def peek_refused(source: Source, offset: int) -> tuple[int | None, Writer | None]:
    """Protocol and form of a pickle that no table is for, from its first bytes."""
    start = source.read_at(offset, min(_PEEK, source.nbytes - offset))
    if start[:1] != b"\x80":
        if not start.startswith(b"cnumpy"):
            return None, None
        return (0 if b"\np0\n" in start or b"\np1\n" in start else 1), None
    protocol = start[1] if len(start) > 1 else None
    if protocol != 2:
        return protocol, None
    if b"c_codecs\nencode\n" in start:
        return 2, "B"
    return 2, "A" if b"U\x01b" in start else None
