"""The options of every command that talks to a service: who asks, whom, and how to get there.

The session token is none of them: other users of the machine can read command lines.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bkformat.cli_write import nbytes_option
from bkformat.escape import printable
from bktransport.progress import TransferBar

if TYPE_CHECKING:
    from bkformat import UpdateSchema
    from bktransport.client import Client
    from bktransport.config import Credentials

__all__ = ["Service", "ServiceCommand", "download_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SECONDS = click.FloatRange(min=0, min_open=True)
_LOUD = ("bktransport",)
_LOUDER = ("bktransport", "pika")


class Service:
    """What the options say.

    Args:
        given: the options by name; None where one was not given.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    @functools.cached_property
    def credentials(self) -> Credentials:
        """Of the options, the environment and the file, in this order."""
        from bktransport.config import Credentials, credentials_from

        named = {"BKTRANSPORT_CREDENTIALS": self._given["credentials"]}
        for key in Credentials.model_fields:
            named["BKTRANSPORT_" + key.upper()] = self._given.get(key)
        told = {key: str(value) for key, value in named.items() if value is not None}
        return credentials_from({**os.environ, **told})

    @property
    def broker_tls(self) -> bool | str:
        """As `Client` takes it."""
        return self._given.get("broker_ca") or bool(self._given.get("broker_tls"))

    def client(
        self, *, schema: str | None = None, notifications: bool = False, **options: Any
    ) -> Client:
        """A client, not yet authenticated.

        Args:
            schema: path of a schema file.
            notifications: whether it receives any, and so needs the state folder for itself.
            options: for `Client`.
        """
        from bktransport.client import Client

        given = self._given
        proxy, state = given["proxy"], given["state"]
        return Client(
            self.credentials,
            schema=_schema(schema),
            state=state,
            timeout=given["timeout"],
            deadline=given["deadline"],
            proxies={"http": proxy, "https": proxy} if proxy else None,
            verify=given["ca"] or True,
            broker_tls=self.broker_tls,
            notifications=notifications,
            **options,
        )

    def aggregates(
        self,
        schema: str | None,
        max_size: int | None,
        download_hosts: tuple[str, ...],
        **options: Any,
    ) -> Client:
        """A client by what `download_options` say; other arguments as for `client`."""
        if max_size is not None:
            options["max_download_nbytes"] = max_size
        return self.client(schema=schema, download_hosts=download_hosts or None, **options)

    @property
    def is_verbose(self) -> bool:
        """Whether the log is shown."""
        return bool(self._given["verbose"])

    def bar(self, label: str) -> TransferBar:
        """A progress bar; none where log lines would tear it apart."""
        return TransferBar(label, wanted=not self.is_verbose)


def _schema(path: str | None) -> UpdateSchema | None:
    from bkformat import InvalidSchemaError, load_schema

    try:
        return None if path is None else load_schema(path)
    except InvalidSchemaError as exc:
        raise click.ClickException(printable(str(exc))) from exc


# --- options ---------------------------------------------------------------------------------


class _ServiceOption(click.Option):
    """Listed apart from what a command has of its own."""


class _SecretOption(click.Option):
    """One that many would try, and that tells where the secret belongs."""

    def __init__(self, *names: str) -> None:
        super().__init__(names, hidden=True, expose_value=False, callback=self._refuse)

    @staticmethod
    def _refuse(_: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                f"there is no {parameter.opts[0]}: everyone on this machine can read command "
                "lines. Put the secret into the credentials file, or into the environment as "
                "BKTRANSPORT_LEAF_SESSION_TOKEN."
            )


