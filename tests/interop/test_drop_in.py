"""`bktransport.Client` in the place of the published client, with only the import changed."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import trustme

import bkformat
from bkformat import build_update, write_update
from bktransport import AuthenticationError, Client
from bktransport.sandbox import Sandbox

from .environments import ROOT, environment
from .odd_service import OddService, until
from .published import (
    NUMPY,
    OURS,
    Outcome,
    Peer,
    broker_at_5672,
    ended,
    published,
    told,
)

_NEWER_NUMPY = "2.2.6"  # the last that Python 3.10 has

# The usage that must keep working; `tell` and the waiting are the test's.
_USAGE = """
c = Client(credentials, host)
tell([c.run_status, c.is_authenticated, c.leaf_id, c.queue.empty()])
c.authenticate()
tell(c.is_authenticated)
for status in "start", "stop", "pause":
    while c.run_status != status:
        time.sleep(0.01)
    tell(status)
file_id = c.file_upload("./file/path.npy")
tell(file_id)
aggregation_id = None
while aggregation_id is None:
    if not c.queue.empty():
        aggregation_id = c.queue.get(block=False)
        tell(bool(c.file_download(aggregation_id)))
        tell(c.send_performance_metrics(aggregation_id, '{"loss": 0.25}', "test"))
tell([aggregation_id, c.queue.empty()])
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Callable[..., Sandbox]]:
    """Makes sandboxes whose broker is where the published client dials."""
    with ExitStack() as stack:

        def make(**options: Any) -> Sandbox:
            broker = broker_at_5672()
            return stack.enter_context(Sandbox(bind=broker.host, broker=broker, **options))

        yield make


def _oldest() -> Peer:
    """Ours, with the oldest of everything that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith(("    ", "transport ="))]
    oldest = dict(re.findall(r'"([a-z0-9]+)>=([0-9.]+)', "\n".join(lines)))
    named = ("click", "pydantic", "requests", "urllib3", "pika", "stamina", "platformdirs")
    wanted = [f"numpy=={NUMPY}", *(f"{name}=={oldest[name]}" for name in named)]
    return Peer(environment(*wanted), "bktransport", OURS.path)


def _newer_numpy() -> Peer:
    return published("2.4.2", f"numpy=={_NEWER_NUMPY}")


_PAIRS = {
    "as pip gives them": lambda: (published(), OURS),
    "newer numpy beside our oldest": lambda: (_newer_numpy(), _oldest()),
}


@pytest.mark.parametrize("pair", _PAIRS)
def test_the_usage_runs_with_only_the_import_changed(
    sandbox: Callable[..., Sandbox], tmp_path: Path, pair: str
) -> None:
    """Both make up one branch, and end with the same."""
    peers = _PAIRS[pair]()
    folders = [tmp_path / "theirs", tmp_path / "ours"]
    for number, folder in enumerate(folders, start=1):
        (folder / "file").mkdir(parents=True)
        arrays = [np.full((4, 5), number, "float32"), np.full(3, -number, "float64")]
        write_update(folder / "file" / "path.npy", number, arrays).close()
    with sandbox(leaves=2, quorum=2) as branch, ExitStack() as stack:
        files = branch.write_credentials(tmp_path / "credentials")
        processes = [
            stack.enter_context(peer.started(_USAGE, folder, credentials, credentials["host"]))
            for peer, folder, credentials in zip(
                peers, folders, (json.loads(file.read_bytes()) for file in files), strict=True
            )
        ]
        for done, status in enumerate(("start", "stop", "pause"), start=2):
            until(lambda done=done: all(len(told(f)) >= done for f in folders), status)
            answer = requests.post(f"{branch.url}/sandbox/run", data=status, timeout=30)
            assert answer.json() == {"data": {"run_status": status}}
        outcomes = [ended(*pair) for pair in zip(processes, folders, strict=True)]
        _check_both(outcomes, folders, branch)


def _check_both(outcomes: list[Outcome], folders: list[Path], branch: Sandbox) -> None:
    state = branch.state()
    for outcome, credentials in zip(outcomes, branch.credentials, strict=True):
        assert outcome.code == 0, outcome.stderr
        before, authenticated, *rest = outcome.told
        assert before == ["pause", False, credentials["leaf_id"], True]
        assert authenticated is True
        assert rest[:3] == ["start", "stop", "pause"]
        assert rest[3] in [
            upload["file_id"] for upload in state["uploads"]
            if upload["leaf_id"] == credentials["leaf_id"]
        ]  # fmt: skip
        assert rest[4:6] == [True, True]
        assert rest[6] == [state["rounds"][0]["aggregation_id"], True]
    (name,) = {f"{outcome.told[-1][0]}.npy" for outcome in outcomes}
    theirs, ours = (folder / "aggregated_output" / name for folder in folders)
    assert theirs.read_bytes() == ours.read_bytes()
    # (1 * 1 + 2 * 2) / 3, rounded once
    mean = [np.full((4, 5), 5 / 3, "float32"), np.full(3, -5 / 3, "float64")]
    assert ours.read_bytes() == build_update(3, mean)
    assert state["rounds"][0]["status"] == "done"
    metrics = [
        (entry["leaf_id"], entry["mode"], entry["data"], entry["aggregation_id"])
        for entry in state["metrics"]
    ]
    assert sorted(metrics) == sorted(
        (credentials["leaf_id"], "test", '{"loss": 0.25}', name.removesuffix(".npy"))
        for credentials in branch.credentials
    )
    assert outcomes[0].stdout != ""
    assert outcomes[1].stdout == ""


# --- the further public names ---------------------------------------------------------------

# A tensor that needs a gradient, on a device: only detached and on the CPU it becomes an array.
_HELPERS = """
import numpy as np
class Tensor:
    def __init__(self, array, left=("data", "detach", "cpu")):
        self._array, self._left = array, left
    @property
    def data(self):
        return Tensor(self._array, [n for n in self._left if n not in ("data", "detach")])
    def detach(self):
        return self.data
    def cpu(self):
        return Tensor(self._array, [n for n in self._left if n != "cpu"])
    def numpy(self):
        assert not self._left, self._left
        return self._array
