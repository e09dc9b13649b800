"""torch's modules with the fused form of its optimizers: eager, compiled or as a CUDA graph."""

import shutil
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.suite.workloads import Contender, Task


def network(task: Task) -> nn.Sequential:
    activation = {"relu": nn.ReLU, "logistic": nn.Sigmoid}[task.net.activation]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(task.net.widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def make(
    task: Task, *, device: str = "cpu", mode: str = "eager", precision: str = "float32"
) -> Contender:
    """Return a contender; modes: eager, compiled, graph; precisions: float32, tf32, bf16."""
    torch.manual_seed(0)
    on_cpu = device == "cpu"
    if on_cpu:
        torch.set_num_threads(task.threads)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    model: nn.Module = network(task).to(device)
    kind, own = torch.optim.SGD, task.net.momentum
    rate: Any = task.net.learning_rate
    if task.net.solver == "adam":
        kind, own = torch.optim.Adam, {"capturable": not on_cpu}
        rate = rate if on_cpu else torch.tensor(rate, device=device)
    rule, criterion = kind(model.parameters(), rate, fused=True, **own), nn.CrossEntropyLoss()
    if mode == "compiled":
        if not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise RuntimeError("torch.compile needs a C++ compiler, but none is installed")
        torch.compiler.reset()  # The ninth network of a process would otherwise run eagerly.
        model = torch.compile(model, mode="default" if on_cpu else "reduce-overhead")
    x, y = torch.from_numpy(task.x).to(device), torch.from_numpy(task.y).long().to(device)
    low = {"enabled": precision == "bf16", "cache_enabled": mode != "graph"}

    def step(rows: torch.Tensor) -> torch.Tensor:
        rule.zero_grad(set_to_none=mode != "graph")
        with torch.autocast(torch.device(device).type, torch.bfloat16, **low):
            loss = criterion(model(x[rows]), y[rows])
        loss.backward()
        rule.step()
        return loss

    if mode == "graph":
        step = _captured(step, torch.zeros(task.net.batch_size, dtype=torch.long, device=device))

    def train(epochs: int) -> float:
        for _ in range(epochs):
            # Rows are indexed directly, because a DataLoader would collate them one by one.
            plan = [...]
            if task.net.batch_size < len(x):
                plan = torch.randperm(len(x), device=device).split(task.net.batch_size)
            for rows in plan:
                if on_cpu or mode == "eager" or len(rows) == task.net.batch_size:
                    loss = step(rows)
        return loss.item()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, **low):
            return model(torch.from_numpy(rows)).argmax(1).numpy()

    return Contender(train, predict)


def _captured(step, rows: torch.Tensor):
    """Return a step that replays a CUDA graph, which reads its rows from a fixed buffer."""
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(rows)

    def replay(new: torch.Tensor) -> torch.Tensor:
        rows.copy_(new)
        graph.replay()
        return loss

    return replay
