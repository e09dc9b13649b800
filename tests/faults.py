"""Insert the small faults in `faults.json` one at a time, and report which faults the tests find.

mutmut 3.8.1 generated the faults: seven random mutations, but not of text, for each of twelve
subpackages. In a copy of the checkout, the tests of its subpackage run until one fails; if all
pass, ``--whole`` runs all other tests::

    python tests/faults.py --only 3 7 -- -m "" --grid=pairs --backends=numpy,torch:cpu

Options after ``--`` are passed to pytest. The faults in the use of CuPy name their own tests::

    PYTHONPATH=tests/stand_in/packages python tests/faults.py --faults tests/stand_in/faults.json \
        -- -m "" --grid=values --backends=cupy:cuda:1

The faults in `tests/bench/faults.json` also name their tests. They would waste time on a GPU.

A fault is stale if its line was changed. ``--check`` lists the stale faults of all three files,
without running tests: change the line in the file of faults too, or remove the fault.
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
FOLDERS = ("mlp_xp", "bench", "tests")  # Faults may be in these.
TIMEOUT = "the time limit"


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
    """Return the first test that fails, `TIMEOUT`, or None if all tests pass."""
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
            return TIMEOUT
        output.seek(0)
        text = output.read()
    if status == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", text, flags=re.MULTILINE)
    return failed[1] if failed else text[-300:]


def file_of(fault: dict[str, str], root: Path) -> Path | None:
    """Return the file with the line of a fault, or None if the fault is stale."""
    named = root / fault["file"]
    files = [file for folder in FOLDERS for file in (root / folder).rglob("*.py")]
    for among in ([named], files):  # The line may have been moved to another file.
        found = [f for f in among if f.is_file() and f.read_text("utf-8").count(fault["was"]) == 1]
        if len(found) == 1:
            return found[0]
    return None


def find(number: int, fault: dict[str, str], args: argparse.Namespace) -> dict[str, object]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        path = file_of(fault, folder)
        if path is None:
            return {"number": number, "file": fault["file"], "by": None, "stale": True}
        path.write_text(path.read_text("utf-8").replace(fault["was"], fault["now"]), "utf-8")
        room = fault["file"].split("/")[1]
        tests = [fault["tests"]] if "tests" in fault else [f"tests/{room}", f"mlp_xp/{room}"]
        by = run(folder, tests, args.options, args.seconds)
        if by is None and args.whole:
            by = run(folder, [], args.options, args.seconds)
    return {"number": number, "file": fault["file"], "by": by, "s": round(time.monotonic() - start)}


def check() -> int:
    """Print the stale faults of all lists, and return their number."""
    count = 0
    for path in sorted((ROOT / "tests").rglob("faults.json")):
        for number, fault in enumerate(json.loads(path.read_text("utf-8"))):
            if file_of(fault, ROOT) is None:
                count += 1
                print(f"{path.relative_to(ROOT)}: {number} in {fault['file']}:\n{fault['was']}")
    print(f"{count} stale")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="number of faults to test at once")
    parser.add_argument("--seconds", type=float, default=900, help="time limit for a run of pytest")
    whole = "run all tests if the tests of the subpackage find nothing"
    parser.add_argument("--whole", action="store_true", help=whole)
    parser.add_argument("--faults", type=Path, default=FAULTS, help="path of the list of faults")
    parser.add_argument("--only", type=int, nargs="*", help="test only these faults, by number")
    parser.add_argument("--check", action="store_true", help="list stale faults; run no tests")
    parser.add_argument("options", nargs="*", help="options for pytest, after --")
    args = parser.parse_args()
    if args.check:
        sys.exit(check() > 0)
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
