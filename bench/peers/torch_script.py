"""A torch script that trains and tests on CIFAR-10 as `mlp-xp train` does without options.

Usage: python bench/peers/torch_script.py ~/.cache/mlp-xp/cifar10 --epochs 12
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn


def load(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    x = np.load(folder / f"x_{part}.npy").astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(np.load(folder / f"y_{part}.npy")).long()


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with x_train.npy, y_train.npy and so on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    x, y = load(args.folder, "train")
    x_test, y_test = load(args.folder, "test")
    std, mean = torch.std_mean(x, dim=0)
    x.sub_(mean).div_(std)
    x_test.sub_(mean).div_(std)

    model = nn.Sequential(
        nn.Linear(x.shape[1], 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=1.0, fused=True)
    steps = args.epochs * -(-len(x) // 128)
    # `mlp-xp train` keeps Adam's momentum constant, too.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.001, total_steps=steps, cycle_momentum=False
    )
    start = time.perf_counter()
    for _ in range(args.epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
    return {"test_accuracy": accuracy, "training_seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main()))
