"""Compile, cache and load machine code for the NumPy backend.

A kernel call is a record with named fields (`runtime.tasks`). The interpreter is not involved when
a thread, or a pool of threads, runs a table of kernel calls. The pool's threads synchronize within
a microsecond; BLAS, OpenMP or Python threads need 10 to 50 microseconds. Matrix products use our
own generated code or SciPy's BLAS, which each thread calls for its part of the result.

Each kind of kernel call is compiled when it is first needed (`_entry_points`), in a separate
process (`_build`), and stored as an object file. Machine code is always loaded from that file, so
results do not depend on whether it was cached. This module finds, checks and loads the files. It
needs llvmlite but not numba.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llvmlite import binding

from mlp_xp._utils.signals import interruptible, postponed
from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp._utils.storage.durable import locked, replacing
from mlp_xp._utils.storage.paths import cache_dir
from mlp_xp._utils.threads import usable_threads
from mlp_xp.backends._numpy.machine_code._cpu import (
    bfloat16_packing,
    describe_cpu,
    find_tile,
    is_zen,
    target_machine,
)
from mlp_xp.backends._numpy.runtime import tasks
from mlp_xp.backends._numpy.runtime.loops import LOOPS
from mlp_xp.backends._numpy.runtime.tasks import MachineCodeError, Unit, number_of
from mlp_xp.compiler import llvm
from mlp_xp.compiler.print_cpu import Loop

_CHILD = """
import json, sys
path, units = map(json.loads, sys.argv[1:])
sys.path[:] = [*filter(None, sys.path), *path]
import numba  # The user's folder, added below, may have a `coverage.py`.
sys.path[:] = path
from mlp_xp.backends._numpy.machine_code._build import main
main(units)
"""
_POLL = 0.05  # The interval in seconds at which to check for finished compilers.
# Approximate compile times in tenths of a second, to divide the units evenly among processes.
_EFFORT = {0: 8} | {
    number_of(kind): effort
    for kind, effort in {
        tasks.TiledProduct: 14,
        tasks.GradientLoop: 10,
        tasks.Softmax: 6,
        tasks.Copy: 3,
        tasks.AddRows: 2,
        tasks.ColumnSums: 3,
        tasks.Pack: 5,
        tasks.Product: 3,
    }.items()
}

_FORMULA = number_of(tasks.FormulaLoop)
_addresses: dict[Unit, int] = {}
_lock = fork_safe_lock()


def addresses(units: Iterable[Unit]) -> dict[Unit, int]:
    """Return the address of each unit's machine code; compile and load missing units."""
    with _lock:
        missing = [unit for unit in dict.fromkeys(units) if unit not in _addresses]
        for unit in [unit for unit in missing if unit.kind == _FORMULA]:
            _addresses[unit] = _load_loop(LOOPS[unit.variant])
        missing = [unit for unit in missing if unit.kind != _FORMULA]
        if missing:
            codes = _kept(missing)
            if len(codes) < len(missing):
                with _one_process():  # Another process may have compiled these units.
                    codes = _kept(missing)
                    absent = [unit for unit in missing if unit not in codes]
                    compiled = _compile(absent) if absent else {}
                    for unit, code in compiled.items():
                        _write(unit.name, code)
                    codes |= compiled
            for unit, code in codes.items():
                _addresses[unit] = _load(unit.name, code)
        return _addresses


def all_units() -> list[Unit]:
    """Return all compilation units for this processor."""
    return tasks.all_units(has_tile=find_tile() is not None, packing=bfloat16_packing())


def compile_all() -> Path | None:
    """Compile all units that are not cached; return the cache folder, or None if there is none."""
    addresses(all_units())
    return _writable()


@cache
def run_tasks() -> Callable[..., int]:
    """Return the function that runs tables of kernel calls; it releases the GIL."""
    address = addresses([Unit(0)])[Unit(0)]
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)(address)