def _proxy(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and "@" in value:
        raise click.BadParameter(
            "a password does not belong on a command line: set HTTPS_PROXY or HTTP_PROXY instead"
        )
    return value


def _options(broker: bool) -> list[click.Parameter]:
    """What is common; with the broker's for commands that reach for it."""

    def option(name: str, metavar: str, text: str, **more: Any) -> click.Option:
        return _ServiceOption([name], metavar=metavar, help=text, **more)

    def variable(name: str, metavar: str, text: str, **more: Any) -> click.Option:
        envvar = f"BKTRANSPORT_{name[2:].replace('-', '_').upper()}"
        return option(name, metavar, f"{text} *", envvar=envvar, **more)

    port = click.IntRange(1, 65535)
    of_broker = [
        _ServiceOption(["--broker-tls"], is_flag=True, help="The broker speaks TLS."),
        option("--broker-ca", "FILE", "The same, with the certificate of a private CA."),
    ]
    return [
        variable("--credentials", "FILE", "JSON file with what the service gave you."),
        variable("--host", "URL", "The service."),
        variable("--leaf-id", "ID", "The leaf."),
        variable("--leaf-name", "NAME", "What people call it."),
        variable("--performance-analyser-username", "NAME", "Who sends metrics."),
        variable("--response-host", "NAME", "The broker's host name."),
        variable("--port", "PORT", "The broker's port.", type=port),
        variable("--state", "DIR", "Where this leaf's inbox and journal are"
                 "  [default: in the user's state folder]"),
        option("--ca", "FILE", "Certificate of the private CA behind an https host."),
        *(of_broker if broker else []),
        option("--proxy", "URL", "HTTP proxy; else that of HTTPS_PROXY or HTTP_PROXY.",
               callback=_proxy),
        option("--timeout", "S", "Seconds for one step: connecting, waiting for a piece.",
               type=_SECONDS, default=30.0, show_default=True),
        option("--deadline", "S", "Seconds for a whole call  [default: 120; transfers 3600]",
               type=_SECONDS),
        _ServiceOption(["-v", "--verbose"], count=True,
                       help="Log to standard error; -vv: AMQP too. Never a secret."),
        _SecretOption("--token", "--session-token", "--leaf-session-token", "--password",
                      "--performance-analyser-password"),
    ]  # fmt: skip


_VARIABLES = (
    "* Also in the environment, as BKTRANSPORT_CREDENTIALS and so on; the session token as "
    "BKTRANSPORT_LEAF_SESSION_TOKEN, if not in the file. Options go before variables, these "
    "before the file."
)


class ServiceCommand(click.Command):
    """A command that talks to a service: its function gets the common options as `service`.

    Args:
        given: those of `click.Command`.
        broker: with the options of the broker's TLS.
    """

    def __init__(self, *given: Any, broker: bool = False, **more: Any) -> None:
        super().__init__(*given, **more)
        self.params += _options(broker)

    def invoke(self, ctx: click.Context) -> Any:
        """Put the common options together."""
        given = {
            option.name: ctx.params.pop(option.name or "")
            for option in self.params
            if isinstance(option, _ServiceOption)
        }
        _log(ctx, given["verbose"])
        ctx.params["service"] = Service(given)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of the command, then those of the service."""
        lists: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                lists[isinstance(parameter, _ServiceOption)].append(record)
        for common, title in ((False, "Options"), (True, "Service and leaf")):
            with formatter.section(title):
                formatter.write_dl(lists[common])
        formatter.write_paragraph()
        formatter.write_text(_VARIABLES)


def download_options(command: _Function) -> _Function:
    """What is said of aggregates, for the commands that download them."""
    for option in (
        click.option("--download-host", "download_hosts", multiple=True, metavar="NAME",
                     help="Fetch aggregates from this host alone; .example.org means all below it."
                          " May be repeated."),
        click.option("--max-size", callback=nbytes_option, metavar="BYTES",
                     help="Refuse larger aggregates  [default: 16 GiB]"),
        click.option("--schema", metavar="FILE",
                     help="Schema that aggregates must fit, but for the count."),
    ):  # fmt: skip
        command = option(command)
    return command


# --- log -------------------------------------------------------------------------------------


class _Line(logging.Formatter):
    """One line a record, without tracebacks, and nothing that could move a cursor."""

    def __init__(self, *, brief: bool) -> None:
        super().__init__()
        self._brief = brief

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        text = printable(record.getMessage())
        if record.exc_info is not None and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        if self._brief:
            return f"bktransport: {record.levelname.lower()}: {text}"
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{at} {record.levelname.lower()} {record.name}: {text}"


def _log(ctx: click.Context, verbose: int) -> None:
    """Show the log until the command ends."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line(brief=not verbose))
    for name in _LOUDER if verbose > 1 else _LOUD:
        logger = logging.getLogger(name)
        ctx.call_on_close(functools.partial(logger.setLevel, logger.level))
        ctx.call_on_close(functools.partial(logger.removeHandler, handler))
        ctx.call_on_close(functools.partial(setattr, logger, "propagate", logger.propagate))
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
        logger.addHandler(handler)
        logger.propagate = False
