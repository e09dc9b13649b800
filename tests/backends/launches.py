"""Steps on the stand-in for CuPy, and the table of how often each launches something.

``PYTHONPATH=tests/stand_in/packages:tests python tests/backends/launches.py`` writes the table.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from helpers import make_backend

from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import Backend
from mlp_xp.nn import losses
from mlp_xp.nn.layers import affine
from mlp_xp.nn.network import Network, init_batch_stats, init_params
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, Lion, Muon, Optimizer, RMSprop
from mlp_xp.training.data.epoch_plan import plan_epoch, with_draws
from mlp_xp.training.data.placement import put_sparse
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.step import init_state, make_step

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
START, END = "<!-- launches -->", "<!-- end of launches -->"
ROWS, FEATURES, OUTPUTS = 20, 12, 4
ADAM, SOFTMAX = Adam(), losses.SoftmaxCrossEntropy()
# What a step adds to the plain one, and what it launched before the fused kernels.
STEPS: dict[str, tuple[dict[str, Any], int]] = {
    "Adam": ({}, 66),
    "SGD with momentum": ({"rule": SGD()}, 66),
    "SGD without momentum": ({"rule": SGD(momentum=0.0)}, 78),
    "AdamW": ({"rule": AdamW()}, 66),
    "Lion": ({"rule": Lion()}, 150),
    "RMSprop": ({"rule": RMSprop()}, 120),
    "beta-LASSO": ({"rule": BetaLasso()}, 126),
    "Muon": ({"rule": Muon()}, 228),
    "Adam, dropout": ({"dropout": 0.1}, 104),
    "Adam, layer normalization": ({"normalization": "layer"}, 112),
    "Adam, batch normalization": ({"normalization": "batch"}, 126),
    "Adam, moving average of the weights": ({"average": True}, 84),
    "Adam, training accuracy": ({"accuracy": True}, 74),
    "Adam, sample weights": ({"weights": True}, 69),
    "Adam, clipped gradient norm": ({"max_grad_norm": 1.0}, 94),
    "Adam, sparse rows": ({"sparse": True}, 130),
    "Adam, gelu": ({"activation": "gelu"}, 94),
    "Adam, binary cross-entropy": ({"loss": losses.BinaryCrossEntropy()}, 67),
    "Adam, squared error": ({"loss": losses.SquaredError()}, 55),
    "Adam, absolute error": ({"loss": losses.AbsoluteError()}, 60),
    "Adam, Huber loss": ({"loss": losses.Huber()}, 58),
    "Adam, focal loss": ({"loss": losses.SoftmaxFocal()}, 77),
}


def make(
    backend: Backend,
    rule: Optimizer = ADAM,
    loss: losses.Loss = SOFTMAX,
    *,
    accuracy: bool = False,
    average: bool = False,
    weights: bool = False,
    sparse: bool = False,
    kernels: Any = None,
    max_grad_norm: float | None = None,
    augmentation: tuple[Any, ...] = (),
    **network: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """Return a step of two hidden layers with an L2 penalty, and its arguments on the device."""
    widths = network.pop("widths", (FEATURES, 8, 8, OUTPUTS))
    net = Network(widths, **network)
    options = {"with_penalty": True, "max_grad_norm": max_grad_norm, "augmentation": augmentation}
    step = make_step(net, loss, rule, kernels or backend.kernels, **options, xp=backend.xp)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, OUTPUTS, 50)
    is_classes = isinstance(loss, losses.SoftmaxCrossEntropy | losses.SoftmaxFocal)
    y = labels.astype(np.int32) if is_classes else np.eye(OUTPUTS, dtype=np.float32)[labels]
    if loss.outputs_per_target > 1:
        y = np.ascontiguousarray(y[:, : OUTPUTS // loss.outputs_per_target])
    with backend.scope():

        def put(tree: Any) -> Any:
            return map_leaves(lambda leaf: backend.put(np.array(leaf), "float32"), tree)

        kept = {"batch_stats": put(init_batch_stats(net))}
        kept |= {"average": put(init_params(net, 0)) if average else ()}
        params = put(init_params(net, 0))
        state = init_state(params, rule, **kept, with_accuracy=accuracy, xp=backend.xp)
        plan = with_draws(plan_epoch(ROWS, ROWS), augmentation, seed=0, epoch=0)
        draws = map_leaves(
            lambda leaf: backend.put(leaf, "float32" if leaf.dtype.kind == "f" else None),
            plan.draws or (),
        )
        x = generator.integers(0, 256, (50, FEATURES)).astype(np.uint8)
        here = backend.put(x)
        if sparse:
            here = put_sparse(backend, scipy.sparse.csr_array(x), "float32")
        rows = backend.put(np.arange(ROWS, dtype=np.int32))
        shares = put(generator.integers(0, 3, ROWS)) if weights else None
        batch = Batch(here, backend.put(y), Selection(rows, shares, draws or None))
        coefs = put(np.asarray((1.0, 0.1, 0.1, 0.1, *rule.coefficients(0.01, 1))))
        keys = backend.put(np.arange(net.n_keys, dtype=np.int32)) if net.n_keys else None
    return step, (state, batch, None, coefs, keys)


def launches_of(backend: Backend, **settings: Any) -> int:
    """Return how often a step launches something, once it is warm."""
    from cupy import _launch

    step, arguments = make(backend, **settings)
    with backend.scope():
        state = step(*arguments)
        _launch.launches.clear()
        step(state, *arguments[1:])
        return sum(_launch.launches.values())


def waits_of(backend: Backend, **settings: Any) -> dict[str, int]:
    """Return what a step waits for, by its name."""
    from cupy import _launch

    step, arguments = make(backend, **settings)
    with backend.scope():
        _launch.waits.clear()
        step(*arguments)
        return dict(_launch.waits)


def table(backend: Backend) -> str:
    lines = ["| step | before | now | products by cuBLAS |", "| --- | --: | --: | --: |"]
    plain = replace(backend.kernels, dense=affine)
    for name, (settings, before) in STEPS.items():
        now, by_cublas = (launches_of(backend, kernels=own, **settings) for own in (None, plain))
        lines.append(f"| {name} | {before} | {now} | {by_cublas} |")
    return "\n".join(lines)


def written() -> str:
    return PAGE.read_text().partition(START)[2].partition(END)[0].strip()


if __name__ == "__main__":
    text = PAGE.read_text()
    start, end = text.index(START) + len(START), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{table(make_backend('cupy:cuda:0'))}\n{text[end:]}")