@cache
def blas_address(is_double: bool) -> int:
    """Return the address of SciPy's BLAS function for matrix products."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__["dgemm" if is_double else "sgemm"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = (
        ctypes.c_char_p,
        [ctypes.py_object],
    )
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    assert address
    return int(address)


@cache
def _engine() -> Any:
    return binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine())


def _load(name: str, code: bytes) -> int:
    """Load an object file and return the address of its function."""
    engine = _engine()
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(name))


def _load_loop(loop: Loop) -> int:
    """Return the address of a formula's loop, compiled in this process (a tenth of a second).

    It is always loaded from its object file, so results do not depend on whether it was cached.
    """
    code = _read(loop.name)
    if code is None:
        machine = target_machine()
        code = machine.emit_object(llvm.optimize(loop.text, machine))
        _write(loop.name, code)
    return _load(loop.name, code)


# --- the compiler ---------------------------------------------------------------------------------


def _compile(units: Sequence[Unit]) -> dict[Unit, bytes]:
    """Compile units in other processes, and print a message to stderr."""
    kept = (
        "once for this installation"
        if _writable()
        else "for this process, as no cache can be written"
    )
    print(f"mlp_xp: compiling machine code for NumPy ({kept}) ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        codes = _compile_apart(units)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if (status := getattr(error, "returncode", 0)) < 0:  # It could end this process, too.
            raise MachineCodeError(f"the compiler was ended by signal {-status}") from error
        codes = _compile_here(units)  # Compile in this process instead.
    seconds = time.perf_counter() - start
    print(f"mlp_xp: compiled in {seconds:.1f} s.", file=sys.stderr, flush=True)
    return codes


def _compile_apart(units: Sequence[Unit]) -> dict[Unit, bytes]:
    if getattr(sys, "frozen", False):  # `sys.executable` would start the application again.
        raise OSError("A frozen application cannot start Python.")
    parts: list[list[Unit]] = [[] for _ in range(min(usable_threads(), 2, len(units)))]
    for unit in sorted(units, key=lambda unit: -_EFFORT.get(unit.kind, 1)):
        min(parts, key=lambda part: sum(_EFFORT.get(u.kind, 1) for u in part)).append(unit)
    # Make the order of Python's sets, and so the compiled code, reproducible. If numba ignored AVX,
    # as on some virtual machines, LLVM would abort.
    name, features = describe_cpu()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in sys.path])]
    codes: dict[Unit, bytes] = {}
    with contextlib.ExitStack() as stack, interruptible():
        children = []
        for part in parts:
            with postponed():  # A started process must be registered in the stack.
                # In new sessions, the others do not receive Ctrl-C; this process kills them.
                child = subprocess.Popen(
                    [*command, json.dumps(part)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
                stack.enter_context(child)
                stack.callback(child.kill)
            children.append(child)
        for part, child in zip(parts, children, strict=True):
            out = None
            while out is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    out, err = child.communicate(timeout=_POLL)
            if child.returncode:
                raise subprocess.CalledProcessError(child.returncode, "numba", out, err)
            for unit, text in zip(part, json.loads(out), strict=True):
                codes[unit] = base64.b64decode(text)
    return codes


def _compile_here(units: Sequence[Unit]) -> dict[Unit, bytes]:
    try:
        from mlp_xp.backends._numpy.machine_code._build import build

        return {unit: build(unit) for unit in units}
    except Exception as error:  # Numba's internals may have changed.
        line = str(error).partition("\n")[0]
        raise MachineCodeError(f"{type(error).__name__}: {line}") from error


# --- the cache ------------------------------------------------------------------------------------


@cache
def _key() -> str:
    """Return a hash of everything that the machine code depends on."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    shared = (here.parent / "runtime" / name for name in ("tasks.py", "tuning.py"))
    for file in (*sorted(here.glob("*.py")), *shared, Path(llvm.__file__)):
        digest.update(file.read_bytes())
    versions = [metadata.version(name) for name in ("numba", "llvmlite")]
    settings = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_")}
    settings.pop("NUMBA_NUM_THREADS", None)  # Numba's threads are unused.
    facts = sys.version, versions, describe_cpu(), sorted(settings.items())
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:20]


def _folders() -> Iterator[Path]:
    """Yield the folders where machine code may be stored, in order of preference."""
    # Prefer the folder with Python's bytecode, so that all users can load code compiled when the
    # container image was built.
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # The user may have no home folder.
        yield cache_dir() / "machine-code"
    yield Path(tempfile.gettempdir()) / f"mlp-xp-{os.getuid()}"


def _is_safe(folder: Path) -> bool:
    """Whether only this user or the superuser can write to a folder."""
    status = folder.stat()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022


@cache
def _writable() -> Path | None:
    """Return the first folder where machine code can be stored, or None."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if _is_safe(folder):
                with tempfile.TemporaryFile(dir=folder):
                    return folder
    return None


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}-{_key()}.bin"


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Wait while another process, such as another rank, compiles code for the same folder."""
    folder = _writable()
    if folder is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with interruptible(), contextlib.suppress(OSError):  # Some file systems lack locks.
            stack.enter_context(locked(folder, waits=True))
        yield


def _kept(units: Sequence[Unit]) -> dict[Unit, bytes]:
    """Return these units' cached object files."""
    found = {unit: _read(unit.name) for unit in units}
    return {unit: code for unit, code in found.items() if code is not None}


def _read(name: str) -> bytes | None:
    """Return a function's cached object file, or None if it is missing or corrupt."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            if not _is_safe(folder):
                continue
            content = _file(folder, name).read_bytes()
            digest, code = content[:32], content[32:]
            if hashlib.sha256(code).digest() == digest:
                return code
    return None


def _write(name: str, code: bytes) -> None:
    """Write an object file to the cache, completely or not at all."""
    folder = _writable()
    if folder is None:
        return
    # Ignore a full disk: the cache only saves time. The hash detects an incomplete file.
    with contextlib.suppress(OSError), replacing(_file(folder, name), flushes=False) as file:
        file.write_bytes(hashlib.sha256(code).digest() + code)
        file.chmod(0o644)  # Let all users read the file.
