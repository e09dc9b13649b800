"""The processor that machine code is for; needs llvmlite alone, which loads in no time."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

from llvmlite import binding

from mlp_xp.backends._numpy.native.jobs import AMX, NUMBERS, PAIRS
from mlp_xp.backends._numpy.native.tuning import AVX2_TILE, AVX512_TILE, Tile


@cache
def _features() -> Any:
    """Return the processor's features, without those whose names begin as MLP_XP_WITHOUT says.

    So ``MLP_XP_WITHOUT=avx512`` compiles what a processor with AVX2 runs.
    """
    features = binding.get_host_cpu_features()
    left_out = tuple(filter(None, os.environ.get("MLP_XP_WITHOUT", "").split(",")))
    for name in features:
        features[name] = features[name] and not name.startswith(left_out)
    return features


@cache
def describe_cpu() -> tuple[str, str]:
    """Return the processor's name and its features, as LLVM writes them."""
    return binding.get_host_cpu_name(), _features().flatten()


@cache
def has_avx512() -> bool:
    """Whether the processor has vectors of 512 bits."""
    return bool(_features().get("avx512f"))


@cache
def bfloat16_packing() -> int:
    """Return how pairs of bfloat16 are packed for this processor, `NUMBERS` if it has none."""
    if not (has_avx512() and _features().get("avx512bf16")):
        return NUMBERS
    has_amx = all(_features().get(name) for name in ("amx-tile", "amx-bf16"))
    return AMX if has_amx and _may_use_tiles() else PAIRS


def _may_use_tiles() -> bool:
    """Ask Linux for the registers of AMX, which it gives to a process and all its threads.

    It refuses where a thread has a stack for signals that is too small for them.
    """
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    refused: int = ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)
    return refused == 0


@cache
def find_tile() -> Tile | None:
    """Return the tile of our own products on this processor; without AVX2 there are none."""
    if has_avx512():
        return AVX512_TILE
    return AVX2_TILE if _features().get("avx2") and _features().get("fma") else None


@cache
def is_zen() -> bool:
    """Whether the processor is one of AMD's, which read rows that lie far apart without loss."""
    return describe_cpu()[0].startswith("znver")


def target_machine() -> Any:
    """Return what turns LLVM's language into machine code for this processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    name, features = describe_cpu()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=name, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )
