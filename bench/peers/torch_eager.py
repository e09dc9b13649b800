"""torch's modules with the fused form of its optimizers; eager, compiled or in mixed precision."""

from __future__ import annotations

import shutil
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from bench.peers.contest import MOMENTUM, Contender, Task


def network(task: Task) -> nn.Sequential:
    activation = {"relu": nn.ReLU, "logistic": nn.Sigmoid}[task.activation]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(task.widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def optimizer(task: Task, model: nn.Module) -> torch.optim.Optimizer:
    if task.solver == "adam":
        return torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    momentum = {"momentum": MOMENTUM, "nesterov": True} if task.solver == "sgd" else {}
    return torch.optim.SGD(model.parameters(), lr=task.learning_rate, fused=True, **momentum)


def contend(task: Task, model: nn.Module, *, bfloat16: bool = False) -> Contender:
    """Train and use a model, which may have been compiled."""
    rule = optimizer(task, model)
    criterion = nn.CrossEntropyLoss()
    x, y = torch.from_numpy(task.x), torch.from_numpy(task.y).long()
    full = task.batch_size >= len(x)

    def train(epochs: int) -> float:
        for _ in range(epochs):
            # Rows are taken by index: a DataLoader would collate them one by one.
            plan = [...] if full else torch.randperm(len(x)).split(task.batch_size)
            for rows in plan:
                rule.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = criterion(model(x[rows]), y[rows])
                loss.backward()
                rule.step()
        return loss.item()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model(torch.from_numpy(rows)).argmax(1).numpy()

    return Contender(train, predict)


def make(task: Task, *, compiled: bool = False, bfloat16: bool = False) -> Contender:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    model: nn.Module = network(task)
    if compiled:
        if not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise RuntimeError("torch.compile needs a C++ compiler, and there is none")
        model = torch.compile(model)
    return contend(task, model, bfloat16=bfloat16)
