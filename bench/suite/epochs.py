"""An epoch of this library's own training loop, as the benchmarks time it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.suite.workloads import Workload
from mlp_xp.backends import Backend
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import Adam
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.input_scaling import standardization
from mlp_xp.training.data.placement import place
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.trainer import Trainer


def make_epoch(
    backend: Backend, workload: Workload, x: np.ndarray, y: np.ndarray, placement: Any
) -> Callable[[], None]:
    """Return the function of an epoch, which ends when the device is done."""
    trainer = Trainer(
        backend,
        Rules(
            Network(workload.widths, workload.activation),
            SoftmaxCrossEntropy(),
            Adam(),
            learning_rate=0.001,
        ),
        params=init_params(Network(workload.widths, workload.activation), 0),
        dtype="float32",
        scaling=standardization(backend, x, "float32"),
    )
    data = place(backend, x, y, "float32", placement)

    def epoch() -> None:
        plan = plan_epoch(
            len(x), workload.batch_size, seed=0, epoch=trainer.n_epochs, pad=backend.fixed_shapes
        )
        trainer.run_epoch(data, plan, n_epochs=1, step_by_step=False)
        backend.synchronize()

    return epoch
