"""A private RabbitMQ node: own folder, ports, name, cookie and port mapper, gone when closed.

The server's script is called directly: Debian's wrapper of the same name changes to the user
`rabbitmq` and writes below /var. `RUNNING_UNDER_SYSTEMD` makes that script become the Erlang
virtual machine rather than stay as its parent, so the process id we hold is the one to kill. On
Linux all ends with the thread that made the node, even where the tests are killed.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import requests
import trustme

__all__ = ["RabbitNode", "find"]

USER = "sandbox-admin"
_DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_TRIES = 3
_START_SECONDS = 120.0  # generous: 3 to 6 are usual
_STOP_SECONDS = 30.0


def find() -> tuple[Path | None, str]:
    """The server's start script, or None; and where it is, or why there is none."""
    on_path = shutil.which("rabbitmq-server")
    server = _DEBIAN if _DEBIAN.exists() else Path(on_path) if on_path else None
    if server is None:
        return None, f"no rabbitmq-server on PATH nor at {_DEBIAN}"
    for needed in ("erl", "epmd"):
        if shutil.which(needed) is None:
            return None, f"{server} is there, but no {needed} on PATH"
    return server, str(server)


class RabbitNode:
    """A RabbitMQ node on free loopback ports, with its management API, for tests.

    Attributes:
        amqp_url: plain AMQP, with the administrator's name and password.
        amqps_url: the same over TLS; `cafile` holds the private authority's certificate.
        management_url: of the HTTP API, without credentials; its port is the AMQP port + 10000.
        folder: everything of the node: data, logs, configuration.
        log: what the node printed.
    """

    def __init__(self, *, consumer_timeout: float | None = None, management: bool = True) -> None:
        """Starts the node and waits until it answers.

        Args:
            consumer_timeout: seconds that a consumer may leave a message unacknowledged before its
                channel is closed (looked at every second); None leaves RabbitMQ's 30 minutes.
            management: enable the management plugin.
        """
        server, reason = find()
        if server is None:
            raise RuntimeError(reason)
        self._server = server
        self._consumer_timeout = consumer_timeout
        self._management = management
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self.user = USER
        self.password = secrets.token_hex(12)
        self.folder = Path(tempfile.mkdtemp(prefix="rabbit-")).resolve()
        self.log = self.folder / "printed"
        self.cafile = self.folder / "ca.pem"
        try:
            self._write_certificates()
            self._start_on_free_ports()
        except BaseException:
            self.close()
            raise

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.cafile)
        server = authority.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(self.folder / "key.pem")
        server.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")

    def _start_on_free_ports(self) -> None:
        # Ports are found free, let go and taken again by the node: somebody may come between.
        for left in reversed(range(_START_TRIES)):
            self._choose_ports()
            self._write_configuration()
            try:
                self.start()
            except RuntimeError:
                self.close_processes()
                if not left:
                    raise
            else:
                return

    def _choose_ports(self) -> None:
        self.port, self.management_port = _free_ports(0, 10000)
        self.tls_port, self._distribution_port, self._epmd_port = (
            _free_ports(0)[0] for _ in range(3)
        )
        login = f"{self.user}:{self.password}@127.0.0.1"
        self.amqp_url = f"amqp://{login}:{self.port}/"
        self.amqps_url = f"amqps://{login}:{self.tls_port}/"
        self.management_url = f"http://127.0.0.1:{self.management_port}"

    def _write_configuration(self) -> None:
        folder = self.folder
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {self.cafile}",
            f"ssl_options.certfile = {folder / 'cert.pem'}",
            f"ssl_options.keyfile = {folder / 'key.pem'}",
            "ssl_options.verify = verify_none",
            f"default_user = {self.user}",
            f"default_pass = {self.password}",
            "vm_memory_high_watermark.absolute = 512MiB",
            "disk_free_limit.absolute = 10MB",  # a full machine must not block publishers
        ]
        if self._management:
            lines += ["management.tcp.ip = 127.0.0.1"]
            lines += [f"management.tcp.port = {self.management_port}"]
        if self._consumer_timeout is not None:
            lines += [f"consumer_timeout = {round(self._consumer_timeout * 1000)}"]
        # How often consumer_timeout is looked at has no name in the newer form of configuration.
        advanced = "[{rabbit, [{channel_tick_interval, 1000}]}]."
        (folder / "advanced.config").write_text(advanced, "utf-8")
        (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        plugins = "[rabbitmq_management]." if self._management else "[]."
        (folder / "enabled_plugins").write_text(plugins, "utf-8")
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(16), "utf-8")
            cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-environment.conf"),
            "RABBITMQ_NODENAME": f"test-{self._epmd_port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +A 4"
            ),
        }

    def start(self) -> None:
        """Starts the node on the ports and data it had before, and waits until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of what it printed.
        """
        if self._node is not None:
            raise RuntimeError("the node is running: call stop() or kill() first")
        environment = self._environment()
        if self._epmd is None:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = self._spawn(command, environment)
            _wait_for_port(self._epmd_port, self._epmd)
        self._node = self._spawn([str(self._server)], environment)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start: {self._complaints()}")
            time.sleep(0.1)

    def _complaints(self) -> str:
        printed = self.log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in printed if "[error]" in line]
        return "\n".join(errors[:20] or printed[-20:])

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*_die_with_us(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the tests; they stop it
            )

    def _answers(self) -> bool:
        if not (_listens(self.port) and _listens(self.tls_port)):
            return False
        if not self._management:
            return True
        try:
            with requests.Session() as session:
                session.trust_env = False
                login = (self.user, self.password)
                url = f"{self.management_url}/api/overview"
                return session.get(url, auth=login, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    @property
    def pid(self) -> int | None:
        """Of the Erlang virtual machine, or None where it does not run."""
        return None if self._node is None else self._node.pid

    def kill(self) -> None:
        """SIGKILL, as the machine's fate would have it; `start()` brings the node back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stops the node in good order; `start()` brings it back."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._node is None:
            return
        children = _descendants(self._node.pid)
        self._node.send_signal(how)
        try:
            self._node.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._node.kill()
            self._node.wait()
        self._node = None
        _wait_for_end(children)

    def close_processes(self) -> None:
        self._end(signal.SIGKILL)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def close(self) -> None:
        """Ends everything that was started, and removes the folder."""
        self.close_processes()
        shutil.rmtree(self.folder)

    def __enter__(self) -> RabbitNode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _die_with_us() -> list[str]:
    """What, on Linux, ends the process that follows when the thread that started it dies."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _free_ports(*offsets: int) -> list[int]:
    # Below the ports that systems give to outgoing connections, so that none takes it meanwhile.
    for _ in range(1000):
        first = random.randrange(10240, 22000)
        ports = [first + offset for offset in offsets]
        if all(_is_free(port) for port in ports):
            return ports
    raise RuntimeError("no free ports on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not listen")
        time.sleep(0.01)


def _processes() -> list[tuple[int, int]]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return [(int(pid), int(parent)) for pid, parent in rows]


def _descendants(pid: int) -> set[int]:
    """The helpers that a virtual machine starts: for name look-ups, ports and disk figures."""
    processes = _processes()
    found = {pid}
    while more := {child for child, parent in processes if parent in found} - found:
        found |= more
    return found - {pid}


def _wait_for_end(pids: set[int]) -> None:
    """Helpers end when the pipe to their machine does; one that stays is ended."""
    deadline = time.monotonic() + 5
    while pids := pids & {pid for pid, _ in _processes()}:
        if time.monotonic() > deadline:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)
