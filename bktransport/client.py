"""One leaf at the service: upload updates, hear of aggregates, download them, report metrics.

Usable as the `Client` of the published `branchkey==2.4.2`: the same names, arguments and results.
Where that one returned False, printed or ended the process, this one raises a `BkTransportError`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import ssl
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

from pydantic import SecretStr

from bkformat import UpdateSchema, ValidatedUpdate, validate_file
from bktransport import compat
from bktransport.api import Connector, Login, Progress, Reply, refusal
from bktransport.attempt import Deadline
from bktransport.config import Credentials, as_credentials, checked_host, credentials_from
from bktransport.download import Downloader, DownloadRules
from bktransport.errors import AuthenticationError, BrokerError, StateError
from bktransport.events import BrokerAddress
from bktransport.inbox import AggregationQueue, KeptAside
from bktransport.journal import Journal, UploadRecord
from bktransport.messages import (
    AUTHENTICATE_PATH,
    METRICS_PATH,
    RunStatus,
    Topology,
    checked_id,
    metrics_body,
    read_authentication,
)
from bktransport.notifications import Notifications
from bktransport.outbox import send
from bktransport.redaction import Redactor
from bktransport.retries import retried
from bktransport.state import StateFolder, default_state
from bktransport.tls import broker_context
from bktransport.upload import Uploader, check_gate

__all__ = ["Client"]

_LOG = logging.getLogger("bktransport")

_CALL_SECONDS = 120.0
_TRANSFER_SECONDS = 3600.0
_MAX_DOWNLOAD_NBYTES = 16 << 30
_BROKER_SECONDS = 10.0


class Client:
    """A leaf. Close it, or use it in a `with` statement.

    Attributes:
        queue: offers the ids of aggregates, each until it is marked done or downloaded.

    Args:
        credentials: a dict, as the service gives it, or `Credentials`; None takes those of the
            environment (`BKTRANSPORT_CREDENTIALS`).
        host: URL of the service; None takes that of the credentials.
        schema: what every update must fit, and every aggregate, but for its count.
        download_schema: what every aggregate must fit, where that differs.
        state: folder for the inbox and the journal, for this leaf alone; None takes one in the
            user's state folder.
        output: folder for downloads.
        timeout: seconds that one step may take: connecting, sending a piece, waiting for one.
        deadline: seconds for a whole call with its retries; None means 120, and an hour for
            uploads and downloads.
        proxies: URL by scheme; None takes those of the environment, {} none.
        verify: True, or the path of a private CA's certificate; False checks nothing.
        broker_tls: True, the path of a private CA's certificate, or an `ssl.SSLContext`, where the
            broker speaks TLS.
        heartbeat: seconds between signs of life on the broker's connection.
        max_download_nbytes: bytes; a larger aggregate is refused.
        download_hosts: host names that aggregates may come from, `.example.org` meaning all below
            it; None for any.
        progress: called with bytes done and bytes in all (None if not known).
        notifications: False receives none, and leaves the state folder to a client that does.

    Raises:
        StateError: another client uses the state folder, or it is not safe.
        TypeError, ValueError, OSError: an argument is wrong, or names a file that can't be read.
    """

    def __init__(
        self,
        credentials: Credentials | Mapping[str, Any] | None = None,
        host: str | None = None,
        *,
        schema: UpdateSchema | None = None,
        download_schema: UpdateSchema | None = None,
        state: str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] = "aggregated_output",
        timeout: float = 30.0,
        deadline: float | None = None,
        proxies: Mapping[str, str] | None = None,
        verify: bool | str | os.PathLike[str] = True,
        broker_tls: bool | str | os.PathLike[str] | ssl.SSLContext = False,
        heartbeat: int = 30,
        max_download_nbytes: int = _MAX_DOWNLOAD_NBYTES,
        download_hosts: Collection[str] | None = None,
        progress: Progress | None = None,
        notifications: bool = True,
    ) -> None:
        given = credentials_from() if credentials is None else as_credentials(credentials)
        self._credentials = given
        self._host = checked_host(given.host if host is None else host)
        self._schema = schema
        self._output = Path(output)
        self._deadline = deadline
        self._progress = _check_callback(progress)
        ssl_context = broker_context(broker_tls)
        self._connector = Connector(
            timeout=timeout,
            proxies=proxies,
            verify=verify if isinstance(verify, bool) else os.fspath(verify),
            redactor=_redactor(given),
        )
        self._login = Login(given.leaf_id, given.leaf_session_token)
        self._uploader = Uploader(self._connector, self._host, self._login, given.leaf_name)
        rules = DownloadRules(max_download_nbytes, download_hosts)
        self._downloader = Downloader(
            self._connector,
            self._host,
            self._login,
            rules,
            download_schema or _of_any_count(schema),
        )
        self._topology: Topology | None = None
        self._receives = notifications
        path = default_state(given.leaf_id) if state is None else Path(state)
        self._closed = False
        with contextlib.ExitStack() as stack:
            folder = StateFolder(path, lock=notifications)
            stack.callback(folder.close)
            self._journal = Journal(folder)
            stack.callback(self._journal.close)
            self._notifications = Notifications(folder, ssl_context, heartbeat)
            stack.callback(self._notifications.close)
            self._open = stack.pop_all()
        self.queue: AggregationQueue = self._notifications.queue

    def __repr__(self) -> str:
        return f"<Client leaf_id={self.leaf_id!r} host={self._host!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client can't be copied or pickled: it holds credentials and connections")

    def __enter__(self) -> Client:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the notifications and let the state folder go; twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self._open.close()

    # --- what the leaf is ---

    @property
    def leaf_id(self) -> str:
        """The leaf's id."""
        return self._credentials.leaf_id

    @property
    def session_token(self) -> SecretStr:
        """The session token, which shows itself only by `.get_secret_value()`."""
        return self._credentials.leaf_session_token

    @property
    def is_authenticated(self) -> bool:
        """Whether `authenticate` succeeded."""
        return self._topology is not None

    @property
    def topology(self) -> Topology:
        """Where the leaf stands: tree_id and branch_id.

        Raises:
            AuthenticationError: `authenticate` was not called.
        """
        return self._authenticated()

    @property
    def schema(self) -> UpdateSchema | None:
        """What every update must fit."""
        return self._schema

    # --- calls ---

    def authenticate(self, *, deadline: float | None = None) -> bool:
        """Check the credentials, learn the leaf's place, and begin to receive notifications.

        Where the broker can't be reached, notifications begin when it can; see `broker_error`.

        Returns:
            True.

        Raises:
            AuthenticationError: the service refuses the credentials.
            BrokerError: the broker refuses them, or has no queue for this leaf. Uploads and
                downloads work nevertheless, and the broker is asked again in the background.
            NoResponseError, ResponseError, InvalidMessageError: no usable reply.
        """
        self._check_open()
        end = self._end(deadline, _CALL_SECONDS)
        reply = self._read("GET", AUTHENTICATE_PATH, end, "the authentication was")
        self._topology = read_authentication(reply.body)
        if self._receives:
            seconds = min(_BROKER_SECONDS, end.left())
            self._notifications.listen(self._broker_address(self._topology), seconds)
        return True

    def file_upload(
        self,
        file_path: str | os.PathLike[str] | ValidatedUpdate,
        *,
        metadata: str | None = None,
        progress: Progress | None = None,
        deadline: float | None = None,
    ) -> str:
        """Upload an update: a file, which is validated first, or the proof that it was.

        Returns:
            file_id of what was stored.

        Raises:
            InvalidUpdateError: the file is no valid update, or does not fit the schema.
            TypeError: neither a path nor a proof that may be uploaded.
            OSError: the file can't be read.
            UpdateChangedError: the file is no longer the one that was judged.
            AuthenticationError: refused, or `authenticate` was not called.
            ResponseError: refused for another reason, which the message gives.
            NoResponseError: the service could not be reached; nothing was sent.
            OutcomeUnknownError: it was sent, and the reply got lost; `uploads` keeps it.
        """
        if isinstance(file_path, str | os.PathLike):
            with validate_file(file_path, schema=self._schema) as update:
                return self._send(update, metadata, progress, deadline)
        return self._send(file_path, metadata, progress, deadline)

    def file_download(
        self,
        file_id: str,
        *,
        path: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        deadline: float | None = None,
    ) -> Path:
        """Download an aggregate, judge it, and mark it as done in `queue`.

        Args:
            file_id: the aggregation id that `queue` offered.
            path: where to put it; None means `<output>/<file_id>.npy`. A file that is there is
                replaced in the end, or stays as it is.
            progress: as for the client, for this call.
            deadline: as for the client, for this call.

        Returns:
            The path; `bkformat.load_file(path, kind="aggregate")` reads it.

        Raises:
            ValueError: `file_id` is no plain name.
            InvalidAggregateError: what came is no valid aggregate, or does not fit the schema.
            ResponseError: refused; AuthenticationError if `authenticate` was not called.
            InvalidMessageError: the service named a URL that is not fetched.
            NoResponseError: no whole reply within the deadline.
            OSError: the file can't be written.
        """
        checked_id(file_id, "file_id")
        self._authenticated()
        if path is None:
            self._output.mkdir(parents=True, exist_ok=True)
        target = self._output / f"{file_id}.npy" if path is None else Path(path)
        self._downloader.download(
            file_id, target, self._end(deadline, _TRANSFER_SECONDS), progress or self._progress
        )
        try:
            self.queue.downloaded(file_id)
        except StateError as exc:
            _LOG.warning("%s is here, but can't be marked as done: %s", file_id, exc)
        return target

    def send_performance_metrics(
        self,
        aggregation_id: str,
        data: str | Mapping[str, Any],
        mode: str,
        *,
        deadline: float | None = None,
    ) -> bool:
        """Report how well an aggregate does here.

        Args:
            aggregation_id: the aggregate.
            data: the metrics as JSON text, or a mapping that JSON can hold (no NaN).
            mode: "test", "train" or "non-federated".
            deadline: as for the client, for this call.

        Returns:
            True.

        Raises:
            ValueError: `mode` or `aggregation_id` is wrong, or there are no credentials for this.
            ResponseError: refused; AuthenticationError if `authenticate` was not called.
            NoResponseError: no reply; the metrics may have been taken in nevertheless.
        """
        checked_id(aggregation_id, "aggregation_id")
        text = data if isinstance(data, str) else json.dumps(data, allow_nan=False)
        topology = self._authenticated()
        body = metrics_body(topology, self.leaf_id, aggregation_id, text, mode)
        end = self._end(deadline, _CALL_SECONDS)
        url, login = self._host + METRICS_PATH, self._analyser_login()
        headers = {"Content-Type": "application/json"}

        def once() -> None:
            reply = self._connector.exchange("POST", url, login, end, headers=headers, body=body)
            if reply.status != 201:
                raise refusal(reply, "the metrics were", self._connector.redactor)

        retried(once, end, reads_only=False)
        return True

    # --- what the broker told ---

    @property
    def run_status(self) -> RunStatus:
        """Whether the run goes: "start", "stop" or "pause"; "pause" until told otherwise."""
        return self._notifications.run_status

    @property
    def broker_error(self) -> BrokerError | None:
        """Why no notifications come at the moment; None while they do."""
        return self._notifications.error

    def wait_for_run(
        self, status: RunStatus | Collection[RunStatus] = "start", timeout: float | None = None
    ) -> RunStatus:
        """Wait until the run is started, or has another status.

        Args:
            status: what to wait for; several are good too.
            timeout: seconds; None waits for ever.

        Returns:
            The status that was reached.

        Raises:
            DeadlineError: it was not, in that time.
            StateError: the client was closed meanwhile.
            ValueError: there is no such status, or this client receives no notifications.
        """
        self._check_open()
        if not self._receives:
            raise ValueError("this client receives no notifications, so it would wait for ever")
        return self._notifications.wait_for_run(status, timeout)

    def kept_aside(self) -> list[KeptAside]:
        """Messages of the broker that are none of the protocol, the newest 1000, oldest first."""
        return self._notifications.kept_aside()

    def uploads(self) -> list[UploadRecord]:
        """The journal: every upload from this state folder, and how it ended."""
        return self._journal.uploads()

    # --- further names of the published client ---

    def validate_weight_shape(self, file: bytes | str | os.PathLike[str] | IO[bytes]) -> bool:
        """Judge a file as an update; see `bktransport.compat.validate_weight_shape`."""
        return compat.validate_weight_shape(file)

    def convert_pytorch_numpy(self, model: Iterable[tuple[str, Any]], weighting: int = 1) -> Any:
        """An object array for `np.save`; see `bktransport.compat.convert_pytorch_numpy`."""
        return compat.convert_pytorch_numpy(model, weighting)

    def disable_ssl_verification(self, enabled: bool = False) -> bool:
        """Trust any certificate of the service from now on, or none but good ones if `enabled`."""
        if not enabled:
            warnings.warn(
                "certificates are not checked: anyone on the way can read and change everything; "
                "verify= takes a private CA", stacklevel=2,
            )  # fmt: skip
        self._connector.verify = enabled
        return enabled

    # --- inside ---

    def _end(self, deadline: float | None, default: float) -> Deadline:
        given = deadline if deadline is not None else self._deadline
        return Deadline(default if given is None else given)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this Client is closed")

    def _authenticated(self) -> Topology:
        self._check_open()
        if self._topology is None:
            raise AuthenticationError("not authenticated: call authenticate() first")
        return self._topology

    def _analyser_login(self) -> Login:
        user = self._credentials.performance_analyser_username
        password = self._credentials.performance_analyser_password
        if user is None or password is None:
            raise ValueError("the credentials have no performance_analyser_username and _password")
        return Login(user, password)

    def _read(self, method: str, path: str, end: Deadline, what: str) -> Reply:
        def once() -> Reply:
            reply = self._connector.exchange(method, self._host + path, self._login, end)
            if reply.status != 200:
                raise refusal(reply, what, self._connector.redactor)
            return reply

        return retried(once, end, reads_only=True)

    def _send(
        self,
        given: object,
        metadata: str | None,
        progress: Progress | None,
        deadline: float | None,
    ) -> str:
        if metadata is not None and not isinstance(metadata, str):
            raise TypeError(f"metadata must be a text, not {type(metadata).__name__}")
        update = check_gate(given, self._schema)
        _check_callback(progress)
        self._authenticated()
        end = self._end(deadline, _TRANSFER_SECONDS)
        return send(
            self._journal, self._uploader, update, end,
            metadata=metadata, progress=progress or self._progress,
        )  # fmt: skip

    def _broker_address(self, topology: Topology) -> BrokerAddress:
        given = self._credentials
        return BrokerAddress(
            host=given.response_host, port=given.port, virtual_host=topology.tree_id,
            user=given.leaf_id, password=given.leaf_session_token, queue=given.leaf_id,
        )  # fmt: skip


def _check_callback(progress: Progress | None) -> Progress | None:
    """Found out before anything is sent."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function, not {type(progress).__name__}")
    return progress


def _redactor(given: Credentials) -> Redactor:
    user, password = given.performance_analyser_username, given.performance_analyser_password
    logins = [(given.leaf_id, given.leaf_session_token.get_secret_value())]
    if password is not None:
        logins.append((user or "", password.get_secret_value()))
    return Redactor(*logins)


def _of_any_count(schema: UpdateSchema | None) -> UpdateSchema | None:
    """An aggregate counts the samples of all leaves."""
    return None if schema is None else schema.model_copy(update={"num_samples": None})
