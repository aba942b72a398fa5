"""The command line of the transport: exit codes, streams, secrets, signals, terminals."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import trustme

from bkformat import load_file, write_update
from bktransport import demo
from bktransport.cli import cli, main
from bktransport.client import Client
from bktransport.errors import NoResponseError, ResponseError
from bktransport.messages import Topology
from bktransport.progress import TransferBar
from bktransport.sandbox import Sandbox
from bktransport.sandbox.broker import EmbeddedBroker

from ..hostile_http import Exchange, HostileServer, reply
from .files import FIXTURES

NAN = str(FIXTURES / "invalid" / "BK401-f4-form-e.npy")
COMMANDS = [
    "demo", "login", "upload", "uploads", "download", "watch", "metrics", "sandbox",
]  # fmt: skip
PATIENCE = 60.0  # seconds; nothing is that slow


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, credentials or state of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("BKTRANSPORT_"):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_STATE_HOME", "TMPDIR"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """By `main` in this process."""

    def call(*arguments: object) -> Run:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        return Run(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


def child(*arguments: object, data: bytes = b"", code: str = "", **more: Any) -> Run:
    """As a process of its own; `code` runs before the command line."""
    program = f"{code}; from bktransport.cli import main; main()"
    start = ["-c", program] if code else ["-m", "bktransport"]
    done = subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        input=data, capture_output=True, check=False, timeout=PATIENCE, **more,
    )  # fmt: skip
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


class Place(NamedTuple):
    """A sandbox whose every update becomes an aggregate, and its only leaf's options."""

    sandbox: Sandbox
    options: list[str]
    credentials: dict[str, Any]

    @property
    def leaf(self) -> tuple[str, str]:
        return self.topology.tree_id, self.credentials["leaf_id"]

    @property
    def topology(self) -> Topology:
        with Client(self.credentials, notifications=False) as client:
            client.authenticate()
            return client.topology


def place(folder: Path, **options: Any) -> Place:
    sandbox = Sandbox(leaves=1, **options)
    (path,) = sandbox.write_credentials(folder / "credentials")
    given = ["--credentials", str(path), "--state", str(folder / "state")]
    return Place(sandbox, given, sandbox.credentials[0])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    made = place(tmp_path)
    with made.sandbox:
        yield made


@pytest.fixture
def update(tmp_path: Path) -> Path:
    return an_update(tmp_path / "update.npy")


def an_update(path: Path, elements: int = 12, value: float = 1.0) -> Path:
    write_update(path, 7, [np.full(elements, value, "float32")]).close()
    return path


