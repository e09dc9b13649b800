"""Insert the small faults in `faults.json` one at a time, and report which faults the tests find.

mutmut 3.8.1 generated the faults: seven random mutations, but not of text, for each of twelve
subpackages. In a copy of the checkout, the tests of its subpackage run until one fails; if all
pass, ``--whole`` runs all other tests::

    python tests/faults.py --only 3 7 -- -m "" --grid=pairs --backends=numpy,torch:cpu

Options after ``--`` are passed to pytest. The faults in the use of CuPy name their own tests::

    PYTHONPATH=tests/stand_in/packages python tests/faults.py --faults tests/stand_in/faults.json \
        -- -m "" --grid=values --backends=cupy:cuda:1

The faults in `tests/bench/faults.json` also name their tests. They would waste time on a GPU.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAULTS = Path(__file__).with_suffix(".json")


def copy_checkout(folder: Path) -> None:
    """Copy all files that git tracks or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            shutil.copymode(ROOT / name, folder / name)
    # Machine code is cached by the hash of its sources, so most of it is not compiled again.
    kept = Path("mlp_xp", "backends", "_numpy", "machine_code", "__pycache__")
    if (ROOT / kept).is_dir():
        shutil.copytree(ROOT / kept, folder / kept, ignore=shutil.ignore_patterns("*.pyc"))


def run(folder: Path, tests: list[str], options: list[str], seconds: float) -> str | None:
    """Return the first test that fails, or None if all tests pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    paths = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+") as output:
        where = {"cwd": folder, "env": environment, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([*command, *options, *tests], **where, start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return None
        output.seek(0)
        text = output.read()
    if status == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", text, flags=re.MULTILINE)
    return failed[1] if failed else text[-300:]


def find(number: int, fault: dict[str, str], args: argparse.Namespace) -> dict[str, object]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        places = [path for path in sorted(folder.glob("*/**/*.py"))
                  if path.read_text(encoding="utf-8").count(fault["was"]) == 1]  # fmt: skip
        named = folder / fault["file"]
        if named not in places and len(places) != 1:  # The code was changed or moved.
            return {"number": number, "by": None, "stale": True}
        path = named if named in places else places[0]
        path.write_text(path.read_text().replace(fault["was"], fault["now"]))
        room = fault["file"].split("/")[1]
        tests = [fault["tests"]] if "tests" in fault else [f"tests/{room}", f"mlp_xp/{room}"]
        by = run(folder, tests, args.options, args.seconds)
        if by is None and args.whole:
            by = run(folder, [], args.options, args.seconds)
    return {"number": number, "file": fault["file"], "by": by, "s": round(time.monotonic() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="number of faults to test at once")
    parser.add_argument("--seconds", type=float, default=300, help="time limit for a run of pytest")
    whole = "run all tests if the tests of the subpackage find nothing"
    parser.add_argument("--whole", action="store_true", help=whole)
    parser.add_argument("--faults", type=Path, default=FAULTS, help="path of the list of faults")
    parser.add_argument("--only", type=int, nargs="*", help="test only these faults, by number")
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    args = parser.parse_args()
    faults = json.loads(args.faults.read_text(encoding="utf-8"))
    numbers = range(len(faults)) if args.only is None else args.only
    found = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(lambda i: find(i, faults[i], args), numbers):
            found += result["by"] is not None
            print(json.dumps(result), flush=True)
    print(f"{found} of {len(numbers)} found")


if __name__ == "__main__":
    main()
