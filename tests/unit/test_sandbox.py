"""The sandbox does what the published client expects, and refuses what it must."""

from __future__ import annotations

import json
import logging
import os
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import trustme

from bkformat import build_update, validate_bytes
from bktransport.config import as_credentials
from bktransport.messages import RunStatusChanged, read_event, write_event
from bktransport.sandbox import Sandbox

from .sandbox_calls import (
    TIMEOUT,
    an_update,
    analyser,
    auth,
    download_url,
    ended_round,
    error,
    get,
    messages,
    post,
    raw,
    upload,
    wait_until,
)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(leaves=2, quorum=2, max_upload_nbytes=1 << 20) as running:
        yield running


@pytest.fixture
def single() -> Iterator[Sandbox]:
    with Sandbox(leaves=1) as running:
        yield running


# --- the loop --------------------------------------------------------------------------------


def test_the_whole_loop(sandbox: Sandbox) -> None:
    said = get(sandbox, "/v1/leaf/authenticate", auth=auth(sandbox)).json()["data"]
    assert said == sandbox.topology._asdict()
    assert sorted(said) == ["branch_id", "tree_id"]
    data = [an_update(1, 1), an_update(4, 2)]
    file_ids = []
    for leaf in (0, 1):
        answer = upload(sandbox, data[leaf], leaf)
        assert answer.status_code == 201
        assert list(answer.json()["data"]) == ["file_id"]
        file_ids.append(answer.json()["data"]["file_id"])
    ended = ended_round(sandbox)
    aggregation_id = ended["aggregation_id"]
    assert ended == {
        "round": 1, "status": "done", "aggregation_id": aggregation_id, "num_samples": 3,
        "error": None, "file_ids": file_ids,
    }  # fmt: skip
    for leaf in (0, 1):
        told = {"message_type": "aggregation_status", "body": {"aggregation_id": aggregation_id}}
        assert [json.loads(body) for body in messages(sandbox, 1, leaf)] == [told]
        got = requests.get(download_url(sandbox, aggregation_id, leaf), timeout=TIMEOUT)
        assert got.status_code == 200
        assert got.headers["Content-Length"] == str(len(got.content))
        assert got.content == build_update(3, [np.full(3, 3, "f4")])  # (1*1 + 2*4) / 3
        validate_bytes(got.content, kind="aggregate")
    metrics = {**said, "leaf_id": auth(sandbox)[0], "aggregation_id": aggregation_id,
               "mode": "test", "data": '{"loss": 1}'}  # fmt: skip
    answer = post(sandbox, "/v1/performance/analysis", auth=analyser(sandbox), json=metrics)
    assert answer.status_code == 201
    state = get(sandbox, "/sandbox/state").json()
    assert state == sandbox.state()
    assert state["metrics"] == [metrics]
    assert [one["sha256"] for one in state["uploads"]] == [
        validate_bytes(one).sha256 for one in data
    ]


def test_state_has_these_keys_and_no_secret(sandbox: Sandbox) -> None:
    upload(sandbox)
    upload(sandbox, leaf=1)
    url = download_url(sandbox, ended_round(sandbox)["aggregation_id"])
    state = sandbox.state()
    assert state["version"] == 1
    assert sorted(state) == ["leaves", "metrics", "rounds", "run", "uploads", "version"]
    assert sorted(state["uploads"][0]) == [
        "file_id", "leaf_id", "nbytes", "num_samples", "replaced", "round", "sha256",
    ]  # fmt: skip
    text = json.dumps(state) + repr(sandbox) + repr(vars(sandbox)["_accounts"].leaves)
    for given in sandbox.credentials:
        assert given["leaf_session_token"] not in text
        assert given["performance_analyser_password"] not in text
    assert urlsplit(url).query not in text


def test_rounds_follow_each_other(single: Sandbox) -> None:
    for number in (1, 2, 3):
        assert upload(single, an_update(number)).status_code == 201
    ids = [ended_round(single, number)["aggregation_id"] for number in (1, 2, 3)]
    told = [json.loads(body)["body"]["aggregation_id"] for body in messages(single, 3)]
    assert told == ids
    assert [one["round"] for one in single.state()["uploads"]] == [1, 2, 3]


