"""The whole loop, as an example of the API: two leaves train one model, and share no sample.

    each leaf:  train ─> write_update ─> file_upload ─┐          (sandbox: the weighted mean)
                  ↑                                   ▼
                load_file <─ file_download <─ queue.get

The model is a logistic regression of four features; all of it is the two arrays of `_Model`. The
service is a sandbox in this process. A leaf of the real service has credentials and a URL in place
of the sandbox's, runs for itself, and is otherwise written as `_Leaf` is.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bkformat import load_file, write_update
from bktransport.client import Client
from bktransport.errors import DeadlineError
from bktransport.sandbox import Sandbox

__all__ = ["lines"]

_FEATURES = 4
_SAMPLES = (120, 200)  # of each leaf
_STEPS = 5  # of training before each upload
_RATE = 0.3
_PATIENCE = 30.0  # seconds that an aggregate may take

_Array = np.ndarray[Any, Any]


class _Model(NamedTuple):
    """The parameters, in the order in which updates hold them."""

    weights: _Array  # float32, shape (features,)
    bias: _Array  # float32, shape (1,)

    def loss(self, x: _Array, y: _Array) -> float:
        """Mean cross entropy."""
        z = x @ self.weights + self.bias
        return float(np.mean(np.logaddexp(0, z) - y * z))

    def trained(self, x: _Array, y: _Array) -> _Model:
        """After some steps of gradient descent."""
        weights, bias = self
        for _ in range(_STEPS):
            slope = 1 / (1 + np.exp(-(x @ weights + bias))) - y
            weights = weights - _RATE * (x.T @ slope / len(y)).astype("float32")
            bias = bias - _RATE * slope.mean(keepdims=True).astype("float32")
        return _Model(weights, bias)


class _Leaf:
    """One site: its samples, its client, its copy of the model."""

    def __init__(self, name: str, client: Client, x: _Array, y: _Array) -> None:
        self.name = name
        self.client = client
        self.x, self.y = x, y
        self.model = _Model(np.zeros(_FEATURES, "float32"), np.zeros(1, "float32"))

    def upload(self, folder: Path) -> str:
        """Train, write an update and send it."""
        before = self.model.loss(self.x, self.y)
        self.model = self.model.trained(self.x, self.y)
        path = folder / f"{self.name}.npy"
        with write_update(path, len(self.y), list(self.model)) as update:
            file_id = self.client.file_upload(update)
        after = self.model.loss(self.x, self.y)
        trained = f"trained on {len(self.y)}, loss {before:.3f} -> {after:.3f}"
        return f"{trained}; stored as {_short(file_id)}"

    def download(self) -> str:
        """Wait for the aggregate, take it for the model, and report how it does here."""
        try:
            aggregation_id = self.client.queue.get(timeout=_PATIENCE)
        except queue.Empty:
            raise DeadlineError(f"no aggregate was told within {_PATIENCE:g} s") from None
        path = self.client.file_download(aggregation_id)
        aggregate = load_file(path, kind="aggregate", mmap=False)
        self.model = _Model(*aggregate.parameters)
        loss = self.model.loss(self.x, self.y)
        self.client.send_performance_metrics(aggregation_id, {"loss": loss}, "test")
        return f"told of {_short(aggregation_id)}, downloaded, loss {loss:.3f} here; metrics sent"


def lines(rounds: int = 3, seed: int = 0) -> Iterator[str]:
    """Run it, and tell each step when it is done.

    Args:
        rounds: how often updates become an aggregate.
        seed: of the samples.

    Yields:
        A line of at most 80 columns.

    Raises:
        BkTransportError, OSError: something did not work.
        ImportError: werkzeug is missing.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bktransport-demo-")))
        sandbox = stack.enter_context(Sandbox(leaves=2, quorum=2, folder=folder))
        yield _line("sandbox", "", f"{sandbox.url}, broker {sandbox.amqp}, for 2 leaves")
        leaves = []
        for number, (credentials, shard) in enumerate(
            zip(sandbox.credentials, _shards(seed), strict=True), 1
        ):
            name = f"leaf-{number}"
            client = Client(
                credentials,
                state=folder / name / "state",
                output=folder / name / "aggregates",
                proxies={},  # the sandbox is right here
            )
            stack.enter_context(client).authenticate()
            leaves.append(_Leaf(name, client, *shard))
            yield _line("", name, f"authenticated as {_short(client.leaf_id)}")
        sandbox.set_run("start")
        for leaf in leaves:
            yield _line("", leaf.name, f"run {leaf.client.wait_for_run('start', _PATIENCE)}")
        for number in range(1, rounds + 1):
            yield from _round(number, leaves, folder)


def _round(number: int, leaves: list[_Leaf], folder: Path) -> Iterator[str]:
    before = _loss(leaves)
    for leaf in leaves:
        yield _line(f"round {number}" if leaf is leaves[0] else "", leaf.name, leaf.upload(folder))
    for leaf in leaves:
        yield _line("", leaf.name, leaf.download())
    yield _line("", "all", f"loss of the aggregate {before:.4f} -> {_loss(leaves):.4f}")


def _loss(leaves: list[_Leaf]) -> float:
    """Mean loss over the samples of all leaves, which nobody but a demo can see."""
    losses = [leaf.model.loss(leaf.x, leaf.y) for leaf in leaves]
    return float(np.average(losses, weights=[len(leaf.y) for leaf in leaves]))


def _shards(seed: int) -> Iterator[tuple[_Array, _Array]]:
    """Samples of each leaf: the same law, but features that lie elsewhere."""
    rng = np.random.default_rng(seed)
    law = rng.normal(size=_FEATURES)
    for samples in _SAMPLES:
        x = rng.normal(rng.normal(scale=0.5, size=_FEATURES), 1.0, (samples, _FEATURES))
        y = x @ law + rng.normal(scale=0.5, size=samples) > 0
        yield x.astype("float32"), y.astype("float32")


def _short(name: str) -> str:
    return name[:8]


def _line(what: str, who: str, text: str) -> str:
    return f"{what:<9}{who:<7}{text}" if who else f"{what:<9}{text}"
