"""A backend to try the transport on: the HTTP side and the broker of one branch, on loopback.

    with Sandbox(leaves=2, quorum=2) as sandbox:
        client = Client(sandbox.credentials[0], sandbox.url)

No account of the real service was at hand when this was written, so much of what it does is a
guess. Trust it for what a client must bear, not for what the service will answer.

From the published client `branchkey==2.4.2`, which works against it unmodified:
    paths, methods and Basic authentication of the four calls; names of form fields and JSON keys;
    status codes of success (200, 201) and `{"error": text}`; a download in two steps, the second
    without credentials; virtual host, user, password and queue at the broker, and both messages;
    `performance_analyser_*` for metrics; a run that is paused until a message says otherwise.

Guesses:
    statuses of refusals: 401 wrong credentials, 404 unknown, 413 too large, 422 invalid update;
    uploads are taken whatever the run's status is;
    one update per leaf and round: a leaf's later upload takes the place of its earlier one, which
        stays listed as replaced; a round ends when `quorum` leaves have uploaded;
    the first update of a round rules its structure; others must have its dtypes and shapes;
    the aggregate: the mean weighted by num_samples, array by array, summed in float64 and rounded
        once to the array's dtype (integers and bools to the nearest, ties to the even one;
        integers past 2**53 lose their last digits); num_samples is the sum, and the layout is that
        of an update, in canonical form;
    an update that would bring a round past 2**53 samples is refused with 422;
    only aggregates can be downloaded; uploads are deleted once they are aggregated;
    one account of the performance analyser for the branch; aggregation_id must be an aggregate of
        it, unless the mode is "non-federated";
    a signed URL is refused with 403 when it is altered or its time is over, and with 400 when
        credentials come along, as S3 does.

Its own, and unknown to the service: `GET /sandbox/state`, `POST /sandbox/run` and the path of
signed URLs, `/sandbox/files/`. The first two ask for no credentials: whoever can reach the loopback
interface may use them. They are refused where the Host or Origin header is not a loopback one, so
that no web page can.

Faults for rehearsal (`fail=["busy:2"]`), each once or as often as told:
    lost-reply  an update is stored, then the connection closed without a reply
    busy        an upload gets 503 with `Retry-After: 1` before anything is stored
    truncate    a download ends halfway, though Content-Length says more
    drop        the broker's connections are closed by force after a message was published
    poison      malformed and unknown messages go before the next good one
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bktransport.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    if name != "Sandbox":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import werkzeug  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name != "werkzeug":
            raise
        message = 'the sandbox needs werkzeug: pip install "bkformat[sandbox]"'
        raise ImportError(message, name="werkzeug") from None
    from bktransport.sandbox.server import Sandbox

    globals()[name] = Sandbox
    return Sandbox


def __dir__() -> list[str]:
    return __all__
