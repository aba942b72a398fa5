"""The proof that a file is valid: it can't be made by hand, and holds the very file it judged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from bkformat.errors import InvalidUpdateError, UpdateChangedError
from bkformat.findings import Report
from bkformat.layout import Kind, UpdateLayout
from bkformat.source import BytesSource, FileSource, open_fd, too_large
from bkformat.validate import check_options, judge, source_of

if TYPE_CHECKING:
    import numpy as np

    from bkformat.schema import UpdateSchema

__all__ = ["ValidatedUpdate", "prove_written", "validate_bytes", "validate_file"]

_BLOCK = 1 << 20
_FROM_VALIDATION = object()


class ValidatedUpdate:
    """A valid update, the file open behind it. Made by `validate_file` and `validate_bytes` alone.

    Close it, or use it in a `with` statement.

    Attributes:
        kind: "update" or "aggregate".
        num_samples: samples behind the update; None for an aggregate without a count.
        layout: what the file says.
        schema: the schema it was judged by, or None.
        values_checked: whether every value was looked at.
        nbytes: bytes of the whole file.
        sha256: hexadecimal digest of the whole file.
        findings: the warnings, if there are any.

    `blocks()` gives the bytes, `parameters()` the arrays.
    """

    __slots__ = (
        "_source", "findings", "kind", "layout", "nbytes", "num_samples", "schema", "sha256",
        "values_checked",
    )  # fmt: skip

    def __init__(
        self,
        key: object = None,
        source: BytesSource | FileSource | None = None,
        report: Report | None = None,
        schema: UpdateSchema | None = None,
    ) -> None:
        layout = report.layout if report is not None else None
        made_here = key is _FROM_VALIDATION
        if not made_here or not source or not layout or report is None or not report.sha256:
            raise TypeError("a ValidatedUpdate comes from validate_file or validate_bytes")
        self._source: BytesSource | FileSource | None = source
        self.kind: Kind = layout.kind
        self.num_samples = layout.num_samples
        self.layout: UpdateLayout = layout
        self.schema = schema
        self.values_checked = report.values_checked
        self.nbytes = report.nbytes
        self.sha256 = report.sha256
        self.findings = report.findings

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("ValidatedUpdate can't be subclassed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ValidatedUpdate can't be copied or pickled; validate again")

    def __repr__(self) -> str:
        return (
            f"<ValidatedUpdate {self.kind} num_samples={self.num_samples} "
            f"parameters={len(self.layout.parameters)} sha256={self.sha256[:12]}...>"
        )

    def __enter__(self) -> ValidatedUpdate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; attributes stay readable."""
        source, self._source = self._source, None
        if isinstance(source, FileSource):
            os.close(source.fd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._source is None

    def _open_source(self) -> BytesSource | FileSource:
        if self._source is None:
            raise ValueError("this ValidatedUpdate is closed")
        return self._source

    def blocks(self) -> Iterator[bytes]:
        """The judged bytes, in blocks of at most 1 MiB.

        They are hashed again on the way, and the last block is held back until the digest agrees,
        so a receiver never gets the whole of a file that was changed after it was judged.

        Raises:
            UpdateChangedError: instead of the last block, where the bytes are not those judged.
        """
        source = self._open_source()
        digest = hashlib.sha256()
        held = b""
        for offset in range(0, self.nbytes, _BLOCK):
            if held:
                yield held
            held = source.read_at(offset, min(_BLOCK, self.nbytes - offset))
            digest.update(held)
        if digest.hexdigest() != self.sha256:
            raise UpdateChangedError("the file was changed after it was judged")
        yield held

    def parameters(self, *, mmap: bool = False) -> list[np.ndarray[Any, Any]]:
        """The arrays, read-only, in the order of the file.

        Args:
            mmap: map the file instead of copying. Mapped arrays see later changes of the file, and
                if it is truncated, touching them kills the process.

        Raises:
            UpdateChangedError: the bytes are not those judged; never raised for a mapping.
        """
        from bkformat.views import copy_arrays, map_arrays

        source = self._open_source()
        if mmap and isinstance(source, FileSource):
            return map_arrays(source, self.layout.parameters)
        arrays, digest = copy_arrays(source, self.layout.parameters, hashed=True)
        if digest != self.sha256:
            raise UpdateChangedError("the file was changed after it was judged")
        return arrays


def validate_file(
    path: str | os.PathLike[str],
    *,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    strict: bool = False,
    max_size: int | None = None,
) -> ValidatedUpdate:
    """Judge a file and give the proof that it is valid.

    Args:
        path: a regular file; links are followed.
        schema: as for `check_file`.
        kind: as for `check_file`.
        values: as for `check_file`.
        strict: as for `check_file`.
        max_size: as for `check_file`.

    Raises:
        InvalidUpdateError: the file is not valid; `.report` says why.
        OSError: the file can't be opened or read, or is no regular file.
        UpdateChangedError: the file was changed while it was judged (an `OSError` too).

    >>> with validate_file("fixtures/valid/base-numpy-2.4.6-python-3.11.npy") as update:
    ...     update.num_samples, len(update.layout.parameters)
    (1329, 2)
    """
    check_options(schema=schema, kind=kind, max_size=max_size)
    fd = open_fd(path)
    try:
        source = FileSource(fd)
        if max_size is not None and source.nbytes > max_size:
            raise too_large(source.nbytes, max_size, path)
        return _prove(source, schema, kind, values, strict)
    except BaseException:
        os.close(fd)
        raise


def validate_bytes(
    data: bytes | bytearray | memoryview,
    *,
    schema: UpdateSchema | None = None,
    kind: Kind = "update",
    values: bool = True,
    strict: bool = False,
) -> ValidatedUpdate:
    """Judge a file that is already in memory; arguments and errors as for `validate_file`."""
    check_options(schema=schema, kind=kind)
    return _prove(source_of(data), schema, kind, values, strict)


def _prove(
    source: BytesSource | FileSource,
    schema: UpdateSchema | None,
    kind: Kind,
    values: bool,
    strict: bool,
) -> ValidatedUpdate:
    report = judge(source, schema, kind, values, strict, sha256=True).report
    if not report.valid:
        raise InvalidUpdateError(report)
    return ValidatedUpdate(_FROM_VALIDATION, source, report, schema)


def prove_written(source: FileSource, report: Report) -> ValidatedUpdate:
    """The proof for a file that was judged while it was written.

    Raises:
        TypeError: the report does not say that all of it was.
    """
    if not report.valid or not report.values_checked:
        raise TypeError("only a valid report whose values were checked makes a proof")
    return ValidatedUpdate(_FROM_VALIDATION, source, report, None)
