"""The command line: options to plain values, one call, one renderer, an exit code.

0: every file is valid. 1: at least one is refused. 2: something could not be judged.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from bkformat import shell
from bkformat.cli_write import build, convert, nbytes_option, repair
from bkformat.escape import printable
from bkformat.render import FORMATS, Entry, Tally, describe_trouble

if TYPE_CHECKING:
    from bkformat.findings import Report
    from bkformat.layout import Kind
    from bkformat.rules import Rule
    from bkformat.schema import UpdateSchema

__all__ = ["main"]

_KINDS = click.Choice(["update", "aggregate"])


@click.group(cls=shell.Commands, context_settings=shell.SETTINGS)
@shell.version_option("bkformat")
def cli() -> None:
    """Write, validate and inspect federated-learning updates without ever executing them.

    Exit codes: 0 every file is valid, 1 at least one is refused, 2 something could not be judged.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script's entry point."""
    shell.run(cli, "bkformat", arguments)


def _complain(message: str) -> None:
    shell.complain("bkformat", message)


# --- validate --------------------------------------------------------------------------------


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--schema", metavar="FILE", help="Schema that each file must fit.")
@click.option("--against", metavar="FILE", help="Update or aggregate whose arrays each must match.")
@click.option("--kind", type=_KINDS, default="update", show_default=True,
              help="What the files are; an aggregate may lack num_samples.")  # fmt: skip
@click.option("--values/--no-values", default=True, help="Look at every value (default), or none.")
@click.option("--strict", is_flag=True, help="Refuse files with warnings too.")
@click.option("--sha256", is_flag=True, help="Give the digest of each file.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text",
              show_default=True, help="How to report.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=1, metavar="N", show_default=True,
              help="Use N processes for many files, N threads for large ones.")  # fmt: skip
