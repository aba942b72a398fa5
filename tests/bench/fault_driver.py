"""Runs where the published client is installed: a JSON command a line, a JSON answer a line."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from branchkey import client as branchkey


def _client(credentials: dict[str, Any], host: str) -> Any:
    if not hasattr(branchkey, "Credentials"):
        return branchkey.Client(credentials, host)
    leaf = branchkey.Credentials(  # of 2.9 and later
        id=credentials["leaf_id"],
        name=credentials["leaf_name"],
        session_token=credentials["leaf_session_token"],
        tree_id="tree-1",
        branch_id="branch-1",
        owner_id="owner-1",
    )
    return branchkey.Client(leaf, branchkey.APIConfig(host=host))


def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _consume(credentials: dict[str, Any], host: str, path: str, handling: float) -> None:
    """As an application would: take an id, work on it, and so on until killed."""
    log = _log(path)
    client = _client(credentials, host)
    client.authenticate()
    while True:
        aggregation_id = client.queue.get()
        os.write(log, f"offered {aggregation_id}\n".encode())
        time.sleep(handling)
        os.write(log, f"handled {aggregation_id}\n".encode())


class _Driver:
    def __init__(self, credentials: dict[str, Any], host: str) -> None:
        self.given = credentials, host
        self.client = _client(credentials, host)

    def authenticate(self) -> object:
        return not hasattr(self.client, "authenticate") or self.client.authenticate()

    def upload(self, path: str) -> object:
        return self.client.file_upload(path)

    def download(self, file_id: str) -> object:
        return self.client.file_download(file_id)

    def get(self, seconds: float) -> object:
        return self.client.queue.get(timeout=seconds)

    def fork(self, path: str, handling: float) -> object:
        """The id of a process that consumes; none of ours has threads by then."""
        pid = os.fork()
        if not pid:
            try:
                _consume(*self.given, path, handling)
            finally:
                os._exit(1)
        return pid

    def reap(self, pid: int) -> object:
        return os.waitpid(pid, 0)[1]


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the client prints
    driver = _Driver(json.loads(sys.stdin.readline()), sys.argv[1])
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(driver, name)(*arguments)}
        except BaseException as exc:  # noqa: BLE001  (the client calls sys.exit)
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _main()
