"""Exceptions that leave bkformat's public functions.

    BkFormatError
    ├── InvalidUpdateError      the content breaks a rule; `.report` says which, where, what to do
    ├── InvalidSchemaError      a schema file is not a schema
    ├── InvalidSourceError      a file of another format is broken, or can't become an update
    └── UpdateChangedError      the file changed while it was judged or sent (also an `OSError`)

Opening a path raises `OSError` as usual; wrong arguments raise `TypeError` or `ValueError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bkformat.findings import Report

__all__ = [
    "BkFormatError",
    "InvalidSchemaError",
    "InvalidSourceError",
    "InvalidUpdateError",
    "UpdateChangedError",
]


class BkFormatError(Exception):
    """Base of every exception that bkformat defines."""


class InvalidUpdateError(BkFormatError):
    """A file or byte string breaks at least one rule.

    Attributes:
        report: the whole `Report`; `report.layout` holds what was readable.
        path: which file it is, where more than one was given; else None.
    """

    def __init__(self, report: Report, path: str | None = None) -> None:
        hint = report.remedy()
        message = f"{report.summary()}; fix: {hint}" if hint else report.summary()
        super().__init__(message if path is None else f"{path!a}: {message}")
        self.report = report
        self.path = path

    def __reduce__(self) -> tuple[type[InvalidUpdateError], tuple[Report, str | None]]:
        return type(self), (self.report, self.path)


class InvalidSchemaError(BkFormatError):
    """A schema file is not an `UpdateSchema`; the message names the key and the trouble."""


class InvalidSourceError(BkFormatError):
    """A file of another format is broken, or holds what an update can't; the message says where."""


class UpdateChangedError(BkFormatError, OSError):
    """The bytes are no longer the ones that were judged.

    It is an `OSError` too: the trouble is with the file, not with its content, so whoever skips
    unreadable files skips this one as well.
    """
