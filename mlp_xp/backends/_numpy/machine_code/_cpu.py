"""The processor that machine code is for; needs llvmlite alone, which loads in no time."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import binding

__all__ = ["describe_cpu", "has_bfloat16", "has_tile", "is_zen", "target_machine"]


@cache
def describe_cpu() -> tuple[str, str]:
    """Return the processor's name and its features, as LLVM writes them."""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


@cache
def has_tile() -> bool:
    """Whether the processor has AVX-512; with shorter vectors the tile does not fit."""
    return bool(binding.get_host_cpu_features().get("avx512f"))


@cache
def has_bfloat16() -> bool:
    """Whether the processor multiplies pairs of bfloat16 numbers in vectors of 512 bits."""
    return has_tile() and bool(binding.get_host_cpu_features().get("avx512bf16"))


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
