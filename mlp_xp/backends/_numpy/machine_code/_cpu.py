"""Detect the processor's features with llvmlite, which is faster to import than numba."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

from llvmlite import binding

from mlp_xp.backends._numpy.runtime.tasks import AMX, NUMBERS, PAIRS
from mlp_xp.backends._numpy.runtime.tuning import AVX2_TILE, AVX512_TILE, Tile
from mlp_xp.compiler.llvm import create_machine


@cache
def _features() -> Any:
    """Return the processor's features, excluding those with a prefix in MLP_XP_WITHOUT.

    For example, ``MLP_XP_WITHOUT=avx512`` compiles the code for a processor with only AVX2.
    """
    features = binding.get_host_cpu_features()
    left_out = tuple(filter(None, os.environ.get("MLP_XP_WITHOUT", "").split(",")))
    for name in features:
        features[name] = features[name] and not name.startswith(left_out)
    return features


@cache
def describe_cpu() -> tuple[str, str]:
    """Return the processor's name and features in LLVM's notation."""
    return binding.get_host_cpu_name(), _features().flatten()


@cache
def has_avx512() -> bool:
    """Whether the processor supports AVX-512."""
    return bool(_features().get("avx512f"))


@cache
def bfloat16_packing() -> int:
    """Return the processor's bfloat16 packing, or `NUMBERS` if it lacks bfloat16."""
    if not (has_avx512() and _features().get("avx512bf16")):
        return NUMBERS
    has_amx = all(_features().get(name) for name in ("amx-tile", "amx-bf16"))
    return AMX if has_amx and _may_use_tiles() else PAIRS


def _may_use_tiles() -> bool:
    """Request permission from Linux to use AMX's tile registers, for all threads of this process.

    Return False if Linux denies it, e.g. because a thread's signal stack is too small.
    """
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    refused: int = ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)
    return refused == 0


@cache
def find_tile() -> Tile | None:
    """Return the processor's tile for matrix products, or None if it lacks AVX2."""
    if has_avx512():
        return AVX512_TILE
    return AVX2_TILE if _features().get("avx2") and _features().get("fma") else None


@cache
def is_zen() -> bool:
    """Whether this is an AMD Zen processor, on which large row strides are not slower."""
    return describe_cpu()[0].startswith("znver")


def target_machine() -> Any:
    """Return LLVM's code generator for this processor."""
    return create_machine(*describe_cpu())
