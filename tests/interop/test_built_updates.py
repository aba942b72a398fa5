"""What we write, in other processes, other numpys, and with real PyTorch where it is installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bkformat import InvalidUpdateError, build_update, check_bytes

from ..property.expected import expected
from .environments import ROOT, environment, run
from .test_numpy_versions import VERSIONS, loaded

_BUILD = """
import hashlib, sys
import numpy as np
from bkformat import build_update

def arrays():
    base = np.arange(60, dtype="float32").reshape(3, 4, 5) / 7
    yield "weight", base
    yield "transposed", base.T
    yield "half", np.arange(9, dtype="float16")[::-2]
    yield "big", np.arange(5, dtype=">f8")
    yield "scalar", np.array(0.1)
    yield "counter", np.array(3)
    yield "flags", np.array([True, False])
    yield "empty", np.zeros((0, 3), "float32")
    for at in range(1001):
        yield f"small{at}", np.full((at % 3 + 1, 2), at, "float32")

named = dict(arrays())
for parameters in (list(named.values()), named, tuple(named.values()), arrays(),
                   [np.array(a, order="F") for a in named.values()]):
    print(hashlib.sha256(build_update(2**40 + 1, parameters)).hexdigest())
"""
_SHA256 = "e8262e03d15ed708b45f1ce0be1afd353f66fe99a9d4f05fe31083e82e2fb578"


def test_equal_updates_have_equal_hashes_in_every_process(tmp_path: Path) -> None:
    for seed in ("0", "1", "12345"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        said = run([sys.executable, "-W", "error", "-c", _BUILD], "building", env=environ)
        assert said.split() == [_SHA256] * 5


@pytest.mark.parametrize("version", VERSIONS)
def test_equal_updates_have_equal_hashes_in_every_numpy(version: str) -> None:
    python = environment(f"numpy=={version}")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = run([str(python), "-W", "error", "-c", _BUILD], "building", env=environ)
    assert said.split() == [_SHA256] * 5


@pytest.mark.parametrize("version", VERSIONS)
def test_every_numpy_loads_what_we_build(version: str, tmp_path: Path) -> None:
    """Any warning being an error."""
    python = environment(f"numpy=={version}")
    dtypes = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]
    ramps = [(np.arange(24) % 2).astype(dtype).reshape(2, 3, 4) for dtype in dtypes]
    cases: dict[str, tuple[int, list[Any]]] = {
        "dtypes": (1329, ramps),
        "layouts": (7, [ramps[1].T, np.asfortranarray(ramps[2]), ramps[1][::-1, ::2]]),
        "no-dimensions": (7, [np.array(1.5), np.array(2, "f4"), np.zeros((0, 3))]),
        "one": (2**53, [ramps[1]]),
        "1001-arrays": (2**31, [np.full(2, at, "f4") for at in range(1001)]),
        "large": (1, [np.arange(1 << 18, dtype="f4"), np.zeros(3)]),
        "32-dimensions": (1, [np.zeros((1,) * 32, "f4")]),
    }
    paths = []
    for name, (count, arrays) in cases.items():
        paths.append(tmp_path / f"{name}.npy")
        paths[-1].write_bytes(build_update(count, arrays))
    for path, answer in zip(paths, loaded(python, paths), strict=True):
        layout = check_bytes(path.read_bytes()).layout
        assert layout is not None
        assert all(array.aligned for array in layout.parameters)
        told = expected(path.read_bytes(), layout)
        assert told["count"] == ["int", repr(cases[path.stem][0])]
        assert all(said == told for said in answer.values()), (path.name, answer)


# --- PyTorch ---------------------------------------------------------------------------------

torch: Any = None
if importlib.util.find_spec("torch") is not None:
    import torch  # type: ignore[import-not-found,no-redef]

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed here")


def _model() -> Any:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))


def _numpy(tensors: Any) -> list[Any]:
    return [tensor.detach().cpu().numpy() for tensor in tensors]


@needs_torch
def test_torch_containers() -> None:
    model = _model()
    wanted = build_update(7, _numpy(model.parameters()))
    assert build_update(7, model.named_parameters()) == wanted
    assert build_update(7, model.parameters()) == wanted
    assert build_update(torch.tensor(7), list(model.parameters())) == wanted
    state = model.state_dict()
    assert build_update(7, state) == build_update(7, _numpy(state.values()))
    assert [f.code for f in check_bytes(build_update(7, state)).findings] == ["BK601"]
    with pytest.raises(InvalidUpdateError, match=r"model\.state_dict"):
        build_update(7, model)


@needs_torch
def test_torch_tensors() -> None:
    grown = torch.arange(6.0).reshape(2, 3).requires_grad_()
    for tensor in (grown, grown * 2, grown.t(), grown[:, ::2], torch.tensor(1.5),
                   torch.zeros(0, 3), grown.detach().half()):  # fmt: skip
        assert build_update(7, [tensor]) == build_update(7, [tensor.detach().numpy()])
    tied = torch.nn.Linear(3, 3, bias=False)
    both = torch.nn.ModuleList([tied, tied])
    assert len(both.state_dict()) == 2
    assert check_bytes(build_update(7, both.state_dict())).valid


@needs_torch
def test_torch_bfloat16() -> None:
    half = torch.arange(100.0).div(7).bfloat16()
    with pytest.raises(InvalidUpdateError) as caught:
        build_update(7, [half])
    assert [f.code for f in caught.value.report.findings] == ["BK224"]
    assert build_update(7, [half], dtype="float32") == build_update(7, [half.float().numpy()])
    quarter = half.to(torch.float8_e5m2)
    with pytest.raises(InvalidUpdateError, match="BK224"):
        build_update(7, [quarter])
    wanted = build_update(7, [quarter.float().numpy()])
    assert build_update(7, [quarter], dtype="float32") == wanted


@needs_torch
def test_torch_things_that_are_no_arrays() -> None:
    for tensor in (torch.zeros(2, device="meta"), torch.eye(3).to_sparse()):
        with pytest.raises(InvalidUpdateError) as caught:
            build_update(7, [tensor])
        assert [f.code for f in caught.value.report.findings] == ["BK318"]
    counts = [(torch.tensor(True), "BK307"), (torch.tensor(7.0), "BK310")]
    for count, code in (*counts, (torch.tensor([7]), "BK310")):
        with pytest.raises(InvalidUpdateError) as caught:
            build_update(count, [torch.zeros(2)])
        assert [f.code for f in caught.value.report.findings] == [code]