def wait(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def aggregated(run: Callable[..., Run], here: Place, update: Path) -> str:
    """The id of an aggregate of one upload."""
    before = len(done_rounds(here))
    assert run("upload", *here.options, update).code == 0
    wait(lambda: len(done_rounds(here)) > before)
    return str(done_rounds(here)[-1]["aggregation_id"])


def done_rounds(here: Place) -> list[dict[str, Any]]:
    return [found for found in here.sandbox.state()["rounds"] if found["status"] == "done"]


@contextlib.contextmanager
def watching(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A `watch` that runs beside; it must be ended inside, or is killed."""
    command = [sys.executable, "-m", "bktransport", "watch", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def ended(process: subprocess.Popen[str], number: int | None = None) -> Run:
    if number is not None:
        process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return Run(process.returncode, out, err)


# --- help and bad usage ----------------------------------------------------------------------


def test_commands_stand_in_the_order_of_their_use() -> None:
    assert list(cli.commands) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_readable_at_80_columns(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = run(*command.split(), "--help")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "token" not in re.findall(r"--[a-z-]+", done.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    options = [option for option in cli.commands[command].params if hasattr(option, "help")]
    shown = [option for option in options if not getattr(option, "hidden", False)]
    unexplained = [option.name for option in shown if not option.help]
    assert [name for name in unexplained if name not in ("files", "aggregation_id", "file")] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["login", "--timeout", "0"],
        ["login", "--port", "70000"],
        ["login"],
        ["login", "--credentials", "missing.json"],
        ["upload"],
        ["download"],
        ["download", "--max-size", "1G", "x"],
        ["watch", "--format", "yaml"],
        ["watch", "--count", "0"],
        ["watch", "--idle", "-1"],
        ["metrics", "x", "missing.json", "--mode", "test"],
        ["metrics", "x", os.devnull, "--mode", "best"],
        ["metrics", "x", os.devnull],
        ["demo", "--rounds", "0"],
        ["sandbox", "--bind", "192.0.2.1"],
    ],
)
def test_bad_usage_is_2_in_few_words(run: Callable[..., Run], arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert 1 <= len(done.err.strip().splitlines()) <= 7
    assert "internal error" not in done.err


@pytest.mark.parametrize(
    "option",
    ["--token", "--session-token", "--leaf-session-token", "--password",
     "--performance-analyser-password"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["login", "upload", "download", "watch", "metrics"])
def test_secrets_are_refused_on_the_command_line(
    run: Callable[..., Run], command: str, option: str
) -> None:
    arguments = {"upload": ["x"], "download": ["x"], "metrics": ["x", "-", "--mode", "test"]}
    done = run(command, option, "canary-secret", *arguments.get(command, []))
    assert done.code == 2
    assert "BKTRANSPORT_LEAF_SESSION_TOKEN" in done.err
    assert "canary" not in done.out + done.err


def test_passwords_of_proxies_are_refused_too(run: Callable[..., Run]) -> None:
    done = run("login", "--proxy", "http://user:canary@proxy.example")
    assert done.code == 2
    assert "HTTPS_PROXY" in done.err
    assert "canary" not in done.err


@pytest.mark.parametrize("wrong", [{"host": "ftp://x"}, {"host": None}, {"leaf_id": "../x"}])
def test_wrong_credentials_are_told_in_a_line(
    run: Callable[..., Run], here: Place, tmp_path: Path, wrong: dict[str, object]
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(here.credentials | wrong))
    done = run("login", "--credentials", path)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


# --- login -----------------------------------------------------------------------------------


def test_login_says_where_the_leaf_stands(run: Callable[..., Run], here: Place) -> None:
    done = run("login", *here.options)
    tree, leaf = here.leaf
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"leaf    leaf-1 ({leaf})",
        f"tree    {tree}",
        f"branch  {here.topology.branch_id}",
        f"broker  {here.sandbox.amqp}, notifications can be received",
    ]


def test_login_takes_no_message(run: Callable[..., Run], here: Place) -> None:
    leaf = here.leaf
    here.sandbox.set_run("start")
    wait(lambda: here.sandbox.broker.depth(*leaf) == (1, 0))
    assert run("login", *here.options).code == 0
    wait(lambda: here.sandbox.broker.depth(*leaf) == (1, 0))


def test_login_with_a_wrong_token_is_1(
    run: Callable[..., Run], here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BKTRANSPORT_LEAF_SESSION_TOKEN", "canary-wrong")
    done = run("login", *here.options)
    assert (done.code, done.out) == (1, "")
    assert "HTTP 401" in done.err
    assert "canary" not in done.err


def test_unreachable_service_is_2(run: Callable[..., Run], here: Place) -> None:
    here.sandbox.close()
    done = run("login", *here.options)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_unreachable_broker_is_2_and_the_leaf_is_told(run: Callable[..., Run], here: Place) -> None:
    with EmbeddedBroker() as gone:
        port = gone.port
    done = run("login", *here.options, "--port", port)
    assert done.code == 2
    assert done.out.startswith("leaf    leaf-1")
    assert f"127.0.0.1:{port} can't be reached" in done.err


def test_refusing_broker_is_1(run: Callable[..., Run], here: Place) -> None:
    with EmbeddedBroker() as other:
        done = run("login", *here.options, "--port", other.port)
        watched = run("watch", *here.options, "--port", other.port, "--idle", "5")
    assert (done.code, watched.code) == (1, 1)
    assert f"127.0.0.1:{other.port} refuses" in done.err
    assert "refused" in watched.err


def test_private_ca_for_both(run: Callable[..., Run], tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    contexts = [ssl_context(certificate), ssl_context(certificate)]
    made = place(tmp_path, ssl_context=contexts[0], broker=EmbeddedBroker(ssl_context=contexts[1]))
    trust = ["--ca", "ca.pem", "--broker-ca", "ca.pem"]
    with made.sandbox:
        assert run("login", *made.options, *trust).code == 0
        assert run("login", *made.options, *trust[:2], "--broker-tls").code != 0
        unknown = run("login", *made.options, *trust[2:])
        assert unknown.code == 2
        assert "certificate" in unknown.err.lower()
        no_ca = run("login", *made.options, "--ca", "missing.pem")
        assert no_ca.code == 2
        assert "missing.pem" in no_ca.err


def ssl_context(certificate: trustme.LeafCert) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_credentials_from_the_environment_and_options(
    run: Callable[..., Run], here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = here.credentials
    for key in ("leaf_name", "leaf_session_token", "response_host", "port"):
        monkeypatch.setenv(f"BKTRANSPORT_{key.upper()}", str(given[key]))
    monkeypatch.setenv("BKTRANSPORT_LEAF_ID", "somebody-else")
    done = run("login", "--leaf-id", given["leaf_id"], "--host", given["host"])
    assert done.code == 0
    assert given["leaf_id"] in done.out
    assert run("login", "--host", given["host"]).code == 1


# --- upload ----------------------------------------------------------------------------------


def test_upload_tells_each_file(run: Callable[..., Run], here: Place, update: Path) -> None:
    second = an_update(update.with_name("second.npy"), value=2.0)
    done = run("upload", *here.options, update, second)
    ids = [found["file_id"] for found in here.sandbox.state()["uploads"]]
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{update}: stored as {ids[0]}\n{second}: stored as {ids[1]}\n"


def test_upload_goes_on_after_what_concerns_one_file(
    run: Callable[..., Run], here: Place, update: Path
) -> None:
    done = run("upload", *here.options, "--format", "json", NAN, "missing.npy", update)
    told = [json.loads(text) for text in done.out.splitlines()]
    (stored,) = here.sandbox.state()["uploads"]
    assert done.code == 2
    keys = ["path", "file_id", "sha256", "outcome", "error", "findings"]
    assert [list(each) for each in told] == [keys] * 3
    assert [len(each["findings"]) for each in told] == [1, 0, 0]
    assert told[0]["findings"][0]["code"] in told[0]["error"]
    assert "\n" not in told[0]["error"]
    assert [each["outcome"] for each in told] == ["invalid", "unreadable", "stored"]
    assert [each["file_id"] for each in told] == [None, None, stored["file_id"]]
    assert told[2]["sha256"] == stored["sha256"]
    assert "BK401" in done.err
    assert "BK401" in told[0]["error"]


def test_invalid_update_is_1_and_nothing_is_sent(run: Callable[..., Run], here: Place) -> None:
    done = run("upload", *here.options, NAN)
    assert (done.code, done.out) == (1, "")
    assert f"{NAN}: invalid" in done.err
    assert "BK401" in done.err
    assert here.sandbox.state()["uploads"] == []


def test_schema_refuses_an_update(
    run: Callable[..., Run], here: Place, update: Path, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"version": 1, "parameters": [{"shape": [99]}]}))
    done = run("upload", *here.options, "--schema", schema, update)
    assert (done.code, done.out) == (1, "")
    assert "BK5" in done.err
    schema.write_text("{")
    assert run("upload", *here.options, "--schema", schema, update).code == 2
    assert run("upload", *here.options, "--schema", "missing.json", update).code == 2


def test_what_the_service_refuses_is_1(run: Callable[..., Run], tmp_path: Path) -> None:
    made = place(tmp_path, max_upload_nbytes=100)
    with made.sandbox:
        done = run("upload", *made.options, an_update(tmp_path / "large.npy", 1000))
    assert (done.code, done.out) == (1, "")
    assert "HTTP 413" in done.err


def test_unknown_outcome_is_2_and_says_what_to_do(
    run: Callable[..., Run], tmp_path: Path, update: Path
) -> None:
    made = place(tmp_path, fail=["lost-reply"])
    with made.sandbox:
        done = run("upload", *made.options, "--format", "json", update)
        (stored,) = made.sandbox.state()["uploads"]
        again = run("upload", *made.options, update)
    told = json.loads(done.out)
    assert (done.code, told["outcome"], told["file_id"]) == (2, "unknown", None)
    assert told["sha256"] == stored["sha256"]
    assert stored["sha256"] in done.err
    assert "ask who runs the service" in done.err
    assert again.code == 0
    assert "has no known outcome" in again.err


def test_a_lost_service_ends_the_batch(
    run: Callable[..., Run], here: Place, update: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(*_: object, **__: object) -> str:
        asked.append(True)
        raise NoResponseError("no answer")

    monkeypatch.setattr(Client, "file_upload", unreachable)
    done = run("upload", *here.options, "--format", "json", update, update)
    assert done.code == 2
    assert [json.loads(text)["outcome"] for text in done.out.splitlines()] == ["not-sent"] * 2
    assert len(asked) == 1


def test_evil_names_move_no_cursor(here: Place, tmp_path: Path) -> None:
    name = os.fsdecode(b"red\x1b[31m\n\xff.npy")
    an_update(tmp_path / name)
    text = child("upload", *here.options, name, f"missing{name}")
    for stream in (text.out, text.err):
        assert len(stream.splitlines()) == 1
        assert "\x1b" not in stream
    told = child("upload", *here.options, "--format", "json", name)
    assert json.loads(told.out)["outcome"] == "stored"


# --- download --------------------------------------------------------------------------------


def test_download_prints_the_path(run: Callable[..., Run], here: Place, update: Path) -> None:
    aggregation_id = aggregated(run, here, update)
    done = run("download", *here.options, aggregation_id)
    assert done == (0, f"aggregated_output/{aggregation_id}.npy\n", "")
    assert load_file(done.out.strip(), kind="aggregate").num_samples == 7
    named = run("download", *here.options, aggregation_id, "-o", "here.npy")
    assert named == (0, "here.npy\n", "")
    assert Path("here.npy").read_bytes() == Path(done.out.strip()).read_bytes()


def test_download_refuses_what_does_not_fit(
    run: Callable[..., Run], here: Place, update: Path, tmp_path: Path
) -> None:
    aggregation_id = aggregated(run, here, update)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"version": 1, "parameters": [{"shape": [99]}]}))
    target = tmp_path / "folder" / "a.npy"
    target.parent.mkdir()
    options = ("-o", target, *here.options, aggregation_id)
    done = run("download", "--schema", schema, *options)
    assert (done.code, done.out) == (1, "")
    assert "BK5" in done.err
    small = run("download", "--max-size", "10", *options)
    assert small.code == 1
    elsewhere = run("download", "--download-host", "files.example", *options)
    assert elsewhere.code == 2
    assert "download_hosts" in elsewhere.err
    assert list(target.parent.iterdir()) == []


def test_download_of_what_is_not_there_is_1(run: Callable[..., Run], here: Place) -> None:
    done = run("download", *here.options, "no-such-id")
    assert (done.code, done.out) == (1, "")
    assert "HTTP 404" in done.err


def test_download_of_no_id_is_2(run: Callable[..., Run], here: Place) -> None:
    done = run("download", *here.options, "../../etc/passwd")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_download_to_a_place_that_is_not_there_is_2(
    run: Callable[..., Run], here: Place, update: Path
) -> None:
    aggregation_id = aggregated(run, here, update)
    done = run("download", *here.options, aggregation_id, "-o", "no/such/folder.npy")
    assert (done.code, done.out) == (2, "")
    assert "internal error" not in done.err


# --- metrics ---------------------------------------------------------------------------------


def test_metrics_arrive(run: Callable[..., Run], here: Place, update: Path) -> None:
    aggregation_id = aggregated(run, here, update)
    Path("metrics.json").write_text('{"loss": 0.5}')
    options = [*here.options, aggregation_id, "--mode"]
    assert run("metrics", *options, "test", "metrics.json") == (
        0, f"{aggregation_id}: metrics sent\n", "",
    )  # fmt: skip
    assert child("metrics", *options, "train", "-", data=b"[1, 2]").code == 0
    told = here.sandbox.state()["metrics"]
    assert [(each["mode"], each["data"]) for each in told] == [
        ("test", '{"loss": 0.5}'), ("train", "[1, 2]"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"", b"loss: 0.5", b"{'loss': 1}", b'{"loss": NaN}', b"\xff", b"[" * 100_000]
)
def test_metrics_must_be_json(run: Callable[..., Run], here: Place, data: bytes) -> None:
    Path("metrics.json").write_bytes(data)
    done = run("metrics", *here.options, "some-id", "metrics.json", "--mode", "test")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "internal error" not in done.err
    assert here.sandbox.state()["metrics"] == []


def test_metrics_that_the_service_refuses_are_1(run: Callable[..., Run], here: Place) -> None:
    Path("metrics.json").write_text("{}")
    done = run("metrics", *here.options, "no-such-id", "metrics.json", "--mode", "test")
    assert (done.code, done.out) == (1, "")


# --- watch -----------------------------------------------------------------------------------


def test_watch_prints_events_as_they_come(
    run: Callable[..., Run], here: Place, update: Path
) -> None:
    with watching(*here.options) as process:
        assert line(process) == "run pause"
        here.sandbox.set_run("start")
        assert line(process) == "run start"
        aggregation_id = aggregated(run, here, update)  # beside: no lock is in the way
        assert line(process) == f"aggregation {aggregation_id}"
        here.sandbox.set_run("stop")
        assert line(process) == "run stop"
        assert ended(process, signal.SIGTERM) == (143, "", "")
    with watching(*here.options) as process:
        assert line(process) == "run stop"
        assert ended(process, signal.SIGINT) == (130, "", "")
    done = run("watch", *here.options, "--idle", "0.5")
    assert done == (0, "run stop\n", "")  # the aggregation is done


def test_watch_ends_after_a_count(run: Callable[..., Run], here: Place, update: Path) -> None:
    ids = [aggregated(run, here, update) for _ in range(3)]
    done = run("watch", *here.options, "--count", "2", "--format", "json")
    run_told, *told = [json.loads(text) for text in done.out.splitlines()]
    assert done.code == 0
    assert (run_told["event"], run_told["run_status"]) == ("run", "pause")
    assert [list(each) for each in told] == [["event", "aggregation_id", "time"]] * 2
    assert [each["aggregation_id"] for each in told] == ids[:2]
    assert all(re.fullmatch(r"\d{4}-.*T.*\+00:00", each["time"]) for each in told)
    rest = run("watch", *here.options, "--count", "2", "--idle", "0.5")
    assert rest.out.splitlines()[1:] == [f"aggregation {ids[2]}"]
    assert rest.code == 2
    assert "after 1 of 2" in rest.err


def test_watch_downloads(run: Callable[..., Run], here: Place, update: Path) -> None:
    aggregation_id = aggregated(run, here, update)
    done = run("watch", *here.options, "--count", "1", "--download", "-o", "out")
    path = f"out/{aggregation_id}.npy"
    assert done.code == 0
    assert done.out.splitlines()[1:] == [f"aggregation {aggregation_id}", f"downloaded {path}"]
    assert load_file(path, kind="aggregate").num_samples == 7
    assert run("watch", *here.options, "--idle", "0.5").out == "run pause\n"


def test_what_watch_can_not_download_is_told_again(
    run: Callable[..., Run], here: Place, update: Path, tmp_path: Path
) -> None:
    aggregation_id = aggregated(run, here, update)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"version": 1, "parameters": [{"shape": [99]}]}))
    options = [*here.options, "--count", "1", "--format", "json", "--download"]
    done = run("watch", *options, "--schema", schema)
    assert done.code == 1
    assert "BK5" in done.err
    assert [json.loads(text)["event"] for text in done.out.splitlines()] == ["run", "aggregation"]
    again = run("watch", *options)
    assert again.code == 0
    assert json.loads(again.out.splitlines()[-1])["aggregation_id"] == aggregation_id


def test_an_event_that_nobody_read_is_not_done(
    run: Callable[..., Run], here: Place, update: Path
) -> None:
    with watching(*here.options) as process:
        assert line(process) == "run pause"
        assert process.stdout is not None
        process.stdout.close()
        aggregation_id = aggregated(run, here, update)
        assert process.wait(PATIENCE) == 2
        assert process.stderr is not None
        assert process.stderr.read() == ""
    again = run("watch", *here.options, "--count", "1")
    assert again.out.splitlines()[1:] == [f"aggregation {aggregation_id}"]


def test_second_watch_is_refused_and_told_who_has_it(run: Callable[..., Run], here: Place) -> None:
    with watching(*here.options) as process:
        line(process)
        done = run("watch", *here.options)
        assert (done.code, done.out) == (2, "")
        assert f"process {process.pid}" in done.err
        assert run("login", *here.options).code == 0
        ended(process, signal.SIGTERM)


def test_trouble_with_the_broker_is_told_once_a_change(tmp_path: Path) -> None:
    broker = EmbeddedBroker()
    made = place(tmp_path, broker=broker)
    with made.sandbox, watching(*made.options) as process:
        assert line(process) == "run pause"
        assert process.stderr is not None
        broker.stop()
        first = process.stderr.readline()
        assert f"127.0.0.1:{broker.port}" in first
        assert "trying again" in first
        time.sleep(3)  # several tries, none of which is told
        broker.restart()
        assert process.stderr.readline() == "bktransport: notifications come again\n"
        made.sandbox.set_run("start")
        assert line(process) == "run start"
        assert ended(process, signal.SIGTERM) == (143, "", "")


def test_idle_without_a_broker_is_2(run: Callable[..., Run], here: Place) -> None:
    here.sandbox.broker.close()
    done = run("watch", *here.options, "--idle", "0.5", "--deadline", "2")
    assert (done.code, done.out) == (2, "run pause\n")
    trouble, end = done.err.splitlines()
    assert "no connection" in trouble
    assert "no event" in end


# --- sandbox and demo ------------------------------------------------------------------------


def test_sandbox_serves_the_other_commands(run: Callable[..., Run], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bktransport", "sandbox", "--credentials", "made"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert list(ready) == ["http", "amqp"]
            done = run("login", "--credentials", "made/leaf-2.json", "--state", "state")
            assert done.code == 0
            assert ready["amqp"] in done.out
        finally:
            process.terminate()
    assert process.returncode in (0, 143)


def test_demo_shows_the_loop_and_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = child("demo")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert max(map(len, lines)) <= 80
    assert sum("stored as" in text for text in lines) == 6
    assert sum("metrics sent" in text for text in lines) == 6
    assert losses(lines) == sorted(losses(lines), reverse=True)
    assert len(set(losses(lines))) == 4
    assert sorted(tmp_path.rglob("*")) == before


def losses(lines: list[str]) -> list[float]:
    """Of the aggregate: before the first round, and after each."""
    found = [re.findall(r"\d+\.\d+", text) for text in lines if "loss of the aggregate" in text]
    assert all(one[1] == two[0] for one, two in itertools.pairwise(found))
    return [float(found[0][0]), *(float(pair[1]) for pair in found)]


@pytest.mark.parametrize("seed", range(4))
def test_loss_falls_for_any_seed(seed: int) -> None:
    told = losses(list(demo.lines(3, seed)))
    assert told == sorted(set(told), reverse=True)
    assert len(told) == 4


def test_demo_that_fails_is_2_in_a_line(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    done = run("demo")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_demo_has_nothing_to_refuse(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ResponseError("no", 500)

    monkeypatch.setattr(Client, "file_upload", refused)
    done = run("demo")
    assert (done.code, done.err) == (2, "bktransport: no\n")


def test_demo_ends_by_a_signal_without_leavings(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-m", "bktransport", "demo", "--rounds", "1000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line(process)
        assert ended(process, signal.SIGTERM)[::2] == (143, "")
    assert sorted(tmp_path.rglob("*")) == before


# --- secrets ---------------------------------------------------------------------------------


def test_no_secret_in_any_output(here: Place, update: Path, tmp_path: Path) -> None:
    Path("m.json").write_text("{}")
    shown = ""

    def call(*arguments: object) -> None:
        nonlocal shown
        done = child(arguments[0], "-vv", *here.options, *arguments[1:])
        assert "debug" in done.err, done
        shown += done.out + done.err

    call("login")
    call("upload", update, NAN)
    aggregation_id = wait(lambda: done_rounds(here))[0]["aggregation_id"]
    call("watch", "--count", "1", "--download")
    call("download", aggregation_id)
    call("metrics", aggregation_id, "m.json", "--mode", "test")
    call("login", "--port", "1")
    here.sandbox.broker.close()
    call("watch", "--idle", "1")
    assert "pika" in shown
    assert "signature" not in shown
    assert "Traceback" not in shown
    for secret in ("leaf_session_token", "performance_analyser_password"):
        assert here.credentials[secret] not in shown


def test_wrong_token_is_not_shown(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BKTRANSPORT_LEAF_SESSION_TOKEN", "canary-wrong")
    done = child("login", "-vv", *here.options)
    assert done.code == 1
    assert "canary" not in done.out + done.err


# --- what is missing, what fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("requests", ["login", "--leaf-id", "x"]),
        ("pika", ["upload", "x.npy"]),
        ("stamina", ["watch"]),
        ("platformdirs", ["download", "x"]),
        ("werkzeug", ["demo"]),
        ("werkzeug", ["sandbox"]),
        ("requests", ["demo"]),
    ],
)
def test_missing_extra_is_2_and_names_the_command(
    here: Place, library: str, arguments: list[str]
) -> None:
    options = here.options if arguments[0] not in ("demo", "sandbox") else []
    code = f"import sys; sys.modules[{library!r}] = None"
    done = child(*arguments, *options, code=code)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert library in done.err
    assert re.search(r"pip install ['\"]bkformat\[(transport|sandbox)\]['\"]", done.err)


def test_help_needs_no_extra() -> None:
    names = ("requests", "pika", "stamina", "platformdirs", "werkzeug", "urllib3")
    code = f"import sys; sys.modules.update(dict.fromkeys({names}))"
    assert child("--help", code=code).code == 0
    assert child("watch", "--help", code=code).code == 0


def test_internal_errors_are_one_line(
    run: Callable[..., Run], here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("what\x1b[31m")

    monkeypatch.setattr(Client, "authenticate", broken)
    done = run("login", *here.options)
    assert done.code == 2
    assert done.err.startswith("bktransport: internal error")
    assert len(done.err.splitlines()) == 1
    assert "\x1b" not in done.err


def test_state_folder_that_can_not_be_used_is_2(
    run: Callable[..., Run], here: Place, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = run("login", *here.options[:2], "--state", tmp_path / "file")
    assert (done.code, done.out) == (2, "")
    assert "no folder" in done.err


# --- a terminal ------------------------------------------------------------------------------


def start_on_terminal(*arguments: object) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the other side of the terminal behind its standard error."""
    command = [sys.executable, "-m", "bktransport", *map(str, arguments)]
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    return process, master


def until(master: int, wanted: bytes | None) -> bytes:
    """What the terminal got; None: to the end, and close it."""
    shown = b""
    while wanted is None or wanted not in shown:
        try:
            piece = os.read(master, 4096)
        except OSError:  # how a pty says that the other side is closed
            piece = b""
        if not piece:
            assert wanted is None, shown
            os.close(master)
            break
        shown += piece
    return shown


def on_terminal(*arguments: object) -> tuple[int, bytes, bytes]:
    """Exit code, standard output, and what the terminal got."""
    process, master = start_on_terminal(*arguments)
    shown = until(master, None)
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out, shown


def test_progress_bar_on_a_terminal(here: Place, tmp_path: Path) -> None:
    large = an_update(tmp_path / "large.npy", 1 << 20)
    code, out, shown = on_terminal("upload", *here.options, large)
    assert code == 0
    assert out.endswith(b"\n")
    assert b"stored as" in out
    assert b"uploading" in shown
    assert b"100%" in shown
    assert shown.rstrip().endswith(b"\x1b[?25h")  # the cursor is back
    aggregation_id = wait(lambda: done_rounds(here))[0]["aggregation_id"]
    code, out, shown = on_terminal("download", *here.options, aggregation_id)
    assert code == 0
    assert b"downloading" in shown
    assert out == f"aggregated_output/{aggregation_id}.npy\n".encode()


def test_no_bar_for_tiny_files(here: Place, update: Path) -> None:
    code, _, shown = on_terminal("upload", *here.options, update)
    assert (code, shown) == (0, b"")


def test_no_bar_without_a_terminal(here: Place, tmp_path: Path) -> None:
    done = child("upload", *here.options, an_update(tmp_path / "large.npy", 1 << 20))
    assert (done.code, done.err) == (0, "")


def test_bar_is_cleaned_up_on_errors(tmp_path: Path) -> None:
    made = place(tmp_path, fail=["lost-reply"])
    with made.sandbox:
        large = an_update(tmp_path / "large.npy", 1 << 20)
        code, _, shown = on_terminal("upload", *made.options, large)
    assert code == 2
    bar, _, complaint = shown.rpartition(b"\x1b[?25h")
    assert b"uploading" in bar
    assert complaint.lstrip().startswith(b"bktransport: ")


def test_a_signal_cleans_the_bar_up_and_leaves_an_unknown_outcome(
    here: Place, tmp_path: Path
) -> None:
    data = {"data": {"tree_id": "tree", "branch_id": "branch"}}
    large = an_update(tmp_path / "large.npy", 1 << 22)
    with HostileServer(reply(200, data), read_some) as server:
        process, master = start_on_terminal("upload", *here.options, "--host", server.url, large)
        shown = until(master, b"uploading")
        process.send_signal(signal.SIGTERM)
        shown += until(master, None)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert shown.rstrip().endswith(b"\x1b[?25h")
    with Client(here.credentials, state=here.options[3], notifications=False) as client:
        (record,) = client.uploads()
    assert record.state == "unknown"


def read_some(exchange: Exchange) -> None:
    """A megabyte, and then no more."""
    exchange.read_body(1 << 20)
    exchange.wait()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_begins_again_with_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with TransferBar("moving") as bar:
        bar(1 << 20, 2 << 20)
        bar(1 << 10, 2 << 20)
        bar(2 << 20, 2 << 20)
    shown = screen.getvalue()
    assert re.findall(r"\d+%", shown) == ["0%", "50%", "0%", "100%"]
    assert shown.count("\x1b[?25l") >= 2
    assert shown.endswith("\x1b[?25h\n")


@pytest.mark.parametrize("total", [None, 1000])
def test_no_bar_where_it_would_tell_nothing(
    monkeypatch: pytest.MonkeyPatch, total: int | None
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with TransferBar("moving") as bar:
        bar(0, total)
        bar(1000, total)
    with TransferBar("moving", wanted=False) as bar:
        bar(1, 1 << 30)
    assert screen.getvalue() == ""


def test_uploads_lists_the_journal(run: Callable[..., Run], tmp_path: Path) -> None:
    made = place(tmp_path, fail=["lost-reply"])
    paths = [str(an_update(tmp_path / f"{value}.npy", value=value)) for value in (1.0, 2.0)]
    with made.sandbox:
        assert run("upload", *made.options, *paths).code == 2
    told = run("uploads", *made.options)  # the service is away, and is not asked
    assert (told.code, told.err) == (0, "")
    rows = [line.split() for line in told.out.splitlines()]
    assert [row[1] for row in rows] == ["unknown", "stored"]
    lines = run("uploads", *made.options, "--format", "json").out.splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["sha256"] for record in records] == [row[2] for row in rows]
    assert records[1]["file_id"] == rows[1][3]
