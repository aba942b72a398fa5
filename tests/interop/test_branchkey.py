"""The published clients accept what we call valid, and read what we convert for them.

2.4.2 takes updates in .npy, 2.9 and 3.x take .npz.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkformat import build_update, check_bytes, convert_file

from ..property.files import Content, contents, forms, updates, written
from .environments import environment, run

_HERE = Path(__file__).parent
# 2.9 wants a numpy 1, which has no wheels for Python 3.13.
_NUMPY, _LATER = "1.26.4", ["2.9.3", "3.0.1"]
if sys.version_info >= (3, 13):
    _NUMPY, _LATER = "2.1.3", ["3.0.1"]
_JUDGE = str(_HERE / "branchkey_judge.py")


def verdicts(python: Path, paths: Sequence[Path]) -> list[Any]:
    """What a client says of each file."""
    said = run([str(python), _JUDGE], "the client", input="".join(f"{path}\n" for path in paths))
    return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def client_2() -> Path:
    return environment("branchkey==2.4.2", f"numpy=={_NUMPY}")


@pytest.fixture(scope="module", params=_LATER)
def client_3(request: pytest.FixtureRequest) -> Path:
    return environment(f"branchkey=={request.param}")


_few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_few
@given(st.lists(st.tuples(updates, forms), min_size=10, max_size=30))
def test_version_2_accepts_what_is_valid(
    client_2: Path, tmp_path: Path, drawn: list[tuple[Content, str]]
) -> None:
    paths = []
    for index, (content, form) in enumerate(drawn):
        for name, data in (
            ("form", written(content, form)),
            ("built", build_update(content.num_samples, content.arrays)),
        ):
            assert check_bytes(data).valid
            paths.append(tmp_path / f"{index}-{name}.npy")
            paths[-1].write_bytes(data)
    assert verdicts(client_2, paths) == ["True"] * len(paths)


def test_version_2_refuses_something(client_2: Path, tmp_path: Path) -> None:
    root = np.empty(2, dtype=object)
    root[:] = "7", [np.zeros(2)]
    np.save(tmp_path / "a.npy", root, allow_pickle=True)
    assert verdicts(client_2, [tmp_path / "a.npy"]) != ["True"]


@_few
@given(st.lists(st.tuples(contents, forms), min_size=5, max_size=15))
def test_version_3_accepts_what_is_converted(
    client_3: Path, tmp_path: Path, drawn: list[tuple[Content, str]]
) -> None:
    paths = []
    for index, (content, form) in enumerate(drawn):
        source = tmp_path / f"{index}.npy"
        source.write_bytes(written(content, form))
        paths.append(source.with_suffix(".npz"))
        convert_file(source, paths[-1], fsync=False)
        back = source.with_suffix(".back.npy")
        convert_file(paths[-1], back, num_samples=content.num_samples or 7, fsync=False)
        assert back.read_bytes() == build_update(content.num_samples or 7, content.arrays)
    wanted = [content.num_samples is not None for content, _ in drawn]
    said = verdicts(client_3, paths)
    assert [verdict == "True" for verdict in said] == wanted  # an aggregate has no weighting
    assert all("Missing 'weighting'" in v for v, has in zip(said, wanted, strict=True) if not has)


def test_what_version_3_writes(client_3: Path, tmp_path: Path) -> None:
    """By its own save_weights, with more layers than sort as text."""
    code = (
        "import numpy as np; from branchkey.client import Client\n"
        "arrays = [np.full((2, at), at / 4, 'float32') for at in range(12)]\n"
        "object.__new__(Client).save_weights('w', 1329, arrays)\n"
    )
    run([str(client_3), "-c", code], "save_weights", cwd=tmp_path)
    convert_file(tmp_path / "w.npz", tmp_path / "w.npy")
    arrays = [np.full((2, at), at / 4, "float32") for at in range(12)]
    assert (tmp_path / "w.npy").read_bytes() == build_update(1329, arrays)
