"""What a receiver expects of an update, as a strict pydantic model and a JSON file.

    {"version": 1, "num_samples": {"min": 1, "max": null}, "dtypes": null, "finite": true,
     "max_abs": null, "max_nbytes": null,
     "parameters": [{"name": null, "dtype": "float32", "shape": [3, null]}]}

Every key but "version" may be left out; an unknown key is an error. This module alone imports
pydantic, which takes longer than judging a thousand files, so it is imported only where there is a
schema.
"""

from __future__ import annotations

import codecs
import difflib
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bkformat.arrays import MAX_DIMENSIONS
from bkformat.dtypes import COMPLEX_DTYPES, ITEMSIZES
from bkformat.errors import InvalidSchemaError
from bkformat.findings import quoted
from bkformat.layout import MAX_NUM_SAMPLES, UpdateLayout

__all__ = [
    "ArraySpec",
    "NumSamplesBounds",
    "UpdateSchema",
    "any_dtype",
    "infer_schema",
    "json_schema",
    "load_schema",
]

_MAX_SCHEMA_NBYTES = 256 << 20
_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

DTypeName = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
]  # fmt: skip
_Count = Annotated[int, Field(ge=1, le=MAX_NUM_SAMPLES)]
_Dim = Annotated[int, Field(ge=0, le=2**63 - 1)]


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("1 is wanted, not a truth value")
    return value


class NumSamplesBounds(BaseModel):
    """The least and the greatest number of samples; both are allowed themselves."""

    model_config = _STRICT

    min: _Count | None = Field(None, description="least number of samples, null for 1")
    max: _Count | None = Field(None, description="greatest number of samples, null for 2**53")

    @model_validator(mode="after")
    def _in_order(self) -> NumSamplesBounds:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class ArraySpec(BaseModel):
    """What one array must be."""

    model_config = _STRICT

    name: str | None = Field(None, description="name of the parameter, for messages")
    dtype: DTypeName | None = Field(None, description="numpy's name, null for any allowed dtype")
    shape: Annotated[tuple[_Dim | None, ...], Field(max_length=MAX_DIMENSIONS)] | None = Field(
        None, description="elements along each axis, null for any number", strict=False
    )


class UpdateSchema(BaseModel):
    """What an update must be, beyond what every update must be."""

    model_config = _STRICT

    version: Annotated[Literal[1], BeforeValidator(_no_bool)] = Field(
        description="version of the schema file, always 1"
    )
    num_samples: NumSamplesBounds | None = Field(None, description="bounds of the sample count")
    dtypes: Annotated[tuple[DTypeName, ...], Field(strict=False)] | None = Field(
        None, description="the dtypes that may be used, null for every dtype but complex ones"
    )
    finite: bool = Field(True, description="refuse NaN and infinities")
    max_abs: Annotated[float, Field(ge=0)] | None = Field(
        None, description="largest magnitude of any value, null for any"
    )
    max_nbytes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="largest size of the file in bytes, null for any"
    )
    parameters: Annotated[tuple[ArraySpec, ...], Field(strict=False)] | None = Field(
        None, description="the arrays in their order, null for any"
    )

    @property
    def allowed_dtypes(self) -> frozenset[str]:
        """Dtypes that this schema names, so that an update may hold them without a warning."""
        specs = {spec.dtype for spec in self.parameters or () if spec.dtype is not None}
        named = specs.union(self.dtypes or ())
        return frozenset(named | COMPLEX_DTYPES if named & COMPLEX_DTYPES else named)

    @property
    def allows_empty(self) -> bool:
        """Whether this schema asks for an array without elements."""
        return any(0 in (spec.shape or ()) for spec in self.parameters or ())

    def to_json(self) -> str:
        """The schema file: one line for each array, so that a diff shows what changed."""
        fields = self.model_dump(mode="json")
        parameters = fields.pop("parameters")
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
        if parameters is None:
            lines.append('  "parameters": null')
        else:
            rows = ",\n".join(f"    {json.dumps(spec)}" for spec in parameters)
            lines.append(f'  "parameters": [\n{rows}\n  ]' if rows else '  "parameters": []')
        return "{\n" + ",\n".join(lines) + "\n}\n"


