"""torch with its compiler, which writes C++ of the forward and the backward pass."""

from __future__ import annotations

import shutil

import torch
from contest import Contender, Task

from peers.torch_eager import contend, network


def make(task: Task) -> Contender:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise RuntimeError("torch.compile needs a C++ compiler, and there is none")
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    return contend(task, torch.compile(network(task)))
