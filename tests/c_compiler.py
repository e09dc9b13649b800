"""Compile C in tests, with the machine's compilers and the clang of the package ziglang."""

import ctypes
import importlib.util
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
C99, CPP17 = ("-std=c99", "-O2", *WARNINGS), ("-std=c++17", "-O2", *WARNINGS)


def compilers(language: str = "c") -> dict[str, tuple[str, ...]]:
    """Return the command of each compiler by name, for ``"c"`` or ``"c++"``; skip if none."""
    found: dict[str, tuple[str, ...]] = {}
    names = ("gcc", "clang", "cc") if language == "c" else ("g++", "clang++", "c++")
    for name in names:
        path = shutil.which(name)
        if path and Path(path).resolve() not in [Path(c).resolve() for c, *_ in found.values()]:
            found[name] = (path,)
    if importlib.util.find_spec("ziglang"):
        found["zig"] = zig("cc" if language == "c" else "c++")
    if not found:
        pytest.skip("a C compiler is not installed: install gcc, or ziglang with pip")
    return found


def zig(*command: str) -> tuple[str, ...]:
    """Return a command of ziglang, e.g. ``zig("cc", "-target", "wasm32-wasi")``."""
    return (sys.executable, "-m", "ziglang", *command)


def build(
    command: Sequence[str], source: Path, target: Path, *options: str, flags: Sequence[str] = C99
) -> Path:
    """Compile a file, which must print nothing; libraries follow in ``options``."""
    done = subprocess.run(
        [*command, *flags, "-o", str(target), str(source), *options, "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), done.stderr
    return target


def build_library(source: str, folder: Path, **options: Sequence[str]) -> ctypes.CDLL:
    """Compile C as a shared library with the first compiler, and load it."""
    command = next(iter(compilers().values()))
    file = folder / "source.c"
    file.write_text(source)
    return ctypes.CDLL(
        str(build(command, file, folder / "source.so", "-shared", "-fPIC", **options))
    )


def build_program(
    header: Path, macro: str, *, language: str = "c", flags: Sequence[str] = (), target: str = ""
) -> Path:
    """Compile the program of a header that a macro selects, with the first compiler or zig."""
    command = next(iter(compilers(language).values()))
    if target:
        command = zig("cc" if language == "c" else "c++", "-target", target)
    program = header.with_name(f"{macro}-{language}{target}")
    options = (*(flags or (C99 if language == "c" else CPP17)), f"-D{macro}")
    return build((*command, "-x", language), header, program, "-x", "none", flags=options)


def predict_csv(program: Path, rows: str | np.ndarray) -> np.ndarray:
    """Return the predictions that a header's program prints for a matrix, or the text of a file."""
    if not isinstance(rows, str):
        rows = "\n".join(",".join(map(repr, row)) for row in np.asarray(rows, float).tolist())
    done = subprocess.run([program], input=rows.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return np.loadtxt(io.StringIO(done.stdout.decode()), delimiter=",", ndmin=2)
