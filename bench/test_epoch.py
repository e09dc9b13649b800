"""Images per second of a training epoch, on each backend; see README.md."""

from typing import Any

import pytest

from bench.suite.workloads import WORKLOADS, Workload, backend_of, load, make_epoch
from mlp_xp.backends import BackendError


@pytest.mark.parametrize("placement", ["resident", "streamed"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_epoch(
    benchmark: Any, spec: str, workload: Workload, placement: Any, pytestconfig: Any
) -> None:
    try:
        backend = backend_of(spec)
    except BackendError as error:
        pytest.skip(str(error))
    n_images = pytestconfig.getoption("--bench-images") or workload.n_images
    if benchmark.disabled:
        n_images = workload.batch_size + 1
    x, y, source = load(workload.data, n_images)
    epoch = make_epoch(backend, workload, x, y, placement)
    benchmark.group = workload.title
    details = {"workload": workload.title, "placement": placement, "images": len(x), "data": source}
    benchmark.extra_info |= {"backend": spec} | backend.describe() | details
    benchmark.pedantic(epoch, rounds=pytestconfig.getoption("--bench-rounds"), warmup_rounds=1)
    if benchmark.enabled:
        benchmark.extra_info["images_per_second"] = len(x) / benchmark.stats["median"]
