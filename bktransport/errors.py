"""Exceptions that leave bktransport's public functions.

    BkTransportError
    ├── NoResponseError             no whole reply came; of an upload, nothing was stored
    │   └── DeadlineError           the time given for the call is over (also a `TimeoutError`)
    ├── ResponseError               the service refused; `.status_code`
    │   ├── AuthenticationError     the credentials are wrong, or not allowed to do this
    │   └── InvalidAggregateError   what came back is no valid aggregate; `.report`
    ├── OutcomeUnknownError         an upload was sent and its reply lost; `.sha256`
    ├── BrokerError                 notifications can't be received
    ├── InvalidMessageError         a reply or message is not what the protocol says
    └── StateError                  the state folder can't be used: locked, foreign, unsafe

A file that is no valid update raises bkformat's `InvalidUpdateError`, one that changed on its way
`UpdateChangedError`, both before the service could store it. Wrong arguments raise `TypeError` or
`ValueError`; paths of the caller raise `OSError`, as usual. Messages are one line, and hold neither
credentials nor signed URLs; nor do the causes they are chained to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bkformat import Report

__all__ = [
    "AuthenticationError",
    "BkTransportError",
    "BrokerError",
    "DeadlineError",
    "InvalidAggregateError",
    "InvalidMessageError",
    "NoResponseError",
    "OutcomeUnknownError",
    "ResponseError",
    "StateError",
]


class BkTransportError(Exception):
    """Base of every exception that bktransport defines."""


class NoResponseError(BkTransportError):
    """The service could not be reached or gave no whole reply.

    An upload that ends so was not stored; metrics may have been taken in nevertheless.
    """


class DeadlineError(NoResponseError, TimeoutError):
    """The total time given for the call is over."""


class ResponseError(BkTransportError):
    """The service answered, and it is not what was asked for.

    Attributes:
        status_code: of the HTTP reply.
        retry_after: seconds that the service asks to wait, or None.
    """

    def __init__(
        self, message: str, status_code: int = 0, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[ResponseError], tuple[str, int, float | None]]:
        return type(self), (str(self), self.status_code, self.retry_after)


class AuthenticationError(ResponseError):
    """401 or 403: the credentials are wrong, or not allowed to do this."""


class InvalidAggregateError(ResponseError):
    """What was downloaded is no valid aggregate, or does not fit the schema; nothing was kept.

    Attributes:
        report: bkformat's `Report`: every finding, with its rule and place.
    """

    def __init__(self, message: str, status_code: int = 0, report: Report | None = None) -> None:
        super().__init__(message, status_code)
        self.report = report

    def __reduce__(self) -> tuple[type[InvalidAggregateError], tuple[str, int, Report | None]]:  # type: ignore[override]
        return type(self), (str(self), self.status_code, self.report)


class OutcomeUnknownError(BkTransportError):
    """An upload left, but whether it was stored can't be told; the journal knows it.

    Never retried on its own: a repeat could be stored twice. Ask who runs the service, by the
    digest, or send again if a second copy does no harm.

    Attributes:
        sha256: hexadecimal digest of the update.
        nbytes_sent: bytes of the request body that were handed to the network.
        nbytes: bytes of the whole request body; where fewer were sent, the service can't have had
            the whole update.
        status_code: of the reply, where there was one; else None.
    """

    def __init__(
        self,
        message: str,
        sha256: str = "",
        nbytes_sent: int = 0,
        nbytes: int = 0,
        status_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.sha256 = sha256
        self.nbytes_sent = nbytes_sent
        self.nbytes = nbytes
        self.status_code = status_code

    def __reduce__(
        self,
    ) -> tuple[type[OutcomeUnknownError], tuple[str, str, int, int, int | None]]:
        return type(self), (
            str(self), self.sha256, self.nbytes_sent, self.nbytes, self.status_code,
        )  # fmt: skip


class BrokerError(BkTransportError):
    """Notifications can't be received: refused, unreachable, or no such queue."""


class InvalidMessageError(BkTransportError):
    """A reply of the service or a message of the broker is not what the protocol says."""


class StateError(BkTransportError):
    """The state folder can't be used: another client has it, or it is not safe."""
