"""Who wrote a file, and who can load it."""

from __future__ import annotations

import pytest

from bkformat import check_bytes
from bkformat.source import BytesSource
from bkformat.writers import WRITERS, identify, loads_on, peek_refused

from .files import FIXTURES, asm

_OLD = {"numpy", "numpy.core.multiarray"}
_NEW = {"numpy", "numpy._core.multiarray"}


@pytest.mark.parametrize(
    ("protocol", "modules", "arguments", "padded", "writer"),
    [
        (3, _OLD, {"int"}, False, "C"),
        (3, _OLD, {"bool"}, False, "D"),
        (4, _NEW, {"bool"}, False, "E"),
        (3, _OLD, {"bool"}, True, "canonical"),
        (4, _OLD, {"bool"}, True, "canonical"),
        (3, _OLD, {"bool", "int"}, False, None),
        (3, _NEW, {"bool"}, False, None),
        (4, _OLD, {"bool"}, False, None),
        (3, _OLD | _NEW, {"bool"}, False, None),
    ],
)
def test_identify(
    protocol: int, modules: set[str], arguments: set[str], padded: bool, writer: str | None
) -> None:
    assert identify(protocol, modules, arguments, padded=padded) == writer
    assert writer is None or writer in WRITERS


def test_loads_on() -> None:
    assert loads_on(_OLD) == ">=1.16"
    assert loads_on(_NEW) == ">=1.26.1"
    assert loads_on(_OLD | _NEW) == ">=1.26.1"


@pytest.mark.parametrize(
    ("name", "writer", "loads"),
    [("form-c", "C", ">=1.16"), ("form-d", "D", ">=1.16"), ("form-e", "E", ">=1.26.1"),
     ("canonical", "canonical", ">=1.16")],
)  # fmt: skip
def test_fixtures_are_recognised(name: str, writer: str, loads: str) -> None:
    layout = check_bytes((FIXTURES / "valid" / f"{name}.npy").read_bytes()).layout
    assert layout is not None
    assert (layout.writer, layout.loads_on) == (writer, loads)


def test_canonical_asks_for_alignment() -> None:
    """Padding that aligns nothing is not the canonical form."""
    data = asm.D.file(asm.D.update(asm.D.array(version=asm.long1(1, 9))), memo="used").data
    layout = check_bytes(data).layout
    assert layout is not None
    assert not layout.parameters[0].aligned
    assert layout.writer == "D"


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"cnumpy.core.multiarray\n_reconstruct\np0\n", (0, None)),
        (b"cnumpy.core.multiarray\n_reconstruct\nq\x00", (1, None)),
        (b"rubbish", (None, None)),
        (b"\x80", (None, None)),
        (b"\x80\x02c_codecs\nencode\n", (2, "B")),
        (b"\x80\x02U\x01b", (2, "A")),
        (b"\x80\x02x", (2, None)),
        (b"\x80\x05x", (5, None)),
    ],
)
def test_refused_protocols(start: bytes, told: tuple[int | None, str | None]) -> None:
    assert peek_refused(BytesSource(b"xx" + start), 2) == told