def test_a_later_upload_takes_the_place_of_the_earlier(sandbox: Sandbox) -> None:
    first = upload(sandbox, an_update(100)).json()["data"]["file_id"]
    second = upload(sandbox, an_update(1, 1)).json()["data"]["file_id"]
    third = upload(sandbox, an_update(3, 1), leaf=1).json()["data"]["file_id"]
    ended = ended_round(sandbox)
    assert ended["file_ids"] == [second, third]
    assert ended["num_samples"] == 2
    listed = [(one["file_id"], one["replaced"]) for one in sandbox.state()["uploads"]]
    assert listed == [(first, True), (second, False), (third, False)]


def test_two_leaves_at_once(sandbox: Sandbox) -> None:
    data = [an_update(leaf, size=100_000) for leaf in (0, 2)]
    with ThreadPoolExecutor(2) as pool:
        for number in range(1, 6):
            answers = pool.map(lambda leaf: upload(sandbox, data[leaf], leaf), (0, 1))
            assert [one.status_code for one in answers] == [201, 201]
            assert ended_round(sandbox, number)["status"] == "done"


def test_of_two_first_uploads_one_rules(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    """Both are judged before either is stored; the second is then judged by the first."""
    from bktransport.sandbox import service

    together = threading.Barrier(2, timeout=TIMEOUT)
    judge = service.validate_file

    def slow(path: Path, *, schema: Any) -> Any:
        proof = judge(path, schema=schema)
        if schema is None:
            together.wait()
        return proof

    monkeypatch.setattr(service, "validate_file", slow)
    with ThreadPoolExecutor(2) as pool:
        data = [an_update(size=3), an_update(size=4)]
        answers = list(pool.map(lambda leaf: upload(sandbox, data[leaf], leaf), (0, 1)))
    assert sorted(one.status_code for one in answers) == [201, 422]


# --- the run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"run_status": "start"}},
        {"json": {"status": "start"}},
        {"json": "start"},
        {"data": {"status": "start"}},
        {"data": {"run_status": "start"}},
        {"data": "start"},
        {"data": " start\n", "headers": {"Content-Type": "text/plain"}},
    ],
)
def test_the_run_is_started(sandbox: Sandbox, body: dict[str, Any]) -> None:
    assert sandbox.state()["run"] == "pause"
    assert post(sandbox, "/sandbox/run", **body).json() == {"data": {"run_status": "start"}}
    assert sandbox.state()["run"] == "start"
    for leaf in (0, 1):
        assert messages(sandbox, 1, leaf) == [write_event(RunStatusChanged("start"))]


def test_the_run_in_python(single: Sandbox) -> None:
    single.set_run("start")
    single.set_run("stop")
    assert [read_event(body) for body in messages(single, 2)] == [
        RunStatusChanged("start"),
        RunStatusChanged("stop"),
    ]
    with pytest.raises(ValueError, match="give start, stop, pause"):
        single.set_run("resume")  # type: ignore[arg-type]
    assert single.state()["run"] == "stop"


@pytest.mark.parametrize(
    "body", ["", "resume", "{", '{"run_status": 1}', "\xff", "[]", '{"a": 1, "b": 2}']
)
def test_another_run_is_refused(single: Sandbox, body: str) -> None:
    error(post(single, "/sandbox/run", data=body.encode("latin-1")), 400)
    assert single.state()["run"] == "pause"


