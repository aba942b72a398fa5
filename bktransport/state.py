"""The state folder of one leaf: ours alone, and used by one client at a time.

    lock              held by the client that receives notifications; holds its process id
    inbox.sqlite3     what the broker told (inbox)
    outbox.sqlite3    what was uploaded (journal)
    sender-*.lock     held while a process may be uploading (journal)

The folder has mode 0700, its files 0600. Locks are `flock`: they fall with the process, however it
ends, and hold against a second client of the same process too. What Windows would need otherwise
(owners, modes, `flock`) is here and nowhere else.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import weakref
from pathlib import Path
from typing import NoReturn

import platformdirs

from bktransport.errors import StateError
from bktransport.messages import checked_id

__all__ = ["HeldFile", "StateFolder", "default_state"]

_LOG = logging.getLogger("bktransport")

_OURS = (".lock", ".sqlite3", ".sqlite3-journal", ".sqlite3-wal", ".sqlite3-shm")


def default_state(leaf_id: str) -> Path:
    """Where a leaf's state lies if the caller names no folder.

    Raises:
        ValueError: `leaf_id` is no plain name.
    """
    return platformdirs.user_state_path("bktransport", appauthor=False) / checked_id(
        leaf_id, "leaf_id"
    )


class HeldFile:
    """A file that is locked until `close`, or until this process ends.

    A process that is forked off does not keep it locked.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _held.add(self)

    def close(self) -> None:
        """Let go of it; the file stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


_held: weakref.WeakSet[HeldFile] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # Closing the copy does not unlock: the parent's descriptor still holds the lock.
    for held in list(_held):
        held.close()


os.register_at_fork(after_in_child=_let_go_in_child)


class StateFolder:
    """A folder that only this user can enter, made where it is missing.

    Args:
        path: the folder. One that others can enter is closed to them if nothing but our files is
            in it, and refused otherwise: it may be somebody's home.
        lock: False for a process that only notes its uploads while another one receives
            notifications.

    Raises:
        StateError: another client has it (the message names its process), it is a symbolic link or
            belongs to another user, or nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock: bool = True) -> None:
        self.path = Path(os.path.abspath(path))
        self._lock: HeldFile | None = None
        try:
            _make(self.path)
            self._check()
            self.file("lock")
            if lock:
                self._lock = self.hold("lock")
        except OSError as exc:
            self._refuse(f"{exc.strerror or exc}: name a folder that can be written", exc)
        if lock and self._lock is None:
            self._refuse(f"in use by {self._holder()}: close that client, or name another folder")

    def file(self, name: str) -> Path:
        """Path of a file of ours in the folder, made where it is missing.

        Raises:
            OSError: it can't be made.
            StateError: something else lies there.
        """
        path = self.path / name
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                # Looked at without opening it: closing any descriptor of a database would drop the
                # locks that SQLite holds on it in this process.
                try:
                    self._check_file(name, os.lstat(path))
                except FileNotFoundError:
                    continue
                return path
            try:
                os.fchmod(fd, 0o600)  # whatever the umask took
                os.fsync(fd)
            finally:
                os.close(fd)
            self._keep_names()
            return path

    def hold(self, name: str) -> HeldFile | None:
        """Lock a file of the folder and write the process id to it; None if another holds it.

        Raises:
            OSError: locks do not work there.
        """
        fd = os.open(self.file(name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return HeldFile(fd)

    def is_held(self, name: str) -> bool:
        """Whether a living process (this one too) holds the file."""
        try:
            fd = os.open(self.path / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def close(self) -> None:
        """Let another client have the folder."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check(self) -> None:
        found = os.lstat(self.path)
        if stat.S_ISLNK(found.st_mode):
            self._refuse("it is a symbolic link: name the folder itself")
        if not stat.S_ISDIR(found.st_mode):
            self._refuse("it is no folder: name another")
        if found.st_uid != os.geteuid():
            self._refuse(f"it belongs to user {found.st_uid}: name a folder of your own")
        if stat.S_IMODE(found.st_mode) & 0o077:
            if not all(name == "lock" or name.endswith(_OURS) for name in os.listdir(self.path)):
                self._refuse("other users can enter it: chmod 700 it, or name a folder of its own")
            os.chmod(self.path, 0o700)
            _LOG.warning("state folder %s: closed to other users", ascii(str(self.path)))

    def _check_file(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            self._refuse(f"{name} in it is no file of its own: move it away")
        if found.st_uid != os.geteuid():
            self._refuse(f"{name} in it belongs to user {found.st_uid}: move it away")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(self.path / name, 0o600)

    def _keep_names(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _holder(self) -> str:
        try:
            pid = int((self.path / "lock").read_bytes()[:20])
        except (OSError, ValueError):
            return "another process"
        return f"process {pid}" + (" (this one)" if pid == os.getpid() else "")

    def _refuse(self, why: str, cause: OSError | None = None) -> NoReturn:
        raise StateError(f"state folder {str(self.path)!a}: {why}") from cause


def _make(path: Path) -> None:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        os.chmod(folder, 0o700)  # whatever the umask took
