"""What tests of the transport share: secrets to look for, connectors, a service with one file."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pydantic import SecretStr

from bktransport.api import Connector, Login
from bktransport.attempt import Deadline
from bktransport.redaction import Redactor

from ..hostile_http import Behaviour, reply
from .files import aggregate, update

__all__ = [
    "AGGREGATE", "CREDENTIALS", "LOGIN", "PASSWORD", "STORED", "TOKEN", "UPDATE", "connector",
    "deadline", "located", "texts_of", "write_update_file",
]  # fmt: skip

TOKEN = "canary-token/+~s3cret"  # noqa: S105 - to be looked for
PASSWORD = "canary-password/+~s3cret"  # noqa: S105
LOGIN = Login("leaf-1", SecretStr(TOKEN))
CREDENTIALS = {
    "leaf_name": "site 1", "leaf_id": "leaf-1", "leaf_session_token": TOKEN,
    "performance_analyser_username": "analyser", "performance_analyser_password": PASSWORD,
    "response_host": "127.0.0.1", "port": 1,
}  # fmt: skip

_ARRAY = np.arange(3000, dtype="f4")
UPDATE = update(_ARRAY)
AGGREGATE = aggregate(_ARRAY)
STORED = reply(201, {"data": {"file_id": "file-1"}})


def connector(**options: Any) -> Connector:
    given: dict[str, Any] = {
        "timeout": 20.0, "proxies": {}, "verify": True,
        "redactor": Redactor(("leaf-1", TOKEN), ("analyser", PASSWORD)),
    }  # fmt: skip
    return Connector(**{**given, **options})


def deadline(seconds: float = 40.0) -> Deadline:
    return Deadline(seconds)


def located(url: str) -> Behaviour:
    """The service names the URL of a file."""
    return reply(200, {"data": {"download_url": url}})


def write_update_file(folder: Path, nbytes: int = 0) -> Path:
    """An update of at least so many bytes."""
    path = folder / "update.npy"
    path.write_bytes(update(np.zeros(max(3000, nbytes // 4), "f4")))
    return path


class Recording(logging.Handler):
    """Formats every record, with what it knows of exceptions."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record) + repr(record.__dict__))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    waiting, seen = [exc], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (one.__cause__, one.__context__, *one.args, *vars(one).values())
        waiting += [item for item in inner if isinstance(item, BaseException)]


def texts_of(exc: BaseException) -> list[str]:
    """Everything that an exception and what it is chained to may show."""
    texts = ["".join(traceback.format_exception(exc))]
    for one in _chain(exc):
        state = SimpleNamespace(**vars(one))
        texts += [str(one), repr(one), repr(one.args), repr(state)]
    texts.append(repr(pickle.dumps(exc)))
    return texts
