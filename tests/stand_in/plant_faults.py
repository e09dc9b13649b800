"""Plant faults that CUDA would keep quiet about in the backends, one at a time: tests find each.

``PYTHONPATH=tests/stand_in/packages python tests/stand_in/plant_faults.py`` takes two minutes.
"""

import importlib
import json
import os
import sys
import tempfile
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OPTIONS = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "", "--grid=values"]
FAULTS = json.loads(Path(__file__).with_name("faults.json").read_text(encoding="utf-8"))
PRELOADED = "numpy", "scipy.sparse", "sklearn.base", "sklearn.metrics", "cupy", "cupyx", "nvmath"


class Loader(SourceFileLoader):
    """The loader of a module with a fault."""

    fault: dict[str, str]

    def get_code(self, fullname: str) -> Any:
        text = self.get_data(self.path).decode()
        if text.count(self.fault["was"]) != 1:
            raise SystemExit("the code has changed: write this fault anew")
        return compile(text.replace(self.fault["was"], self.fault["now"]), self.path, "exec")


class Finder:
    """What makes Python import the module of a fault by its loader."""

    def __init__(self, fault: dict[str, str]) -> None:
        self.fault = fault
        self.module = fault["file"].removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.module:
            return None
        spec: Any = PathFinder.find_spec(name, path)
        spec.loader = Loader(name, spec.origin)
        spec.loader.fault = self.fault
        return spec


def run(tests: str, fault: dict[str, str] | None) -> tuple[int, str]:
    """Return the status of pytest in a process of its own, which has most imports, and its end."""
    with tempfile.TemporaryFile("w+") as output:
        if child := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            return status, output.read()[-2000:]
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        if fault is not None:
            sys.meta_path.insert(0, Finder(fault))
        import pytest

        status = pytest.main([*OPTIONS, "--backends=cupy:cuda:1", tests])
        sys.stdout.flush()
        os._exit(status)


def main() -> int:
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in PRELOADED:
        importlib.import_module(name)
    wrong = []
    for tests in sorted({fault["tests"] for fault in FAULTS}):
        status, text = run(tests, None)
        if status != 0:
            wrong.append(f"{tests} fails without a fault:\n{text}")
    for fault in FAULTS:
        status, text = run(fault["tests"], fault)
        print(f"{'found' if status == 1 else 'NOT FOUND':10} {fault['name']}", flush=True)
        if status != 1:
            wrong.append(f"{fault['name']}: {fault['tests']} ends with {status}\n{text}")
    print(*wrong, sep="\n")
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
