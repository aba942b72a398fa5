"""An aggregate comes in: its URL is judged, then its size, then its content, then it gets a name.

The service's reply names the URL of the file. It is fetched without credentials, without following
redirects, and only where `DownloadRules` allow. The bytes go to a temporary file beside the target,
which is judged as an aggregate and renamed; whatever fails leaves the old file and nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import requests

from bkformat import UpdateSchema, check_file
from bkformat.output import Output, replacing
from bktransport.addresses import Address, named_address, nearness
from bktransport.api import Connector, Login, Progress, near, pieces, refusal, retry_after
from bktransport.attempt import Attempt, Deadline, leads_inside
from bktransport.errors import InvalidAggregateError, InvalidMessageError, ResponseError
from bktransport.messages import download_path, read_download
from bktransport.retries import retried
from bktransport.text import origin, quoted

__all__ = ["DownloadRules", "Downloader"]


# Names and addresses that every parser of URLs reads alike: what is judged is what is fetched.
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252})|[0-9a-f:.]{2,45}")


@dataclass(frozen=True)
class DownloadRules:
    """What may be downloaded.

    Attributes:
        max_nbytes: bytes; nothing larger is kept.
        hosts: host names that a file may come from, `.example.org` meaning all below it; None for
            any.
    """

    max_nbytes: int
    hosts: Collection[str] | None = None

    def check_url(self, url: str, service: str) -> SplitResult:
        """Judge the URL of a file that a service named.

        Raises:
            InvalidMessageError: it is none that is fetched; the message does not show it.
        """
        parts = _split(url)
        if parts is None:
            raise InvalidMessageError("the download URL is no URL")
        host = (parts.hostname or "").rstrip(".").lower()
        if parts.scheme not in ("http", "https") or not host:
            scheme = quoted(parts.scheme)
            raise InvalidMessageError(f"the download URL is not http or https but {scheme}")
        if parts.scheme == "http" and urlsplit(service).scheme == "https":
            raise InvalidMessageError("the download URL is http, and the service's is https")
        if "@" in parts.netloc:
            raise InvalidMessageError("the download URL holds a user or password")
        if not _HOST.fullmatch(host) or not _is_plain(url):
            raise InvalidMessageError("the download URL holds characters that no URL has")
        if not self._is_listed(host):
            raise InvalidMessageError(f"{quoted(host)} is none of the download_hosts")
        return parts

    def _is_listed(self, host: str) -> bool:
        if self.hosts is None:
            return True
        listed = [name.rstrip(".").lower() for name in self.hosts]
        return any(host.endswith(name) if name.startswith(".") else host == name for name in listed)


class Downloader:
    """Downloads of one leaf.

    Args:
        connector: reaches the service, and the hosts of files.
        host: URL of the service.
        login: the leaf's.
        rules: what may be downloaded.
        schema: what an aggregate must fit, or None.
    """

    def __init__(
        self,
        connector: Connector,
        host: str,
        login: Login,
        rules: DownloadRules,
        schema: UpdateSchema | None,
    ) -> None:
        self._connector = connector
        self._host = host
        self._login = login
        self._rules = rules
        self._schema = schema

    def download(
        self, file_id: str, path: Path, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an aggregate and put it at `path`.

        Raises:
            ValueError: `file_id` is no id.
            ResponseError: refused; `InvalidAggregateError` where what came is no aggregate.
            NoResponseError: no whole reply within the deadline.
            InvalidMessageError: the service names a URL that is not fetched.
            OSError: the file can't be written.
        """
        url = self._host + download_path(file_id)
        retried(lambda: self._once(url, path, deadline, progress), deadline, reads_only=True)

    def _once(self, url: str, path: Path, deadline: Deadline, progress: Progress | None) -> None:
        with replacing(path) as output:  # first: a folder that can't be written costs no request
            location, nearest = self._locate(url, deadline)
            self._fetch(location, nearest, output, deadline, progress)
            report = check_file(output.path, schema=self._schema, kind="aggregate")
            if not report.valid:
                text = f"what came is no aggregate that can be used: {report.summary()}"
                raise InvalidAggregateError(text, 200, report)

    def _locate(self, url: str, deadline: Deadline) -> tuple[str, int]:
        """The URL of the file, and how near to us the service lies that named it."""
        reply = self._connector.exchange("GET", url, self._login, deadline)
        if reply.status != 200:
            raise refusal(reply, "the download was", self._connector.redactor)
        location = read_download(reply.body)
        self._rules.check_url(location, self._host)
        return location, near(reply, url)

    def _fetch(
        self, url: str, nearest: int, output: Output, deadline: Deadline, progress: Progress | None
    ) -> None:
        attempt = self._attempt(url, nearest, deadline)
        with self._connector.fetch(url, attempt) as response:
            self._check_reply(response)
            total = response.headers.get("Content-Length", "")
            expected = int(total) if total.isdecimal() else None
            received = 0
            for piece in pieces(attempt, response):
                received += len(piece)
                self._check_size(received)
                _write(output.fd, piece)
                if progress is not None:
                    progress(received, expected)

    def _attempt(self, url: str, nearest: int, deadline: Deadline) -> Attempt:
        """An attempt that connects to no address further inside than the service's."""

        def allowed(address: Address) -> bool:
            return nearness(address) <= nearest

        if self._connector.proxy_of(url) is None:
            return Attempt(origin(url), deadline, self._connector.timeout, allowed)
        # The address that is connected to is the proxy's, which has to know what lies inside.
        named = named_address(urlsplit(url).hostname or "")
        if named is not None and not allowed(named):
            raise leads_inside(origin(url))
        return Attempt(origin(url), deadline, self._connector.timeout)

    def _check_reply(self, response: requests.Response) -> None:
        status = response.status_code
        if status != 200:
            text = f"the file was refused by {origin(response.url)}: HTTP {status}"
            if 300 <= status < 400:
                text += ", a redirect, which is not followed"
            raise ResponseError(text, status, retry_after(response.headers))
        expected = response.headers.get("Content-Length", "")
        if expected.isdecimal():
            self._check_size(int(expected))

    def _check_size(self, nbytes: int) -> None:
        if nbytes > self._rules.max_nbytes:
            limit = f"{self._rules.max_nbytes:,}"
            raise ResponseError(f"the file is larger than {limit} bytes, the limit set here", 200)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url and "\\" not in url


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
