"""The exceptions: their tree, and that they survive pickling between processes."""

from __future__ import annotations

import errno
import pickle

import pytest

from bkformat import (
    BkFormatError,
    InvalidSchemaError,
    InvalidUpdateError,
    Report,
    UpdateChangedError,
    check_bytes,
)


def test_tree() -> None:
    for kind in (InvalidUpdateError, InvalidSchemaError, UpdateChangedError):
        assert issubclass(kind, BkFormatError)
    assert issubclass(UpdateChangedError, OSError)
    assert not issubclass(InvalidUpdateError, (OSError, ValueError))


def test_invalid_update_carries_its_report() -> None:
    report = check_bytes(b"")
    error = InvalidUpdateError(report)
    assert error.report is report
    assert str(error).startswith("BK101 empty-file: the file is empty; fix: write or transfer it")
    assert error.path is None
    named = InvalidUpdateError(report, "a\n.npy")
    assert str(named) == f"'a\\n.npy': {error}"
    assert named.path == "a\n.npy"


@pytest.mark.parametrize(
    "error",
    [
        InvalidUpdateError(Report("update", 0)),
        InvalidUpdateError(Report("update", 0), "a.npy"),
        InvalidSchemaError("dtypes: no"),
        UpdateChangedError(errno.EIO, "cut short"),
        UpdateChangedError("changed"),
    ],
)
def test_errors_can_be_pickled(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert str(copy) == str(error)
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)