# --- who calls -------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["none", "token", "leaf", "other", "analyser", "bearer", "text"])
def test_wrong_credentials(sandbox: Sandbox, given: str) -> None:
    leaf_id, token = auth(sandbox)
    options: dict[str, Any] = {
        "none": {},
        "token": {"auth": (leaf_id, token[:-1])},
        "leaf": {"auth": ("nobody", token)},
        "other": {"auth": (leaf_id, auth(sandbox, 1)[1])},
        "analyser": {"auth": analyser(sandbox)},
        "bearer": {"headers": {"Authorization": f"Bearer {token}"}},
        "text": {"headers": {"Authorization": "Basic !!!"}},
    }[given]
    for call, path in (
        (get, "/v1/leaf/authenticate"), (post, "/v1/file/upload"), (get, "/v1/file/download/x"),
    ):  # fmt: skip
        answer = call(sandbox, path, **options)
        error(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_metrics_want_the_analyser(sandbox: Sandbox) -> None:
    for given in (auth(sandbox), (analyser(sandbox)[0], "no"), ("no", analyser(sandbox)[1])):
        error(post(sandbox, "/v1/performance/analysis", auth=given, json={}), 401)


@pytest.mark.parametrize(
    ("change", "status_code"),
    [
        ({"mode": "guess"}, 400),
        ({"leaf_id": "nobody"}, 400),
        ({"tree_id": "other"}, 400),
        ({"branch_id": "other"}, 400),
        ({"data": {"loss": 1}}, 400),
        ({"aggregation_id": None}, 400),
        ({"aggregation_id": "unknown"}, 404),
        ({"mode": "non-federated"}, 201),
    ],
)
def test_metrics_are_checked(sandbox: Sandbox, change: dict[str, Any], status_code: int) -> None:
    said = get(sandbox, "/v1/leaf/authenticate", auth=auth(sandbox)).json()["data"]
    body = {**said, "leaf_id": auth(sandbox)[0], "aggregation_id": "none", "mode": "train",
            "data": "{}", **change}  # fmt: skip
    answer = post(sandbox, "/v1/performance/analysis", auth=analyser(sandbox), json=body)
    assert answer.status_code == status_code
    assert len(sandbox.state()["metrics"]) == (status_code == 201)


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "10.0.0.1", "[::"])
def test_no_web_page_reads_the_state(single: Sandbox, host: str) -> None:
    for headers in ({"Host": host}, {"Origin": f"http://{host}"}, {"Origin": "null"}):
        error(get(single, "/sandbox/state", headers=headers), 403)
        error(post(single, "/sandbox/run", headers=headers, data="start"), 403)
    assert single.state()["run"] == "pause"


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.9", "[::1]:80"])
def test_loopback_reads_the_state(single: Sandbox, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert get(single, "/sandbox/state", headers=headers).status_code == 200


# --- downloads -------------------------------------------------------------------------------


def test_uploads_are_not_given(sandbox: Sandbox) -> None:
    file_id = upload(sandbox).json()["data"]["file_id"]
    for leaf in (0, 1):
        for name in (file_id, "unknown", "..%2f..%2fetc%2fpasswd", "%00", "%ff"):
            error(get(sandbox, f"/v1/file/download/{name}", auth=auth(sandbox, leaf)), 404)


def test_a_url_is_good_for_its_file_alone(single: Sandbox) -> None:
    upload(single)
    upload(single)
    first, second = (ended_round(single, n)["aggregation_id"] for n in (1, 2))
    url = download_url(single, first)
    plain = url.partition("?")[0]
    query = urlsplit(url).query
    later = query.replace("expires=", "expires=9")
    for wrong in (
        url.replace(first, second), url[:-1], url + "0", plain, f"{plain}?{later}",
        f"{plain}?expires=&signature=", f"{plain}?expires=x&signature=%ff",
    ):  # fmt: skip
        error(requests.get(wrong, timeout=TIMEOUT), 403)
    assert requests.get(url, timeout=TIMEOUT).status_code == 200
    assert requests.head(url, timeout=TIMEOUT).status_code == 200
    with Sandbox(leaves=1) as other:
        error(get(other, f"/sandbox/files/{first}?{query}"), 403)


def test_a_url_ends(tmp_path: Path) -> None:
    with Sandbox(leaves=1, url_lifetime=0.2) as sandbox:
        upload(sandbox)
        url = download_url(sandbox, ended_round(sandbox)["aggregation_id"])

        def over() -> bool:
            return requests.get(url, timeout=TIMEOUT).status_code == 403

        wait_until(over)
        assert "time is over" in error(requests.get(url, timeout=TIMEOUT), 403)


def test_credentials_do_not_belong_to_a_signed_url(single: Sandbox) -> None:
    upload(single)
    url = download_url(single, ended_round(single)["aggregation_id"])
    error(requests.get(url, auth=auth(single), timeout=TIMEOUT), 400)


# --- uploads that are refused ----------------------------------------------------------------


def test_an_invalid_update(sandbox: Sandbox) -> None:
    assert "BK101" in error(upload(sandbox, b""), 422)
    assert "BK401" in error(upload(sandbox, _with_nan()), 422)
    assert sandbox.state()["uploads"] == []
    assert _files(sandbox) == []


def _with_nan() -> bytes:
    data = bytearray(an_update(1))
    at = data.index(np.full(3, 1, "f4").tobytes())
    data[at : at + 4] = np.float32("nan").tobytes()
    return bytes(data)


def _files(sandbox: Sandbox) -> list[str]:
    return sorted(os.listdir(vars(vars(sandbox)["_service"])["_folder"]))


def test_another_structure(sandbox: Sandbox) -> None:
    upload(sandbox, an_update(size=3))
    for wrong in (
        an_update(size=4),
        an_update(dtype="f8"),
        build_update(1, [np.ones(3, "f4")] * 2),
    ):
        assert "BK5" in error(upload(sandbox, wrong, 1), 422)
    assert len(sandbox.state()["uploads"]) == 1
    assert upload(sandbox, an_update(num_samples=2**40), 1).status_code == 201
    ended_round(sandbox)
    assert upload(sandbox, an_update(size=4)).status_code == 201  # another round, another rule


def test_too_many_samples(sandbox: Sandbox) -> None:
    assert upload(sandbox, an_update(num_samples=2**53)).status_code == 201
    assert "2**53" in error(upload(sandbox, an_update(num_samples=1), 1), 422)
    assert upload(sandbox, an_update(num_samples=2**53 - 1)).status_code == 201  # takes the place
    assert upload(sandbox, an_update(num_samples=1), 1).status_code == 201
    assert ended_round(sandbox)["num_samples"] == 2**53


def test_too_large(sandbox: Sandbox) -> None:
    for nbytes in ((1 << 20) + 1, 2 << 20):  # within what the form may take beside it, and past it
        error(upload(sandbox, bytes(nbytes)), 413)
    assert _files(sandbox) == []
    assert upload(sandbox, an_update(size=200_000)).status_code == 201


def test_a_full_disk(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """507, and no path of the sandbox's own in the answer."""
    folder = Path(vars(vars(sandbox)["_service"])["_folder"])
    monkeypatch.setattr(vars(sandbox)["_service"], "new_file", lambda: folder / "no" / "such")
    assert error(upload(sandbox), 507) == "the sandbox's disk: No such file or directory"


def test_an_error_of_our_own_is_not_shown(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(vars(sandbox)["_service"], "store", fail)
    assert "canary" not in error(upload(sandbox), 500)
    assert "canary" in caplog.text
    assert _files(sandbox) == []


def test_what_can_not_be_announced_shows(single: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("gone")

    monkeypatch.setattr(single.broker, "publish", fail)
    assert upload(single).status_code == 201
    wait_until(lambda: single.state()["rounds"][0]["status"] == "failed")
    assert single.state()["rounds"][0]["error"] == "aggregated, not announced: OSError"


def test_what_can_not_be_aggregated_shows(single: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from bktransport.sandbox import service

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service, "aggregate", fail)
    assert upload(single).status_code == 201
    assert "No space left" in ended_round(single)["error"]
    monkeypatch.undo()
    assert upload(single).status_code == 201
    assert ended_round(single, 2)["status"] == "done"


# --- making and ending it --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"leaves": 0}, {"leaves": 1001}, {"leaves": 2, "quorum": 3}, {"quorum": 0},
        {"bind": "0.0.0.1"}, {"bind": "10.0.0.1"}, {"bind": "::1"}, {"bind": "localhost"},
        {"http_port": 65536}, {"amqp_port": -1}, {"fail": ["no"]}, {"fail": ["busy:0"]},
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        Sandbox(**arguments)


def test_a_port_that_is_taken(single: Sandbox) -> None:
    before = threading.active_count()
    for name, port in (("http_port", urlsplit(single.url).port), ("amqp_port", single.broker.port)):
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            Sandbox(**{name: port})
    assert threading.active_count() == before


def test_closing_ends_everything(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    sandbox = Sandbox(leaves=1, folder=tmp_path)
    upload(sandbox)
    ended_round(sandbox)
    with requests.Session() as session:
        idle = session.get(sandbox.url + "/sandbox/state", timeout=TIMEOUT)
        assert idle.status_code == 200
        sandbox.close()
    sandbox.close()
    assert set(threading.enumerate()) == before
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(requests.ConnectionError):
        get(sandbox, "/sandbox/state")


def test_closing_gives_up_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that takes for ever is aggregated, and a connection hangs."""
    from bktransport.sandbox import service

    begun = threading.Event()

    def aggregate_for_ever(_: Path, __: Any, check: Callable[[], None]) -> None:
        begun.set()
        while True:
            check()
            time.sleep(0.01)

    monkeypatch.setattr(service, "aggregate", aggregate_for_ever)
    before = set(threading.enumerate())
    sandbox = Sandbox(leaves=1, folder=tmp_path)
    with raw(sandbox) as hanging:
        hanging.sendall(b"POST /v1/file/upload HTTP/1.1\r\nContent-Le")
        upload(sandbox)
        assert begun.wait(TIMEOUT)
        sandbox.close()
        assert hanging.recv(1) == b""
    assert set(threading.enumerate()) == before
    assert list(tmp_path.iterdir()) == []
    assert sandbox.state()["rounds"][0]["status"] == "aggregating"


def test_credentials(sandbox: Sandbox) -> None:
    first, second = sandbox.credentials
    assert sorted(first) == [
        "host", "leaf_id", "leaf_name", "leaf_session_token", "performance_analyser_password",
        "performance_analyser_username", "port", "response_host",
    ]  # fmt: skip
    assert first["leaf_id"] != second["leaf_id"]
    assert first["leaf_session_token"] != second["leaf_session_token"]
    assert as_credentials(first).host == sandbox.url
    assert f"{first['response_host']}:{first['port']}" == sandbox.amqp


def test_credential_files(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "made"
    paths = sandbox.write_credentials(folder)
    assert [path.name for path in paths] == ["leaf-1.json", "leaf-2.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    paths[0].unlink()
    paths[0].symlink_to(elsewhere)
    paths[1].chmod(0o644)
    sandbox.write_credentials(folder)
    assert elsewhere.read_text() == "mine"
    for path, given in zip(paths, sandbox.credentials, strict=True):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert json.loads(path.read_text()) == given
    assert sorted(os.listdir(folder)) == ["leaf-1.json", "leaf-2.json"]
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        sandbox.write_credentials(elsewhere)


def test_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Sandbox(leaves=1, ssl_context=context) as sandbox:
        assert sandbox.url.startswith("https://")
        with pytest.raises(requests.exceptions.SSLError):
            upload(sandbox)
        with requests.Session() as session:
            session.trust_env = False  # or its CA bundle wins over this one
            session.verify = str(tmp_path / "ca.pem")
            session.auth = auth(sandbox)
            fields, files = {"data": "{}"}, {"file": ("a.npy", an_update())}
            said = session.post(
                sandbox.url + "/v1/file/upload", data=fields, files=files, timeout=TIMEOUT
            )
            assert said.status_code == 201
            said = session.get(
                sandbox.url + f"/v1/file/download/{ended_round(sandbox)['aggregation_id']}",
                timeout=TIMEOUT,
            )
            url = said.json()["data"]["download_url"]
            assert url.startswith(sandbox.url)
            session.auth = None
            assert session.get(url, timeout=TIMEOUT).status_code == 200


def test_logs_hold_no_secret(single: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("urllib3"), "disabled", True)
        patch.setattr(logging.getLogger("urllib3.connectionpool"), "disabled", True)
        upload(single)
        upload(single, b"broken")
        url = download_url(single, ended_round(single)["aggregation_id"])
        requests.get(url, timeout=TIMEOUT)
        requests.get(url + "0", timeout=TIMEOUT)
        error(post(single, "/v1/file/upload", auth=("x", auth(single)[1])), 401)
        wait_until(lambda: caplog.text.count("/sandbox/files/") == 2)
    assert "/v1/file/upload 201" in caplog.text
    assert {record.name for record in caplog.records} & {"werkzeug"} == set()
    for secret in ("expires", urlsplit(url).query, url[-32:], auth(single)[1], analyser(single)[1]):
        assert secret not in caplog.text


def test_the_package_is_light_and_says_what_is_missing(tmp_path: Path) -> None:
    code = (
        "import sys\nimport bktransport.sandbox\n"
        "assert not {'werkzeug', 'numpy', 'pika', 'pydantic'} & set(sys.modules)\n"
        "sys.modules['werkzeug'] = None\n"
        "try:\n    bktransport.sandbox.Sandbox\n"
        "except ImportError as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == 'the sandbox needs werkzeug: pip install "bkformat[sandbox]"\n'
    assert not done.stderr
