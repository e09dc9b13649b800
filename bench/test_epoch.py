"""Images per second of a training epoch, on each backend.

    pytest bench/test_epoch.py --benchmark-enable --benchmark-json=epoch.json

One epoch before the timed rounds compiles and warms up; a round ends when the device is done.
"""

from __future__ import annotations

from typing import Any

import pytest
from workloads import WORKLOADS, Workload, load

from mlp_xp.backends import Backend
from mlp_xp.nn.losses import SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, init_params
from mlp_xp.optimizers import Adam
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.input_scaling import standardization
from mlp_xp.training.rules import Rules
from mlp_xp.training.trainer import Trainer


@pytest.mark.parametrize("placement", ["resident", "streamed"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_epoch(
    benchmark: Any,
    backend: Backend,
    workload: Workload,
    placement: Any,
    rounds: int,
    n_images: int | None,
) -> None:
    n_images = workload.batch_size + 1 if benchmark.disabled else n_images or workload.n_images
    x, y, source = load(workload.data, n_images)
    network = Network(workload.widths, workload.activation)
    trainer = Trainer(
        backend,
        Rules(network, SoftmaxCrossEntropy(), Adam(), learning_rate=0.001),
        params=init_params(network, 0),
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

    benchmark.group = workload.title
    benchmark.extra_info |= {
        "workload": workload.title,
        "placement": placement,
        "images": len(x),
        "data": source,
    }
    benchmark.pedantic(epoch, rounds=rounds, warmup_rounds=1)
    if benchmark.enabled:
        benchmark.extra_info["images_per_second"] = len(x) / benchmark.stats["median"]
