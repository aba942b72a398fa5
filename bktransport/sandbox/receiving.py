"""An upload's form, streamed to the disk as it comes in: memory stays the same for any size."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length, get_input_stream

from bktransport.sandbox.service import RefusedError

__all__ = ["received_file"]

_FORM_NBYTES = 1 << 16
"""What the form may take beside the file."""

_BUFFER = 1 << 16
_MOST_PARTS = 8


@contextlib.contextmanager
def received_file(
    environ: dict[str, Any], new_file: Callable[[], Path], max_nbytes: int
) -> Iterator[Path]:
    """The file of an upload's form, whole; it is deleted in the end, if it is still there.

    Args:
        environ: of the WSGI request, whose body was not read.
        new_file: gives names that nobody else uses.
        max_nbytes: bytes of the largest file.

    Raises:
        RefusedError: no such form, or too large; what is too large is refused before it is read.
        werkzeug.exceptions.ClientDisconnected: the body ended early.
        OSError: the file can't be written.
    """
    kind, options = parse_options_header(environ.get("CONTENT_TYPE"))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary or not boundary.isascii():
        raise RefusedError(400, "multipart/form-data with a boundary is wanted")
    paths: list[Path] = []
    opened: list[IO[bytes]] = []

    def open_next(**_: Any) -> IO[bytes]:
        if paths:
            raise RefusedError(400, "one file is wanted, not several")
        paths.append(new_file())
        opened.append(open(paths[0], "xb+"))  # noqa: SIM115  (closed below, come what may)
        return opened[0]

    try:
        _parse(environ, boundary.encode(), max_nbytes, open_next)
        for file in opened:
            file.close()
        yield paths[0]
    finally:
        for file in opened:
            file.close()
        for path in paths:
            path.unlink(missing_ok=True)


def _parse(
    environ: dict[str, Any],
    boundary: bytes,
    max_nbytes: int,
    open_next: Callable[..., IO[bytes]],
) -> None:
    parser = MultiPartParser(
        stream_factory=open_next,
        # Of the buffer and of a field; werkzeug holds no more than a buffer of a file.
        max_form_memory_size=2 * _BUFFER,
        buffer_size=_BUFFER,
        max_form_parts=_MOST_PARTS,
    )
    try:
        stream = get_input_stream(environ, max_content_length=max_nbytes + _FORM_NBYTES)
        form, files = parser.parse(stream, boundary, get_content_length(environ))
    except RequestEntityTooLarge:
        message = f"the upload is larger than {max_nbytes:,} bytes, or its form is"
        raise RefusedError(413, message) from None
    except ValueError as exc:
        raise RefusedError(400, "the multipart form is malformed, or not whole") from exc
    if list(files) != ["file"]:
        raise RefusedError(400, "the form has no file named 'file'")
    _check_fields(form.get("data"))


def _check_fields(text: str | None) -> None:
    """The published client sends leaf_name and metadata, as JSON text."""
    try:
        fields = json.loads(text or "")
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RefusedError(400, "the form's field 'data' is no JSON object")
