"""Compile units of machine code with numba in a separate process.

The training process never imports numba, so it needs less memory and starts faster, and Ctrl-C does
not wait for a compiler.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Sequence

from llvmlite import binding
from numba import cfunc

from mlp_xp.backends._numpy.machine_code._cpu import target_machine
from mlp_xp.backends._numpy.machine_code._entry_points import signature, source
from mlp_xp.backends._numpy.machine_code._intrinsics import OPTIONS
from mlp_xp.backends._numpy.runtime.tasks import Unit

# The external functions that machine code may call: LLVM intrinsics and C library functions.
_ALLOWED = re.compile(r"llvm\..*|logf?|sqrtf?|clock_gettime|sched_yield|syscall|mem(cpy|set|move)")


def build(unit: Unit) -> bytes:
    """Compile a unit to an object file that exports one function, with the unit's name."""
    compiled = cfunc(signature(unit), **OPTIONS)(source(unit))
    text = compiled.inspect_llvm().replace(compiled.native_name, unit.name)
    module = binding.parse_assembly(text)
    for value in (*module.functions, *module.global_variables):
        if value.name != unit.name and not value.is_declaration:
            value.linkage = "internal"
    # Numba's wrapper calls Python to handle exceptions. In these passes, LLVM detects that the
    # units raise no exceptions and removes the calls.
    passes, machine = binding.create_new_module_pass_manager(), target_machine()
    passes.add_ipsccp_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    # Replace numba's names, which depend on earlier compilations.
    passes.add_strip_symbols_pass()
    options = binding.create_pipeline_tuning_options()
    passes.run(module, binding.create_pass_builder(machine, options))
    called = [function.name for function in module.functions if function.is_declaration]
    unknown = [name for name in called if not _ALLOWED.fullmatch(name)]
    if unknown:
        raise RuntimeError(f"{unit.name} calls {', '.join(unknown)}, which may be missing.")
    code: bytes = machine.emit_object(module)
    return code


def main(units: Sequence[Sequence[int]]) -> None:
    """Compile units and write their object files to standard output, as JSON."""
    codes = [base64.b64encode(build(Unit(*fields))).decode() for fields in units]
    json.dump(codes, sys.stdout)
