"""Write some images of CIFAR-10 into wheels/data, for a machine that has none and reaches none.

python -m bench.gpu.data      (20 MB in the official binary format: 6,000 images, 1,000 to test)
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np

N_TRAIN, N_TEST = 6_000, 1_000


def write_images(folder: Path, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Path:
    """Write the first images of CIFAR-10 as an archive that `load_cifar10` reads; return it."""
    from mlp_xp.datasets import load_cifar10

    cifar = load_cifar10()
    parts = {
        f"data_batch_{i + 1}": (cifar.x_train[rows], cifar.y_train[rows])
        for i, rows in enumerate(np.array_split(np.arange(n_train), 5))
    }
    parts["test_batch"] = cifar.x_test[:n_test], cifar.y_test[:n_test]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, (x, y) in parts.items():
            content = np.column_stack([y.astype(np.uint8), x]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root))
    print(write_images(root / "wheels" / "data"))
