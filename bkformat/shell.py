"""What command lines share: whatever happens, they end with a line at most, and an exit code.

0: done. 1: what was asked for is refused. 2: trouble. 130, 129 and 143: ended by Ctrl-C, SIGHUP and
SIGTERM, after the stack was unwound, so that temporary files are gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import click

from bkformat.escape import printable
from bkformat.render import describe_trouble

__all__ = ["SETTINGS", "Commands", "Refused", "complain", "run", "version_option", "write"]

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
_NUMPY_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Commands(click.Group):
    """Subcommands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Refused(click.ClickException):
    """The input is refused, in one line."""

    exit_code = 1


class _Ended(BaseException):
    """The process was told to end; temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _PipeClosed(Exception):  # noqa: N818  (no error: the reader has had enough)
    """Standard output was closed; click would end a BrokenPipeError with 1, which means refused."""


def version_option(program: str) -> Callable[[_Function], _Function]:
    """The option --version; all programs come with one distribution."""

    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            from importlib.metadata import version

            click.echo(f"{program} {version('bkformat')}")
            ctx.exit()

    return click.option("--version", is_flag=True, is_eager=True, expose_value=False,
                        help="Show the version.", callback=show)  # fmt: skip


def run(
    commands: click.Group,
    program: str,
    arguments: list[str] | None,
    own_errors: Callable[[Exception], click.ClickException | None] = lambda _: None,
) -> NoReturn:
    """Run a command line and end the process.

    Args:
        commands: the group.
        program: its name, which stands in front of every complaint.
        arguments: those after the program's name; None takes the process's.
        own_errors: how an exception that only this program knows is told, or None.
    """
    for name in _NUMPY_THREADS:  # numpy's own threads only get in the way of ours
        os.environ.setdefault(name, "1")
    _end_by_exceptions()
    try:
        code = commands.main(arguments, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except _Ended as exc:
        code = 128 + exc.number
    except (click.Abort, KeyboardInterrupt):
        complain(program, "interrupted")
        code = 130
    except (BrokenPipeError, _PipeClosed):
        # Whoever read our output has had enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 2
    except Exception as exc:  # noqa: BLE001  (a person gets a line, never a traceback)
        code = _tell(program, own_errors(exc) or exc)
    sys.exit(code)


def _tell(program: str, error: Exception) -> int:
    """Say what happened; the exit code."""
    if isinstance(error, click.UsageError):
        error.show()
        return 2
    if isinstance(error, click.ClickException):
        complain(program, error.format_message())
        return error.exit_code if isinstance(error, Refused) else 2
    if isinstance(error, OSError):
        complain(program, f"{_name_of(error)}{describe_trouble(error)}")
        return 2
    what = f"{type(error).__name__}: {printable(str(error))}"
    complain(program, f"internal error, please report it: {what}")
    return 2


def _end_by_exceptions() -> None:
    """SIGTERM and SIGHUP unwind the stack, as Ctrl-C does; an ignored one stays ignored."""

    def end(number: int, _: object) -> None:
        raise _Ended(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with contextlib.suppress(ValueError):  # in a thread other than the main one
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)


def complain(program: str, message: str) -> None:
    """A line on standard error."""
    click.echo(f"{program}: {message}", err=True)


def _name_of(error: OSError) -> str:
    return f"{printable(os.fsdecode(error.filename))}: " if error.filename is not None else ""


def write(pieces: Iterable[str]) -> None:
    """Write to standard output and flush it, whatever the terminal's encoding can show."""
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        for piece in pieces:
            sys.stdout.write(piece)
        sys.stdout.flush()
    except BrokenPipeError as exc:
        raise _PipeClosed from exc
