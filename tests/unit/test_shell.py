"""How command lines end, whatever the code below them does."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_COMMAND = """
import sys, time, weakref
import click
from bkformat import shell

@click.group()
def cli():
    pass

class Thing:
    pass

def slow():
    click.echo("ready")
    time.sleep(60)

@cli.command()
def swallow():
    for _ in range(3):
        try:
            slow()
        except BaseException:
            pass
    time.sleep(60)

@cli.command()
def finalize():
    thing = Thing()
    weakref.finalize(thing, slow)
    del thing
    time.sleep(60)

@cli.command()
def replace():
    try:
        slow()
    finally:
        raise OSError("the disk is full")

shell.run(cli, "program", sys.argv[1:])
"""


def end(command: str, number: int) -> tuple[int, str]:
    """Exit code and standard error after one signal."""
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, err


@pytest.mark.parametrize("command", ["swallow", "finalize"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_not_lost_where_exceptions_are(command: str, number: int) -> None:
    assert end(command, number) == (128 + number, "")


def test_an_error_on_the_way_out_is_told() -> None:
    assert end("replace", signal.SIGTERM) == (2, "program: the disk is full\n")
