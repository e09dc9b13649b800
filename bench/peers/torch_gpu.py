"""torch on a device: eagerly, compiled, or with the whole step in one CUDA graph."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from bench.peers.contest import Contender, Task
from bench.peers.torch_eager import network


def make(task: Task, *, device: str, mode: str = "eager", precision: str = "float32") -> Contender:
    """Train as `peers.torch_eager` does, with the data on the device.

    ``mode`` is "eager", "compiled" or "graph"; ``precision`` "float32", "tf32" or "bf16".
    """
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    model: nn.Module = network(task).to(device)
    rule = torch.optim.Adam(
        model.parameters(),
        lr=torch.tensor(task.learning_rate, device=device),
        fused=True,
        capturable=device != "cpu",
    )
    criterion = nn.CrossEntropyLoss()
    if mode == "compiled":
        model = torch.compile(model, mode="reduce-overhead")
    x, y = torch.from_numpy(task.x).to(device), torch.from_numpy(task.y).long().to(device)
    kind = torch.device(device).type

    def low() -> contextlib.AbstractContextManager[object]:
        if precision == "bf16":
            return torch.autocast(kind, torch.bfloat16, cache_enabled=mode != "graph")
        return contextlib.nullcontext()

    def step(rows: torch.Tensor) -> torch.Tensor:
        rule.zero_grad(set_to_none=mode != "graph")
        with low():
            loss = criterion(model(x[rows]), y[rows])
        loss.backward()
        rule.step()
        return loss

    if mode == "graph":
        step = _captured(step, torch.zeros(task.batch_size, dtype=torch.long, device=device))

    def train(epochs: int) -> float:
        for _ in range(epochs):
            for rows in torch.randperm(len(x), device=device).split(task.batch_size):
                if len(rows) == task.batch_size or mode == "eager":
                    loss = step(rows)
        return loss.item()

    return Contender(train)


def _captured(step, rows: torch.Tensor):
    """Return the step as the replay of a graph, which takes its rows from a fixed buffer."""
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
