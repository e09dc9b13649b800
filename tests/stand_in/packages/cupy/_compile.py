"""Compile CUDA C++ for the host, and call a kernel of it over a grid.

The headers in `_include` stand for what NVRTC has built in and for CuPy's own. What was compiled
stays in a folder of the user, by its content.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cupy._memory import IS_SANITIZED

INCLUDE = Path(__file__).with_name("_include")
HEADERS = ("device.h", "arrays.h", "launch.h")
# Not of the stack, which fibers change.
SANITIZERS = ("-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZERS += ("--param=asan-stack=0",)
STATUS = {
    1: "CUDA_ERROR_ILLEGAL_ADDRESS: an index outside of an array",
    2: "CUDA_ERROR_LAUNCH_TIMEOUT: threads of a block wait for each other at different places",
    4: "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: the blocks do not fit the device at once",
}


class CompileException(Exception):  # noqa: N818 - CuPy's name
    """The source of a kernel does not compile."""


class Kernel:
    def __init__(self, library: ctypes.PyDLL, name: str) -> None:
        self._name, self._launch = name, library._launch

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], call: Any, *, is_cooperative: bool = False
    ) -> None:
        """Run the kernel; the bytes of each of `call.values` are an argument."""
        args = call.values
        pointers = (ctypes.c_void_p * max(len(args), 1))(*(arg.ctypes.data for arg in args))
        sizes = (ctypes.c_int * max(len(args), 1))(*(arg.nbytes for arg in args))
        dims = (ctypes.c_uint * 7)(*grid, *block, is_cooperative)
        status, name = self._launch(pointers, sizes, len(args), dims), self._name
        if status == 3:
            raise TypeError(f"{name}: wrong number of arguments: {len(args)}")
        if status >= 100:
            # CUDA cannot notice: it reads as many bytes as the kernel declares.
            i = status - 100
            raise TypeError(f"{name}: argument {i} has {args[i].nbytes} bytes, not as declared")
        if status:
            raise RuntimeError(f"{name}: {STATUS[status]}")


@functools.cache
def compile_kernel(code: str, name: str, options: tuple[str, ...] = ()) -> Kernel:
    """Return the kernel of a source, which no two threads run at the same time."""
    flags = [option for option in options if option.startswith(("-D", "-I", "--define"))]
    includes = "".join(f'#include "{header}"\n' for header in HEADERS)
    source = f"{includes}#line 1\n{code}\nLAUNCHER({name})\n"
    # By default, as in NVRTC, a product and a sum are one operation, rounded once.
    flags.append(f"-ffp-contract={'off' if '--fmad=false' in options else 'fast'}")
    if "__syncthreads" in code or "cooperative_groups" in code:
        flags.append("-DWITH_FIBERS")
    if not re.search(r"\bdouble\b", code):
        flags.append("-DFLUSH_TO_ZERO")
    command = [
        *_compiler(),
        *("-x", "c++", "-std=c++17", "-O2", "-w", "-march=native"),
        *("-fPIC", "-shared", *(SANITIZERS if IS_SANITIZED else ())),
        # No library of C++ is linked: zig would have to build one.
        *("-fno-exceptions", "-fno-threadsafe-statics", "-U_FORTIFY_SOURCE"),
        *(f"-I{INCLUDE}", *flags),
    ]
    # A kernel may include further headers by itself.
    headers = (header.read_text() for header in sorted(INCLUDE.iterdir()))
    text = "\0".join([*command, *headers, source])
    path = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.so"
    if not path.exists():
        made = path.with_suffix(f".{os.getpid()}.so")
        command += ["-", "-o", str(made), "-lm"]
        env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        done = subprocess.run(command, input=source, capture_output=True, text=True, env=env)
        if done.returncode:
            raise CompileException(done.stderr)
        made.replace(path)
    # With the interpreter's lock: the indices of a thread are global.
    return Kernel(ctypes.PyDLL(str(path)), name)


@functools.cache
def _compiler() -> tuple[str, ...]:
    if found := shutil.which("c++") or shutil.which("clang++"):
        return (found,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++", "-nostdlib++")
    raise RuntimeError("The stand-in for CuPy compiles kernels; install c++, or ziglang with pip.")


@functools.cache
def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else os.getlogin()
    folder = Path(tempfile.gettempdir(), f"mlp_xp_kernels_{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or folder.is_symlink()):
        raise RuntimeError(f"{folder} belongs to somebody else; set TMPDIR to another folder.")
    return folder


def pack(*parts: Any) -> np.ndarray:
    """Return integers and pointers as one argument, each of 64 bits, as CuPy's structures are."""
    return np.array(parts, np.int64)