c = Client(credentials, host)
kinds = "float16", "float32", "float64", "int64", "bool"
models = [
    [(kind, Tensor(np.arange(6).reshape(2, 3).astype(kind))) for kind in kinds],
    [("one", Tensor(np.float32([1.5, -2])))],
    [("same", Tensor(np.ones(2))), ("shape", Tensor(np.zeros(2)))],
    [("scalar", Tensor(np.array(2.5)))],
]
for at, model in enumerate(models):
    for weighting in (1, 1329):
        update = c.convert_pytorch_numpy(iter(model), weighting)
        tell([type(part).__name__ for part in (update, *update)])
        tell([update.shape, str(update.dtype)])
        np.save("%d-%d.npy" % (at, weighting), update)
        with open("%d-%d.npy" % (at, weighting), "rb") as file:
            tell([c.validate_weight_shape(file), file.tell()])
tell(c.convert_pytorch_numpy(models[1])[0])
token = c.session_token
tell([getattr(token, "get_secret_value", lambda: token)(), c.leaf_id, c.run_status])
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tell([c.disable_ssl_verification(), len(caught)])
    tell(c.disable_ssl_verification(enabled=True))
"""


def test_helpers_give_the_same(tmp_path: Path) -> None:
    """And what they give passes bkformat."""
    credentials = {
        "leaf_name": "a", "leaf_id": "b", "leaf_session_token": "canary-token",
        "performance_analyser_username": "c", "performance_analyser_password": "d",
        "response_host": "127.0.0.1",
    }  # fmt: skip
    outcomes = [
        peer.run(_HELPERS, tmp_path / name, credentials, "http://127.0.0.1:9")
        for name, peer in (("theirs", published()), ("ours", OURS))
    ]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].told == outcomes[1].told
    assert len(outcomes[0].told) == 3 * 8 + 4
    assert outcomes[0].told[-3] == ["canary-token", "b", "pause"]
    for theirs in sorted((tmp_path / "theirs").glob("*.npy")):
        with (
            bkformat.validate_file(theirs) as one,
            bkformat.validate_file(tmp_path / "ours" / theirs.name) as other,
        ):
            assert one.num_samples == other.num_samples == int(theirs.stem.partition("-")[2])
            pairs = zip(one.parameters(), other.parameters(), strict=True)
            assert all(
                a.dtype == b.dtype and a.shape == b.shape and (a == b).all() for a, b in pairs
            )


def _valid(folder: Path) -> Path:
    path = folder / "valid.npy"
    write_update(path, 3, [np.ones((2, 2), "float32")]).close()
    return path


def test_validate_weight_shape_takes_file_path_and_bytes(tmp_path: Path) -> None:
    path = _valid(tmp_path)
    credentials = {
        "leaf_name": "a", "leaf_id": "b", "leaf_session_token": "t0k3n", "response_host": "h",
    }  # fmt: skip
    with Client(credentials, "http://127.0.0.1:9", state=tmp_path / "state") as client:
        with open(path, "rb") as file:
            assert client.validate_weight_shape(file) is True
            assert file.tell() == 0
        for given in (path, str(path), path.read_bytes()):
            assert client.validate_weight_shape(given) is True
        broken = path.read_bytes()[:-1]
        path.write_bytes(broken)
        with open(path, "rb") as file, pytest.raises(bkformat.InvalidUpdateError):
            client.validate_weight_shape(file)
        for given in (path, str(path), broken):
            with pytest.raises(bkformat.InvalidUpdateError):
                client.validate_weight_shape(given)


@pytest.mark.parametrize("peer", ["published", "ours"])
def test_disable_ssl_verification_trusts_any_certificate(tmp_path: Path, peer: str) -> None:
    """And not before it is called, nor after it is taken back."""
    script = """
