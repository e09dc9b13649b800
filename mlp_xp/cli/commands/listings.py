"""``mlp-xp data``, ``recipes``, ``backends`` and ``compile``: information about this machine."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from itertools import count
from textwrap import shorten

from mlp_xp.backends import BACKENDS, compile_ahead, get_backend, how_to_install, installed
from mlp_xp.cli.loading import GPU, describe, missing_for
from mlp_xp.cli.terminal.lines import print_line
from mlp_xp.cli.terminal.output import Output
from mlp_xp.datasets import LOADERS, locate
from mlp_xp.recipes import names, read_table


def run_data(args: argparse.Namespace, output: Output) -> int:
    """Print one line for each data set."""
    if args.fetch is not None:
        data = LOADERS[args.fetch]()
        print_line(
            f"{args.fetch}: {len(data.x_train):,} images to train on, {len(data.x_test):,} to "
            f"test, {len(data.class_names)} classes, (channels, height, width) {data.image_shape}"
        )
    for name in LOADERS if args.name is None and args.fetch is None else [args.name or args.fetch]:
        path = locate(name)
        if path is None:
            print_line(f"{name:13}  not found; to download it, type mlp-xp data --fetch {name}")
            continue
        files = path.iterdir() if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
        print_line(f"{name:13}  {size / 1e6:6.1f} MB  {path}")
    return 0


def run_recipes(args: argparse.Namespace, output: Output) -> int:
    """Print one line for each recipe."""
    for name in names():
        missing = missing_for(name)
        needs = "" if missing is None else f"; needs {missing}, which this machine lacks"
        if missing not in (None, GPU):
            needs = f"; {missing} is not installed, so it runs on NumPy, which is slower"
        print_line(f"{name:13}  {read_table(name)['description']}{needs}")
    return 0


def run_backends(args: argparse.Namespace, output: Output) -> int:
    """Print one line for each backend and device."""
    print_line(f"Python {platform.python_version()}, {platform.platform()}")
    for name in BACKENDS:
        with output.doing(f"loading {name}"):
            found = [*_devices(name)]
        for device, text in found:
            print_line(f"{name:16}  {device:7}  {text}")
    if os.name == "posix" and importlib.util.find_spec("numba") is not None:
        print_line(f"numba {version('numba')} speeds up numpy")
    auto = get_backend("auto")
    print_line(f"auto selects {auto.name} on {auto.device}")
    return 0


def run_compile(args: argparse.Namespace, output: Output) -> int:
    """Compile the machine code for NumPy, and print the folder that contains it."""
    print_line(f"machine code for NumPy is stored in {compile_ahead()}")
    return 0


def _devices(name: str) -> Iterator[tuple[str, str]]:
    """Yield each device of a backend, with its description or the reason why it fails."""
    if not installed(name):
        yield "", f"not installed: type {how_to_install(name)}"
        return
    for kind in BACKENDS[name].devices or (None,):
        for index in count():
            device = f"cuda:{index}" if kind == "cuda" else kind
            try:
                text = describe(get_backend(name, device))
            except Exception as error:  # A broken installation or driver can raise any error.
                if index == 0:
                    reason = str(error).partition("; `mlp-xp backends`")[0]
                    reason = reason.replace(": leave out backend and device", "")
                    yield device or "", f"unusable: {shorten(reason, 200)}"
                break
            yield device or "", text
            if kind != "cuda":
                break
