"""Wheels without the files that importing cuBLASLt's bindings never reads: 15 MB, not 20.

python -m bench.gpu.trim FOLDER CUDA      (CUDA: 12 or 13, as the wheel of cuda-bindings)

cuda-core has each module for CUDA 12 and for 13, and imports those of the bindings' version.
Licences stay, and `RECORD` names what is left.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

__all__ = ["MOST_BYTES", "trim"]

MOST_BYTES = 16_000_000  # All wheels together.
_OTHER_CUDA = {"12": "cuda/core/cu13/", "13": "cuda/core/cu12/"}
_NEVER_IMPORTED = ("cuda/bindings/_v2/", "nvmath/device/", "nvmath/distributed/")
_FOR_COMPILERS = (".pxd", ".pyi", ".h", ".hpp")


def trim(path: Path, cuda: str) -> int:
    """Write a wheel again without these files; return its number of bytes."""

    def is_read(name: str) -> bool:
        unread = (*_NEVER_IMPORTED, _OTHER_CUDA[cuda])
        return not name.startswith(unread) and not name.endswith(_FOR_COMPILERS)

    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(partial, "w") as target:
        for entry in filter(lambda entry: is_read(entry.filename), source.infolist()):
            content = source.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.splitlines(keepends=True)
                content = b"".join(x for x in lines if is_read(x.decode().partition(",")[0]))
            target.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    os.replace(partial, path)
    return path.stat().st_size


if __name__ == "__main__":
    folder, cuda = sys.argv[1:]
    total = sum(trim(path, cuda) for path in sorted(Path(folder).glob("*.whl")))
    print(f"wheels: {total / 1e6:.1f} MB")
    if total > MOST_BYTES:
        sys.exit(f"More than {MOST_BYTES / 1e6:.0f} MB: see what {__file__} can leave out.")
