"""Schema files: strict, and the same after writing and reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from bkformat import (
    ArraySpec,
    InvalidSchemaError,
    UpdateSchema,
    check_bytes,
    infer_schema,
    inspect_file,
    load_schema,
)
from bkformat.schema import json_schema

from .files import FIXTURES, asm, codes, update, zeros

_FULL: dict[str, Any] = {
    "version": 1,
    "num_samples": {"min": 1, "max": 1000},
    "dtypes": ["float32", "float64"],
    "finite": False,
    "max_abs": 2.5,
    "max_nbytes": 10_000,
    "parameters": [
        {"name": "weight", "dtype": "float32", "shape": [3, None]},
        {"name": None, "dtype": None, "shape": None},
    ],
}


def test_every_key_but_the_version_may_be_left_out() -> None:
    schema = UpdateSchema.model_validate({"version": 1})
    assert schema.model_dump() == {
        "version": 1, "num_samples": None, "dtypes": None, "finite": True, "max_abs": None,
        "max_nbytes": None, "parameters": None,
    }  # fmt: skip
    with pytest.raises(ValidationError):
        UpdateSchema.model_validate({})


def test_written_and_read_again(tmp_path: Path) -> None:
    for fields in (_FULL, {"version": 1}, {"version": 1, "parameters": []}):
        schema = UpdateSchema.model_validate(fields)
        path = tmp_path / "schema.json"
        path.write_text(schema.to_json(), "utf-8")
        assert load_schema(path) == schema
        assert json.loads(schema.to_json()) == schema.model_dump(mode="json")


def test_one_line_for_each_array() -> None:
    text = UpdateSchema.model_validate(_FULL).to_json()
    assert '\n    {"name": "weight", "dtype": "float32", "shape": [3, null]},\n' in text


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"version": 2}, "version"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": 1, "max_abs": "1"}, "max_abs"),
        ({"version": 1, "max_abs": True}, "max_abs"),
        ({"version": 1, "extra": 1}, "extra"),
        ({"version": 1, "dtypes": ["float128"]}, "dtypes[0]"),
        ({"version": 1, "dtypes": "float32"}, "dtypes"),
        ({"version": 1, "finite": 1}, "finite"),
        ({"version": 1, "max_abs": -1}, "max_abs"),
        ({"version": 1, "max_nbytes": 0}, "max_nbytes"),
        ({"version": 1, "num_samples": {"min": 0}}, "num_samples.min"),
        ({"version": 1, "num_samples": {"max": 2**53 + 1}}, "num_samples.max"),
        ({"version": 1, "num_samples": {"min": True}}, "num_samples.min"),
        ({"version": 1, "num_samples": {"min": 5, "max": 4}}, "num_samples"),
        ({"version": 1, "num_samples": 5}, "num_samples"),
        ({"version": 1, "parameters": [{"shape": [-1]}]}, "parameters[0].shape[0]"),
        ({"version": 1, "parameters": [{"shape": [1.5]}]}, "parameters[0].shape[0]"),
        ({"version": 1, "parameters": [{"shape": [1] * 33}]}, "parameters[0].shape"),
        ({"version": 1, "parameters": [{"colour": 1}]}, "parameters[0].colour"),
        ({"version": 1, "parameters": {"0": {}}}, "parameters"),
    ],
)
def test_faults_are_named(
    fields: dict[str, Any], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a short path, which is not cut
    Path("schema.json").write_text(json.dumps(fields), "utf-8")
    with pytest.raises(InvalidSchemaError) as caught:
        load_schema("schema.json")
    assert f"schema.json': {where}: " in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"version": 1, "paramters": []}', "paramters: no such key, did you mean parameters?"),
        (b'{"version": 1, "colour": []}', "colour: no such key"),
        (b'{"version": 1, "parameters": [{"types": 1}]}', "no such key, did you mean dtypes?"),
        (b"{}", "version: this key is missing"),
        (b'{"version": 1, "max_abs": 1, "max_abs": 9}', "max_abs stands there twice"),
        (
            b'{"version": 1, "num_samples": {"min": 5, "max": 4}}',
            "num_samples: min is greater than max",
        ),
        (b"\x93NUMPY\x01\x00", "an .npy file; `bkformat schema` makes one of it"),
    ],
)
def test_mistakes_are_told_what_to_do(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(data)
    with pytest.raises(InvalidSchemaError) as caught:
        load_schema(path)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"version": 1, "max_abs": NaN}',
     b'{"version": 1, "max_abs": Infinity}', b'{"\x1b[31m\xc3\xa9": 1}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_schema(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a\nb.json"
    path.write_bytes(data)
    with pytest.raises(InvalidSchemaError) as caught:
        load_schema(path)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(b'\xef\xbb\xbf{"version": 1, "max_abs": 1}')
    assert load_schema(path).max_abs == 1.0


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_schema(tmp_path / "none")


def test_a_schema_does_not_change() -> None:
    schema = UpdateSchema.model_validate(_FULL)
    with pytest.raises(ValidationError):
        schema.finite = True  # type: ignore[misc]
    assert hash(schema) == hash(UpdateSchema.model_validate(_FULL))
    assert isinstance(schema.parameters, tuple)
    assert isinstance(schema.parameters[0], ArraySpec)
    assert schema.parameters[0].shape == (3, None)


def test_complex_is_allowed_by_naming_it() -> None:
    for fields in ({"dtypes": ["complex64"]}, {"parameters": [{"dtype": "complex128"}]}):
        assert "complex64" in UpdateSchema.model_validate({"version": 1, **fields}).allowed_dtypes
    assert "complex64" not in UpdateSchema.model_validate(_FULL).allowed_dtypes


def test_no_warning_of_what_the_schema_asks_for() -> None:
    counters, mask, empty = np.zeros(1, "i8"), np.zeros(1, "?"), np.zeros((0, 2), "f4")
    data = update(counters, mask, empty)
    assert codes(check_bytes(data)) == ["BK601", "BK602", "BK603"]
    layout = check_bytes(data).layout
    assert layout is not None
    assert check_bytes(data, schema=infer_schema(layout)).findings == ()
    some = UpdateSchema.model_validate({"version": 1, "dtypes": ["int64", "bool", "float32"]})
    assert codes(check_bytes(data, schema=some)) == ["BK603"]
    unnamed = UpdateSchema.model_validate({"version": 1, "parameters": [{}, {}, {}]})
    assert codes(check_bytes(data, schema=unnamed)) == ["BK601", "BK602", "BK603"]
    assert codes(check_bytes(data)) == ["BK601", "BK602", "BK603"]


def test_an_inferred_schema_fits_its_own_file_alone() -> None:
    data = update(*zeros((3, 4), (), (0, 2)))
    layout = check_bytes(data).layout
    assert layout is not None
    schema = infer_schema(layout)
    assert schema.parameters is not None
    assert [(spec.dtype, spec.shape) for spec in schema.parameters] == [
        ("float32", (3, 4)), ("float32", ()), ("float32", (0, 2)),
    ]  # fmt: skip
    assert check_bytes(data, schema=schema).valid
    for other in (update(*zeros((3, 4), (), (0, 3))), update(*zeros((3, 4), ()))):
        assert not check_bytes(other, schema=schema).valid


def test_no_schema_from_what_no_update_holds() -> None:
    whole = check_bytes(update(*zeros((2,)))).layout
    cut = check_bytes(update(*zeros((2,)), form=asm.D)[:-3]).layout
    assert whole is not None
    assert cut is not None
    with pytest.raises(ValueError, match="not read to its end"):
        infer_schema(cut)
    big = asm.D.update(asm.D.array(dtype=asm.D.dtype("f4", order=asm.D.order(">"))))
    refused = check_bytes(asm.D.file(big).data).layout
    assert refused is not None
    with pytest.raises(ValueError, match=r"parameters\[0\] is of >f4"):
        infer_schema(refused)


def test_json_schema_describes_every_key() -> None:
    described = json_schema()
    assert described["$schema"].startswith("https://json-schema.org/")
    assert set(described["properties"]) == set(UpdateSchema.model_fields)
    assert described["additionalProperties"] is False
    assert described["required"] == ["version"]


def test_natural_guesses_are_told_what_to_do() -> None:
    wrong: Any = "model.json"
    with pytest.raises(TypeError, match="load_schema"):
        check_bytes(b"", schema=wrong)
    with pytest.raises(TypeError, match="load_schema"):
        check_bytes(b"", schema=cast(Any, {"version": 1}))
    with pytest.raises(TypeError, match="inspect_file"):
        infer_schema(cast(Any, "aggregate.npy"))


def test_names_are_kept_in_a_schema() -> None:
    layout = inspect_file(FIXTURES / "valid" / "canonical.npy")
    names = [f"layer{at}.weight" for at in range(len(layout.parameters))]
    schema = infer_schema(layout, names=names)
    assert [spec.name for spec in schema.parameters or ()] == names
    with pytest.raises(ValueError, match="1 names for"):
        infer_schema(layout, names=["weight"])