c = Client(credentials, host)
def login():
    try:
        return c.authenticate()
    except Exception:
        return False
tell(login())
c.disable_ssl_verification(True)
tell(login())
c.disable_ssl_verification()
tell(login())
"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with broker_at_5672() as broker:
        trustme.CA().issue_cert(broker.host).configure_cert(context)
        with OddService(broker, ssl_context=context) as service:
            client = published() if peer == "published" else OURS
            outcome = client.run(script, tmp_path, service.credentials(), service.url)
    assert outcome.told == [False, False, True], outcome.stderr


def test_what_was_false_is_a_typed_error(tmp_path: Path) -> None:
    """The published client answers False where credentials are refused, and prints."""
    script = "c = Client(credentials, host)\ntell([c.authenticate(), c.is_authenticated])\n"
    with broker_at_5672() as broker, Sandbox(leaves=1, bind=broker.host, broker=broker) as branch:
        wrong = {**branch.credentials[0], "leaf_session_token": "wrong-token"}
        assert published().run(script, tmp_path, wrong, branch.url).told == [[False, False]]
        with Client(wrong, branch.url, state=tmp_path / "state") as client:
            with pytest.raises(AuthenticationError) as caught:
                client.authenticate()
            assert caught.value.status_code == 401
            assert not client.is_authenticated


def test_what_the_sandbox_refuses_is_told(tmp_path: Path) -> None:
    """The published client lets NaN pass; the sandbox's answer is the text of its exception."""
    data = bytearray(build_update(1, [np.ones(8, "float32")]))
    at = data.index(np.ones(8, "float32").tobytes())
    data[at : at + 4] = np.float32("nan").tobytes()
    (tmp_path / "update.npy").write_bytes(data)
    script = "c = Client(credentials, host)\nc.authenticate()\nc.file_upload('update.npy')\n"
    with broker_at_5672() as broker, Sandbox(leaves=1, bind=broker.host, broker=broker) as branch:
        outcome = published().run(script, tmp_path, branch.credentials[0], branch.url)
        assert outcome.code == 1
        assert "invalid update: BK401" in outcome.stderr
        assert branch.state()["uploads"] == []
