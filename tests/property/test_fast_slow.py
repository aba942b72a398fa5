"""The fast path gives the very report of the slow path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from . import judging
from .files import (
    FORMS,
    Content,
    edited,
    edited_gets,
    edited_ops,
    good_files,
    huge,
    huge_files,
    small_fixtures,
    written,
)
from .judging import assert_no_path_matters, forget, judged

_options = st.sampled_from(judging.OPTIONS)


@given(good_files, _options)
def test_good_files(data: bytes, options: dict[str, Any]) -> None:
    report = assert_no_path_matters(data, **options)
    assert report.layout is not None
    assert report.layout.stopped_at is None


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=5)
@given(content=huge)
def test_files_of_many_or_large_arrays(form: str, content: Content) -> None:
    data = written(content, form)
    slow = judged(data, fast=False)
    forget()
    assert judged(data, fast=True) == slow
    assert slow.valid or {found.code for found in slow.findings} <= {"BK603"}
    assert slow.layout is not None
    assert len(slow.layout.parameters) == len(content.arrays)


@settings(max_examples=400)
@given(edited, _options)
def test_edited_files(data: bytes, options: dict[str, Any]) -> None:
    report = assert_no_path_matters(data, **options)
    event("valid" if report.valid else f"{report.findings[0].code[:3]}xx")


@settings(max_examples=400)
@given(edited_gets(good_files), _options)
def test_values_of_runs_that_are_fetched_from_the_memo(
    data: bytes, options: dict[str, Any]
) -> None:
    report = assert_no_path_matters(data, **options)
    event("valid" if report.valid else f"{report.findings[0].code}")


@settings(max_examples=30)
@given(edited_gets(huge_files) | edited_ops(huge_files))
def test_edited_files_of_many_arrays(data: bytes) -> None:
    assert_no_path_matters(data)


@pytest.mark.parametrize("folder", ["valid", "warning", "invalid", "schema"])
def test_fixtures(folder: str) -> None:
    for data in small_fixtures(folder):
        for options in judging.OPTIONS:
            assert_no_path_matters(data, **options)
