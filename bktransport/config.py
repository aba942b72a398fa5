"""Who we are and whom we talk to: credentials from a dict, a file or the environment.

    leaf_name, leaf_id, leaf_session_token                          the leaf, at the HTTP service
    performance_analyser_username, performance_analyser_password    for performance metrics
    response_host, port (5672)                                      the RabbitMQ broker
    host                                                            the HTTP service, may be absent

Secrets are `SecretStr`: no repr, log or exception shows them, and they refuse to be pickled.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)

from bktransport.text import quoted

__all__ = ["Credentials", "as_credentials", "checked_host", "credentials_from", "load_credentials"]

_LOG = logging.getLogger("bktransport")

_MAX_NBYTES = 1 << 16
_ENVIRONMENT = "BKTRANSPORT_"

_Text = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")
]
# A colon would end the user name of Basic authentication, a slash the folder that is named by it.
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
_HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]


class Secret(SecretStr):
    """A secret that no pickle holds; a copy is the same object."""

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret can't be pickled: it would lie in the open")


class Credentials(BaseModel):
    """What the service gave to one leaf.

    Other keys are ignored, as the published client ignores them.

    Attributes:
        leaf_name: what people call the leaf.
        leaf_id: user name at the service and the broker, and name of the queue.
        leaf_session_token: password of both.
        performance_analyser_username: user name for performance metrics; may be None.
        performance_analyser_password: password of it; may be None.
        response_host: the broker's host name.
        port: the broker's port.
        host: URL of the HTTP service, or None.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, coerce_numbers_to_str=False
    )

    leaf_name: _Text
    leaf_id: _Id
    leaf_session_token: Secret = Field(min_length=1)
    performance_analyser_username: _Text | None = None
    performance_analyser_password: Secret | None = None
    response_host: _HostName
    port: int = Field(default=5672, ge=1, le=65535)
    host: str | None = None

    @field_validator("leaf_session_token", "performance_analyser_password")
    @classmethod
    def _one_line(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and re.search(r"[\x00-\x1f\x7f]", value.get_secret_value()):
            raise ValueError("holds a control character or line end")
        return value

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """A pickle would hold the secrets in the clear."""
        raise TypeError("Credentials can't be pickled: the secrets would lie in the open")


def as_credentials(given: Credentials | Mapping[str, Any]) -> Credentials:
    """Credentials of a dict.

    Raises:
        TypeError: neither Credentials nor a mapping.
        ValueError: a key is missing or wrong; the message names all such keys, never a secret.
    """
    if isinstance(given, Credentials):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(
            f"credentials must be a dict or Credentials, not {type(given).__name__}; "
            "load_credentials(path) reads a file"
        )
    try:
        return Credentials.model_validate(dict(given))
    except ValidationError as exc:
        trouble = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {_plain(error['type'], error['msg'])}"
            for error in exc.errors(include_input=False, include_context=False)
        )
    # Outside of the handler: pydantic's exception refers to what was given.
    raise ValueError(f"credentials: {trouble}")


def _plain(kind: str, message: str) -> str:
    if kind == "missing":
        return "missing"
    if kind == "too_short":
        return "empty"
    if kind == "string_pattern_mismatch":
        return "empty, too long, or with characters that don't belong there"
    return message[0].lower() + message[1:]


def load_credentials(path: str | os.PathLike[str]) -> Credentials:
    """Credentials of a JSON file.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no credentials; the message never shows a secret.
    """
    name = quoted(os.fsdecode(path))
    with open(path, "rb") as file:
        data = file.read(_MAX_NBYTES + 1)
        if os.fstat(file.fileno()).st_mode & 0o077:
            _LOG.info("%s: other users can read these credentials: chmod 600", name)
    if len(data) > _MAX_NBYTES:
        raise ValueError(f"{name}: larger than {_MAX_NBYTES} bytes, so no credentials")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ValueError(f"{name}: no JSON object, so no credentials")
    try:
        return as_credentials(given)
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from None


def credentials_from(environment: Mapping[str, str] | None = None) -> Credentials:
    """Credentials of the environment: the file `BKTRANSPORT_CREDENTIALS`, or a variable each.

    Such as `BKTRANSPORT_LEAF_SESSION_TOKEN`; variables win over the file.

    Raises:
        OSError: the file can't be read.
        ValueError: a variable is missing or wrong.
    """
    found = os.environ if environment is None else environment
    named = {
        key: found[_ENVIRONMENT + key.upper()]
        for key in Credentials.model_fields
        if found.get(_ENVIRONMENT + key.upper())
    }
    path = found.get(_ENVIRONMENT + "CREDENTIALS")
    if not path:
        if not named:
            raise ValueError(
                "no credentials: name their file, by --credentials or BKTRANSPORT_CREDENTIALS"
            )
        return as_credentials(named)
    credentials = load_credentials(path)
    return as_credentials({**dict(credentials), **named}) if named else credentials


def checked_host(url: object) -> str:
    """The URL of the HTTP service, without a slash at its end.

    Raises:
        ValueError: not http(s), no host, or with a user, query or fragment.
    """
    if not isinstance(url, str):
        raise ValueError("host: the URL of the service is missing, such as 'https://api.example'")
    try:
        parts = urlsplit(url)
        _ = parts.port
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii()
    except ValueError:
        good = False
    if any(sign in url for sign in "@?#"):
        raise ValueError("host: a user, password, query or fragment does not belong in the URL")
    if not good or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"host: {quoted(url)} is no http:// or https:// URL")
    return url.rstrip("/")