@click.option(
    "--max-size", callback=nbytes_option, metavar="BYTES", help="Do not judge larger files."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of valid files; no progress bar.")
def validate(
    paths: tuple[str, ...], schema: str | None, against: str | None, kind: str, form: str,
    jobs: int, quiet: bool, **options: Any,
) -> int:  # fmt: skip
    """Judge update files: structure, schema and every value.

    A PATH may be a folder (every .npy file below it) or - (standard input).
    """
    from bkformat.files import expand, judge_paths

    if [*paths, against].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    progress = _Progress(paths, wanted=not quiet)
    options |= {"kind": kind, "progress": progress.add}
    options["schema"] = _schema(schema, against, values=options["values"])
    tally = Tally()
    outcomes = judge_paths(expand(paths, _skipped), jobs=jobs, options=options)
    entries = progress.follow(_complaining(outcomes))
    shell.write(FORMATS[form](entries, tally, quiet))
    return tally.exit_code()


def _skipped(path: str) -> None:
    _complain(f"{printable(path)}: a linked folder, skipped; name it to judge what is in it")


def _complaining(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Pass entries on; trouble goes to standard error as well."""
    for entry in entries:
        if isinstance(entry.outcome, OSError):
            _complain(f"{printable(entry.path)}: {describe_trouble(entry.outcome)}")
        yield entry


def _schema(
    path: str | None, against: str | None = None, *, values: bool = True
) -> UpdateSchema | None:
    from bkformat.errors import InvalidSchemaError

    if path is not None and against is not None:
        raise click.UsageError("--schema and --against exclude each other")
    if against is not None:
        return _inferred(against, values=values)
    if path is None:
        return None
    from bkformat.schema import load_schema

    try:
        return load_schema(path)
    except InvalidSchemaError as exc:
        raise click.ClickException(printable(str(exc))) from exc


def _inferred(path: str, *, values: bool) -> UpdateSchema:
    """The schema of a reference file, which must be valid itself."""
    from bkformat.schema import infer_schema

    report = _judge_reference(path, values=values)
    if not report.valid or report.layout is None:
        message = _no_schema(path, report)
        if path.lower().endswith(".json"):
            message += "; --schema takes a schema file"
        raise click.ClickException(message)
    return infer_schema(report.layout)


def _judge_reference(path: str, *, values: bool = True) -> Report:
    """The report on a file that a schema is to be inferred from."""
    from bkformat.files import source_at
    from bkformat.schema import any_dtype
    from bkformat.validate import judge

    with source_at(path) as source:
        return judge(source, any_dtype(), None, values).report


def _no_schema(path: str, report: Report) -> str:
    return f"{printable(path)} gives no schema: {printable(report.summary())}"


# --- inspect ---------------------------------------------------------------------------------


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--schema", metavar="FILE", help="Schema that names the arrays and is compared.")
@click.option("--kind", type=_KINDS, help="What the files are, instead of what they look like.")
@click.option("--stats", is_flag=True, help="Read every value: min, max, mean, std, norm, zeros.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="How to report.")  # fmt: skip
def inspect(
    paths: tuple[str, ...], schema: str | None, kind: Kind | None, stats: bool, form: str
) -> int:
    """Show what update files hold and who wrote them.

    A refused file is described as far as it was readable. A PATH may be a folder or - (standard
    input). Values are read for --stats alone.
    """
    from bkformat.files import expand, inspect_paths
    from bkformat.inspection import inspect_json, inspect_text

    tally = Tally()
    items = inspect_paths(expand(paths, _skipped), schema=_schema(schema), kind=kind, stats=stats)
    renderer = inspect_json if form == "json" else inspect_text

    def complaining() -> Iterator[Any]:
        for item in items:
            list(_complaining([item.entry]))
            yield item

    shell.write(renderer(complaining(), tally))
    return tally.exit_code()


# --- diff ------------------------------------------------------------------------------------


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--schema", metavar="FILE", help="Schema that names the arrays of A.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="How to report.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Say nothing; stop at the first difference.")
def diff(a: str, b: str, schema: str | None, form: str, quiet: bool) -> int:
    """Compare two updates or aggregates: structure, then every value.

    A or B may be - (standard input). Byte forms and memory orders do not matter.

    Exit codes: 0 equal, 1 different, 2 trouble.
    """
    from bkformat.diff import diff_sources, sources_equal
    from bkformat.diff_report import diff_json, diff_text
    from bkformat.errors import InvalidUpdateError
    from bkformat.files import source_at

    if a == b == "-":
        raise click.UsageError("standard input (-) can be read only once")
    named = _schema(schema)
    names = [spec.name for spec in named.parameters or ()] if named else []
    try:
        with source_at(a) as source_a, source_at(b) as source_b:
            if quiet:
                return 0 if sources_equal(source_a, source_b, a, b) else 1
            found = diff_sources(source_a, source_b, a, b)
    except InvalidUpdateError as exc:
        trouble = f"can't be compared: {printable(exc.report.summary())}"
        raise click.ClickException(f"{printable(exc.path or '')} {trouble}") from exc
    shell.write((diff_json if form == "json" else diff_text)(found, a, b, names))
    return 0 if found.equal else 1


# --- schema ----------------------------------------------------------------------------------


@cli.command()
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--json-schema", is_flag=True, help="Print the JSON Schema of schema files.")
def schema(file: str | None, json_schema: bool) -> int:
    """Print the schema that a FILE fits exactly.

    FILE is an update or aggregate, or - for standard input.
    """
    if json_schema == (file is not None):
        raise click.UsageError("give either a FILE or --json-schema")
    if json_schema:
        import json

        from bkformat import schema as schemas

        click.echo(json.dumps(schemas.json_schema(), indent=2))
        return 0
    from bkformat.schema import infer_schema

    report = _judge_reference(file or "")
    if not report.valid or report.layout is None:
        _complain(_no_schema(file or "", report))
        return 1
    click.echo(infer_schema(report.layout).to_json(), nl=False)
    return 0


# --- build, repair, convert ------------------------------------------------------------------

for command in (build, repair, convert):
    cli.add_command(command)


# --- rules -----------------------------------------------------------------------------------


@cli.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text",
              show_default=True, help="How to list them.")  # fmt: skip
def rules(form: str) -> None:
    """List every rule: its code, its name and what breaks it."""
    import json
    from itertools import groupby

    from bkformat.rules import FAMILIES, RULES, WARNING

    if form == "json":
        listed = [rule._asdict() for rule in RULES.values()]
        click.echo(json.dumps({"version": 1, "rules": listed}, indent=2))
        return
    for family, members in groupby(RULES.values(), key=lambda rule: rule.code[:3]):
        click.echo(f"{family}xx: {FAMILIES[family]}")
        for rule in members:
            mark = " (warning)" if rule.severity == WARNING else ""
            click.echo(f"  {rule.code} {rule.name}{mark}")
            click.echo(click.wrap_text(rule.what, 80, " " * 8, " " * 8))


@cli.command()
@click.argument("codes", nargs=-1, required=True, metavar="CODE...")
def explain(codes: tuple[str, ...]) -> None:
    """Explain rules: what, why, an example, how to fix.

    A CODE is a code such as BK203, or a name such as foreign-global.
    """
    for index, rule in enumerate([_rule(code) for code in codes]):
        click.echo("\n" if index else "", nl=False)
        _explain(rule)


def _rule(code: str) -> Rule:
    from bkformat.rules import RULES

    by_name = {rule.name: rule for rule in RULES.values()}
    rule = RULES.get(code.upper()) or RULES.get(f"BK{code}") or by_name.get(code)
    if rule is None:
        message = f"no rule is called {printable(code)!r}; `bkformat rules` lists them"
        raise click.ClickException(message)
    return rule


def _explain(rule: Rule) -> None:
    click.echo(f"{rule.code} {rule.name} ({rule.severity})\n")
    for head, text in (
        ("what", rule.what), ("why", rule.why), ("example", rule.example), ("fix", rule.fix),
        ("source", rule.source),
    ):  # fmt: skip
        click.echo(click.wrap_text(text, 80, f"{head:<9}", " " * 9))


# --- progress --------------------------------------------------------------------------------

_LONG_NBYTES = 1 << 30
_LONG_FILES = 500


class _Progress:
    """A bar on standard error, on a terminal and for long work alone.

    While there is one, results are held back until the end, so that the two do not mix.
    """

    def __init__(self, paths: tuple[str, ...], *, wanted: bool) -> None:
        self._total = 0
        self._bar: Any = None
        self._finished = self._partly = 0
        self._lock = threading.Lock()
        if wanted and sys.stderr.isatty() and "-" not in paths:
            from bkformat.files import measure

            files, nbytes = measure(paths)
            if files >= _LONG_FILES or nbytes >= _LONG_NBYTES:
                self._total = nbytes

    def add(self, nbytes: int) -> None:
        """So many bytes more of the current file were read."""
        with self._lock:
            self._partly += nbytes
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._finished + self._partly - self._bar.pos)

    def follow(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """The entries, once all are there; without a bar, one by one."""
        if not self._total:
            return entries
        done: list[Entry] = []
        with click.progressbar(length=self._total, label="judging", file=sys.stderr) as self._bar:
            for entry in entries:
                done.append(entry)
                if not isinstance(entry.outcome, OSError):
                    self._finished += entry.outcome.nbytes
                self._partly = 0
                self._show()
        return done


if __name__ == "__main__":
    main()
