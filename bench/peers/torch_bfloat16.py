"""torch with automatic mixed precision: products in bfloat16, parameters in float32."""

from __future__ import annotations

import torch
from contest import Contender, Task

from peers.torch_eager import contend, network


def make(task: Task) -> Contender:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    return contend(task, network(task), bfloat16=True)