def load_schema(path: str | os.PathLike[str]) -> UpdateSchema:
    """Read a schema file.

    Raises:
        OSError: the file can't be read.
        InvalidSchemaError: it is not a schema; the message names the key and the trouble.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_SCHEMA_NBYTES + 1)
    shown = quoted(os.fspath(path))
    if data.startswith(b"\x93NUMPY"):
        raise InvalidSchemaError(f"schema {shown}: an .npy file; `bkformat schema` makes one of it")
    if len(data) > _MAX_SCHEMA_NBYTES:
        raise InvalidSchemaError(f"schema {shown}: larger than {_MAX_SCHEMA_NBYTES >> 20} MiB")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        schema = UpdateSchema.model_validate_json(data)
        json.loads(data, object_pairs_hook=_no_key_twice)  # pydantic takes the last one
    except ValidationError as exc:
        raise InvalidSchemaError(f"schema {shown}: {_first_trouble(exc)}") from exc
    except _KeyTwiceError as exc:
        raise InvalidSchemaError(f"schema {shown}: {exc} stands there twice") from exc
    return schema


class _KeyTwiceError(Exception):
    """An object of the file has the same key twice."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _first_trouble(exc: ValidationError) -> str:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    place = errors[0]["loc"]
    where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in place)
    message = errors[0]["msg"].removeprefix("Value error, ")
    message = ascii(message)[1:-1][:300]  # pydantic's words, with at most a short value
    if errors[0]["type"] == "extra_forbidden":
        message = _unknown_key(str(place[-1]))
    elif errors[0]["type"] == "missing":
        message = "this key is missing"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    where = quoted(where.lstrip("."))[1:-1]
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _unknown_key(key: str) -> str:
    keys = {
        key for model in (UpdateSchema, ArraySpec, NumSamplesBounds) for key in model.model_fields
    }
    near = difflib.get_close_matches(key[:80], sorted(keys), 1)
    return f"no such key{f', did you mean {near[0]}?' if near else ''}"


def any_dtype() -> UpdateSchema:
    """A schema for a file that another is inferred from: complex arrays are wanted there too."""
    return UpdateSchema.model_validate({"version": 1, "dtypes": get_args(DTypeName)})


def infer_schema(
    layout: UpdateLayout, *, names: Sequence[str | None] | None = None
) -> UpdateSchema:
    """The schema that a file with this layout fits exactly: dtype and shape of each array.

    Args:
        layout: as `inspect_file` or a `ValidatedUpdate` has it.
        names: of the arrays, which the file has no place for, such as `list(model.state_dict())`.

    Raises:
        TypeError: this is no layout, but a path perhaps.
        ValueError: the layout was not read to its end, or is of a file that holds something else
            than arrays, or an array that no update may hold; or there are more or fewer names.
    """
    if not isinstance(layout, UpdateLayout):
        raise TypeError(
            f"a layout, as inspect_file gives it, is wanted, not {type(layout).__name__}"
        )
    if layout.stopped_at is not None:
        raise ValueError("the layout was not read to its end")
    if layout.positions is not None or not layout.parameters:
        raise ValueError("the layout is of a file that holds something else than arrays")
    allowed = ITEMSIZES.keys()
    for index, array in enumerate(layout.parameters):
        if array.dtype not in allowed:
            raise ValueError(f"parameters[{index}] is of {array.dtype}, which no update may hold")
    if names is None:
        names = [None] * len(layout.parameters)
    if len(names) != len(layout.parameters):
        raise ValueError(f"{len(names):,} names for {len(layout.parameters):,} arrays")
    specs = [
        {"name": name, "dtype": array.dtype, "shape": array.shape}
        for name, array in zip(names, layout.parameters, strict=True)
    ]
    return UpdateSchema.model_validate({"version": 1, "parameters": specs})


def json_schema() -> dict[str, Any]:
    """A JSON Schema of the schema file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **UpdateSchema.model_json_schema(),
    }
