"""Optimize printed loops with LLVM; needs llvmlite."""

from __future__ import annotations

from typing import Any

from llvmlite import binding


def create_machine(cpu: str, features: str) -> Any:
    """Return LLVM's code generator for a processor."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def optimize(text: str, machine: Any) -> Any:
    """Return a module that LLVM has optimized, e.g. vectorized, for a machine."""
    module = binding.parse_assembly(text)
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False  # Unrolled again, loops are seldom faster, but compile longer.
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return module


def assembly(text: str) -> str:
    """Return the machine code of a loop for this processor, as text."""
    name, features = binding.get_host_cpu_name(), binding.get_host_cpu_features()
    machine = create_machine(name, features.flatten())
    code: str = machine.emit_assembly(optimize(text, machine))
    return code
