"""Images of CIFAR-10 for machines that cannot download them (20 MB in the official binary format).

python -m bench.gpu.images      (writes to wheels/data; see get_wheels.sh)
"""

import io
import tarfile

import numpy as np

from bench.gpu.install import IMAGES
from mlp_xp.datasets import load_cifar10

N_TRAIN, N_TEST = 6_000, 1_000


def write_images(n_train: int = N_TRAIN, n_test: int = N_TEST) -> None:
    """Write the first images as an archive that `load_cifar10` reads."""
    cifar = load_cifar10()
    parts = {
        f"data_batch_{i + 1}": (cifar.x_train[rows], cifar.y_train[rows])
        for i, rows in enumerate(np.array_split(np.arange(n_train), 5))
    }
    parts["test_batch"] = cifar.x_test[:n_test], cifar.y_test[:n_test]
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(IMAGES, "w:gz") as archive:
        for name, (x, y) in parts.items():
            content = np.column_stack([y.astype(np.uint8), x]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    print(IMAGES)


if __name__ == "__main__":
    write_images()
