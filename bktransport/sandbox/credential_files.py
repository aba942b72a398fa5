"""Credentials on the disk: a file for each leaf that its owner alone can read."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_credentials"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def write_credentials(
    folder: str | os.PathLike[str], credentials: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Write leaf-1.json, leaf-2.json, ...; files of these names are replaced, links too.

    Args:
        folder: made with mode 700 where it is not there.
        credentials: a dict for each leaf.

    Returns:
        The files, mode 600.

    Raises:
        OSError: the folder can't be made or written.
    """
    place = Path(folder)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = []
    for number, given in enumerate(credentials, 1):
        path = place / f"leaf-{number}.json"
        _replace(path, json.dumps(given, indent=2).encode() + b"\n")
        paths.append(path)
    return paths


def _replace(path: Path, data: bytes) -> None:
    """A new file under a random name takes the place: nobody had it open before."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temporary, _FLAGS, 0o600), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
