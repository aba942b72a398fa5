"""The HTTP side as a WSGI application: who calls, what for, and a JSON answer.

    GET  /v1/leaf/authenticate          the leaf's credentials
    POST /v1/file/upload                the leaf's
    GET  /v1/file/download/{file_id}    the leaf's
    POST /v1/performance/analysis       the performance analyser's
    GET  /sandbox/files/{file_id}       none, but a signature
    GET  /sandbox/state                 none
    POST /sandbox/run                   none

Errors are `{"error": text}`. A reply that is to be lost raises `ConnectionAbortedError`, on which
the server closes the connection.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from bktransport.messages import AUTHENTICATE_PATH, METRICS_PATH, UPLOAD_PATH, RunStatus
from bktransport.sandbox import faults
from bktransport.sandbox.accounts import Leaf
from bktransport.sandbox.faults import Faults
from bktransport.sandbox.receiving import received_file
from bktransport.sandbox.service import RefusedError, Round, Service
from bktransport.sandbox.signing import FILES_PATH, Signer
from bktransport.text import quoted

__all__ = ["Application"]

_log = logging.getLogger("bktransport.sandbox")

_MAX_JSON_NBYTES = 1 << 20
_BLOCK = 1 << 18


class Application:
    """Answers requests, each in the thread that brings it.

    Args:
        service: the state.
        signer: of download URLs.
        faults: what is to go wrong.
        url: where this is served, without a slash at the end.
        on_round: called with a round that is to be aggregated; returns soon.
        on_run: called with the new status of the run.
    """

    def __init__(
        self,
        service: Service,
        signer: Signer,
        faults: Faults,
        url: str,
        on_round: Callable[[Round], None],
        on_run: Callable[[RunStatus], None],
    ) -> None:
        self._service = service
        self._signer = signer
        self._faults = faults
        self._url = url
        self._on_round = on_round
        self._on_run = on_run
        rules = [
            ("GET", AUTHENTICATE_PATH, self._authenticate),
            ("POST", UPLOAD_PATH, self._upload),
            ("GET", "/v1/file/download/<file_id>", self._download),
            ("POST", METRICS_PATH, self._metrics),
            ("GET", FILES_PATH + "<file_id>", self._file),
            ("GET", "/sandbox/state", self._state),
            ("POST", "/sandbox/run", self._run),
        ]
        self._rules = Map(
            [Rule(path, endpoint=call, methods=[method]) for method, path, call in rules],
            strict_slashes=False,
            merge_slashes=False,
        ).bind("sandbox")

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            call, given = self._rules.match(request.path, request.method)
            answer: Response = call(request, **given)
        except RefusedError as exc:
            return _error(exc.status_code, str(exc))
        except HTTPException as exc:
            return _error(exc.code or 500, exc.name)
        except ConnectionError:
            raise
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__  # without the path, which is ours
            _log.warning("%s: %s", quoted(request.path)[1:-1], reason)
            return _error(507, f"the sandbox's disk: {reason}")
        except Exception:  # noqa: BLE001  (no request may end the sandbox, or show a traceback)
            _log.exception("a request failed")
            return _error(500, "the sandbox failed; its log says how")
        return answer

    # --- who calls -------------------------------------------------------------------------

    def _leaf(self, request: Request) -> Leaf:
        leaf = self._service.accounts.leaf(*_basic(request))
        if leaf is None:
            raise RefusedError(401, "wrong leaf_id or session token")
        return leaf

    # --- the service's own calls -----------------------------------------------------------

    def _authenticate(self, request: Request) -> Response:
        self._leaf(request)
        return _json(200, {"data": self._service.accounts.topology._asdict()})

    def _upload(self, request: Request) -> Response:
        leaf = self._leaf(request)
        if self._faults.take(faults.BUSY):
            answer = _error(503, "busy: try again")
            answer.headers["Retry-After"] = "1"
            return answer
        service = self._service
        with received_file(request.environ, service.new_file, service.max_upload_nbytes) as path:
            file_id, ended = service.store(leaf.leaf_id, path)
        if ended is not None:
            self._on_round(ended)
        if self._faults.take(faults.LOST_REPLY):
            raise ConnectionAbortedError("the reply is lost, as it was asked for")
        return _json(201, {"data": {"file_id": file_id}})

    def _download(self, request: Request, file_id: str) -> Response:
        self._leaf(request)
        self._service.aggregate_file(file_id)
        return _json(200, {"data": {"download_url": self._url + self._signer.path(file_id)}})

    def _metrics(self, request: Request) -> Response:
        if not self._service.accounts.is_analyser(*_basic(request)):
            raise RefusedError(401, "wrong performance analyser username or password")
        self._service.add_metrics(_json_body(request))
        return _json(201, {"data": {}})

    # --- the sandbox's own -----------------------------------------------------------------

    def _file(self, request: Request, file_id: str) -> Response:
        query = request.args
        signature = query.get("signature", "")
        trouble = self._signer.trouble(file_id, query.get("expires", ""), signature)
        if trouble is not None:
            raise RefusedError(403, trouble)
        if "Authorization" in request.headers:
            raise RefusedError(400, "credentials do not belong to a signed URL")
        path = self._service.aggregate_file(file_id)
        nbytes = path.stat().st_size
        sent = nbytes // 2 if self._faults.take(faults.TRUNCATE) else nbytes
        answer = Response(_blocks(path, sent), mimetype="application/octet-stream")
        answer.headers["Content-Length"] = str(nbytes)
        return answer

    def _state(self, request: Request) -> Response:
        _refuse_strangers(request)
        return _json(200, self._service.state())

    def _run(self, request: Request) -> Response:
        _refuse_strangers(request)
        status = self._service.set_run(_run_status(request))
        self._on_run(status)
        return _json(200, {"data": {"run_status": status}})


def _basic(request: Request) -> tuple[str, str]:
    """User and password; empty where there are none, which nobody has."""
    given = request.authorization
    if given is None or given.type != "basic":
        return "", ""
    return given.username or "", given.password or ""


def _refuse_strangers(request: Request) -> None:
    """No web page may come here by a name of its own that leads to loopback, or by a form."""
    origin = request.headers.get("Origin")
    if not _is_loopback("//" + request.headers.get("Host", "")) or (
        origin is not None and not _is_loopback(origin)
    ):
        raise RefusedError(403, "only for hosts on loopback, such as 127.0.0.1")


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(request: Request) -> bytes:
    request.max_content_length = _MAX_JSON_NBYTES
    return request.get_data(cache=False)


def _json_body(request: Request) -> object:
    try:
        return json.loads(_body(request))
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is no JSON") from None


def _run_status(request: Request) -> object:
    """From JSON, a form's field or the bare word; what the one key is called does not matter."""
    text = _body(request).strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text.decode("latin-1").rpartition("=")[2]
    return next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found


def _blocks(path: Path, nbytes: int) -> Iterator[bytes]:
    left = nbytes
    with open(path, "rb") as file:
        while left and (block := file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block


def _json(status_code: int, value: object) -> Response:
    return Response(json.dumps(value), status_code, mimetype="application/json")


def _error(status_code: int, text: str) -> Response:
    answer = _json(status_code, {"error": text})
    if status_code == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="sandbox"'
    return answer
