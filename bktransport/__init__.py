"""Send validated updates to BranchKey and receive aggregates (needs `bkformat[transport]`).

`Client` is one leaf at the service; `bktransport.sandbox.Sandbox` is a double of the service for
rehearsals and test suites (needs `bkformat[sandbox]`). Every upload passes through bkformat: the
type of the argument makes it so. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bktransport.client import Client
    from bktransport.config import Credentials, load_credentials
    from bktransport.errors import (
        AuthenticationError,
        BkTransportError,
        BrokerError,
        DeadlineError,
        InvalidAggregateError,
        InvalidMessageError,
        NoResponseError,
        OutcomeUnknownError,
        ResponseError,
        StateError,
    )
    from bktransport.inbox import AggregationQueue
    from bktransport.journal import UploadRecord

__all__ = [
    "AggregationQueue",
    "AuthenticationError",
    "BkTransportError",
    "BrokerError",
    "Client",
    "Credentials",
    "DeadlineError",
    "InvalidAggregateError",
    "InvalidMessageError",
    "NoResponseError",
    "OutcomeUnknownError",
    "ResponseError",
    "StateError",
    "UploadRecord",
    "load_credentials",
]

_HOMES = {
    "client": ("Client",),
    "config": ("Credentials", "load_credentials"),
    "inbox": ("AggregationQueue",),
    "journal": ("UploadRecord",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith(("bktransport", "bkformat")):
            raise
        missing = exc.name
    else:
        value = getattr(home, name)
        globals()[name] = value
        return value
    raise ImportError(
        f"{missing} is not installed; pip install 'bkformat[transport]'", name=missing
    )


def __dir__() -> list[str]:
    return __all__
