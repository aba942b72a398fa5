"""The commands that write files: build, repair, convert.

0: the file was written. 1: the input was refused. 2: trouble. In the last two nothing was written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bkformat.escape import printable
from bkformat.shell import Refused

if TYPE_CHECKING:
    from bkformat.schema import UpdateSchema

__all__ = ["build", "convert", "nbytes_option", "repair"]

_DTYPES = click.Choice(
    ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
     "int64", "uint64", "bool"]
)  # fmt: skip


def nbytes_option(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """A number of bytes, or None."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        message = f"{printable(text)!r} is no number of bytes, such as 1073741824 for 1 GiB."
        raise click.BadParameter(message)
    return int(text)


_MAX_SIZE = click.option(
    "--max-size", callback=nbytes_option, metavar="BYTES",
    help="Write nothing larger  [default: 8 times the input, at least 256 MiB]",
)  # fmt: skip
_COUNT = click.IntRange(min=1, max=2**53)


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """What is wrong with an input, as the end of the command."""
    from bkformat.errors import InvalidSchemaError, InvalidSourceError, InvalidUpdateError

    try:
        yield
    except InvalidUpdateError as exc:
        click.echo(f"{printable(path)}: {exc.report}")
        raise click.exceptions.Exit(1) from exc
    except InvalidSourceError as exc:
        raise Refused(printable(f"{path}: {exc}")) from exc
    except (InvalidSchemaError, ValueError) as exc:
        raise click.ClickException(printable(str(exc))) from exc


def _schema(path: str | None) -> UpdateSchema | None:
    if path is None:
        return None
    from bkformat.schema import load_schema

    return load_schema(path)


@click.command()
@click.argument("source", metavar="SOURCE")
@click.option("--num-samples", type=_COUNT, required=True, metavar="N",
              help="Samples behind the update.")  # fmt: skip
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="The update to write.")
@click.option("--dtype", type=_DTYPES, metavar="DTYPE",
              help="Convert every array to this dtype, even if that loses something.")  # fmt: skip
@click.option("--schema", metavar="FILE", help="Schema that the update must fit; its names order.")
@click.option("--write-schema", metavar="FILE", help="Write the names, dtypes and shapes too.")
@_MAX_SIZE
def build(
    source: str, num_samples: int, out: str, dtype: str | None, schema: str | None,
    write_schema: str | None, max_size: int | None,
) -> int:  # fmt: skip
    """Build an update of the arrays in SOURCE.

    SOURCE is an .npz, a .safetensors or a folder of .npy files, which are taken in the order of the
    numbers in their names. OUT is written in canonical form, and replaced in one step.
    """
    from bkformat.from_files import build_file

    if write_schema is not None:
        _check_apart(write_schema, source, out)
    with _refusing(source):
        built = build_file(
            source, out, num_samples, dtype=dtype, schema=_schema(schema), max_size=max_size
        )
        if built.note:
            click.echo(f"bkformat: {printable(source)}: {built.note}", err=True)
        if write_schema is not None:
            built.write_schema(write_schema)
    click.echo(f"{printable(out)}: {built.report}")
    return 0


def _check_apart(schema: str, source: str, out: str) -> None:
    """The schema must go to a place of its own that can be written, before anything is."""
    place = os.path.realpath(schema)
    inputs = os.path.realpath(source)
    if place in (inputs, os.path.realpath(out)) or os.path.dirname(place) == inputs:
        raise click.UsageError("--write-schema names the source or the output")
    folder = os.path.dirname(place)
    if os.path.isdir(place) or not os.access(folder, os.W_OK):
        raise click.ClickException(f"{printable(schema)}: a file can't be written there")


@click.command()
@click.argument("path", metavar="IN")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="The file to write.")
@_MAX_SIZE
def repair(path: str, out: str, max_size: int | None) -> int:
    """Rewrite what can be put right without guessing.

    Protocol 2 files of numpy 1.16 and Python 2, numpy integers as count, tuples, numpy scalars in
    the list, big-endian and shared arrays, and every valid form become canonical; values stay the
    same bit for bit. A float count, NaN or a wrong shape stays refused. IN is never touched.
    """
    from bkformat.repair import repair_file

    with _refusing(path):
        report = repair_file(path, out, max_size=max_size)
    click.echo(f"{printable(out)}: {report.after}\n{report}")
    return 0


@click.command()
@click.argument("path", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--num-samples", type=_COUNT, metavar="N",
              help="For an IN without a count, such as an aggregate in .npz.")  # fmt: skip
@click.option("--schema", metavar="FILE", help="Schema that names the arrays, for .safetensors.")
@_MAX_SIZE
def convert(
    path: str, out: str, num_samples: int | None, schema: str | None, max_size: int | None
) -> int:
    """Convert between .npy, .npz and .safetensors.

    .npz is that of BranchKey 2.9 and 3.x: weighting, layer_0, layer_1, ...

    The suffixes of IN and OUT say which. Values stay the same bit for bit; nothing is unpickled.
    """
    from bkformat.convert import convert_file

    with _refusing(path):
        done = convert_file(
            path, out, num_samples=num_samples, schema=_schema(schema), max_size=max_size
        )
    count = f", num_samples {done.num_samples:,}" if done.num_samples is not None else ""
    arrays = f"{done.num_parameters:,} array{'s' if done.num_parameters != 1 else ''}"
    click.echo(f"{printable(out)}: {done.kind}{count}, {arrays}, {done.nbytes:,} bytes")
    return 0
