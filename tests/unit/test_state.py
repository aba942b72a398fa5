"""bktransport.state: the folder is ours alone, and one client's at a time."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bktransport.errors import StateError
from bktransport.state import StateFolder, default_state

_HOLDER = """
import sys
import tempfile
from bktransport.state import StateFolder
folder = StateFolder(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""

# Said from Python 3.12 on if any thread is left of another test; the child does next to nothing.
_FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_folders_and_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "some" / "leaf"
    with StateFolder(path) as folder:
        made = folder.file("x.sqlite3")
    assert (_mode(path.parent), _mode(path), _mode(made), _mode(path / "lock")) == (
        0o700, 0o700, 0o600, 0o600,
    )  # fmt: skip


def test_default_is_named_by_the_leaf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = default_state("leaf-1")
    assert path.parts[-2:] == ("bktransport", "leaf-1")
    for bad in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="leaf_id"):
            default_state(bad)


def test_a_second_client_of_this_process_is_refused(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s"):
        with pytest.raises(StateError, match=rf"in use by process {os.getpid()} \(this one\)"):
            StateFolder(tmp_path / "s")
        StateFolder(tmp_path / "s", lock=False).close()
    StateFolder(tmp_path / "s").close()


def test_the_other_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, tmp_path / "s"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.curdir},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=rf"in use by process {other.pid}:"):
            StateFolder(tmp_path / "s")
        other.send_signal(signal.SIGKILL)
        other.wait()
    StateFolder(tmp_path / "s").close()


@_FORKS
def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "s")
    here, there = multiprocessing.Pipe()

    def wait() -> None:
        there.send("running")
        there.recv()

    child = multiprocessing.get_context("fork").Process(target=wait)
    child.start()
    try:
        assert here.recv() == "running"
        with pytest.raises(StateError):  # what the child closed does not free it
            StateFolder(tmp_path / "s")
        folder.close()
        StateFolder(tmp_path / "s").close()
    finally:
        folder.close()
        here.send(None)
        child.join()
        child.close()
        here.close()
        there.close()


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "link/", "dangling"):
        with pytest.raises(StateError, match="symbolic link"):
            StateFolder(f"{tmp_path}/{name}")
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "real").iterdir()) == []


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(StateError, match="no folder"):
        StateFolder(tmp_path / "s")
    with pytest.raises(StateError, match="name a folder that can be written"):
        StateFolder(tmp_path / "s" / "below")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_foreign_owner_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    StateFolder(tmp_path / "s").close()
    foreign = tmp_path / "s" if what == "folder" else tmp_path / "s" / "lock"
    if os.geteuid() == 0:
        os.chown(foreign, 12345, -1)
        match = "belongs to user 12345"
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        match = "belongs to user"
    with pytest.raises(StateError, match=match):
        StateFolder(tmp_path / "s")


def test_a_folder_open_to_others_is_closed_if_it_holds_nothing_else(tmp_path: Path) -> None:
    StateFolder(tmp_path / "s").close()
    (tmp_path / "s").chmod(0o755)
    (tmp_path / "s" / "lock").chmod(0o644)
    StateFolder(tmp_path / "s").close()
    assert (_mode(tmp_path / "s"), _mode(tmp_path / "s" / "lock")) == (0o700, 0o600)


def test_somebody_s_home_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(StateError, match="chmod 700"):
        StateFolder(tmp_path / "home")
    assert _mode(tmp_path / "home") == 0o755
    (tmp_path / "home").chmod(0o700)
    StateFolder(tmp_path / "home").close()


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_what_lies_in_a_file_s_place_is_refused(tmp_path: Path, kind: str) -> None:
    folder = StateFolder(tmp_path / "s")
    victim, path = tmp_path / "victim", tmp_path / "s" / "x.sqlite3"
    victim.write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(StateError, match=r"x\.sqlite3 in it is no file of its own"):
        folder.file("x.sqlite3")
    folder.close()
    assert victim.read_bytes() == b"precious"


def _told_to_nobody(path: Path, lock: bool) -> str:
    """What a user without root's powers is told."""
    here, there = multiprocessing.get_context("fork").Pipe()

    def attempt() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            StateFolder(path, lock=lock)
            there.send("nothing")
        except StateError as exc:
            there.send(str(exc))

    child = multiprocessing.get_context("fork").Process(target=attempt)
    child.start()
    told = str(here.recv())
    child.join()
    child.close()
    here.close()
    there.close()
    return told


@_FORKS
@pytest.mark.parametrize("lock", [True, False])
def test_a_folder_without_write_permission_is_refused(lock: bool) -> None:
    # Below TMPDIR, or below pytest's own folder, nobody but root may have a way in.
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        path = Path(parent) / "s"
        path.mkdir()
        if os.geteuid() == 0:
            os.chown(parent, 65534, -1)
            os.chown(path, 65534, -1)
        path.chmod(0o500)
        wanted = "Permission denied: name a folder that can be written"
        assert wanted in _told_to_nobody(path, lock)
        assert wanted in _told_to_nobody(path / "below", lock)
        path.chmod(0o700)
        assert _told_to_nobody(path / "below", lock) == "nothing"


def test_messages_are_one_line_with_the_whole_path(tmp_path: Path) -> None:
    path = tmp_path / ("x\n\x1b[31m" + "y" * 200)
    path.touch()
    with pytest.raises(StateError) as caught:
        StateFolder(path)
    assert str(caught.value).isprintable()
    assert "y" * 200 in str(caught.value)
