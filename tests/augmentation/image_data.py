"""Images, labels and augmentations that the tests of augmentation share."""

import numpy as np

from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.training.data.epoch_plan import plan_epoch, with_draws

SHAPE = C, H, W = 3, 4, 5
N, FEATURES, CLASSES, BATCH = 23, C * H * W, 4, 10
GEOMETRIC = {
    "flip": (Flip(SHAPE),),
    "shift": (Shift(SHAPE, pixels=3),),
    "shift zero": (Shift(SHAPE, pixels=3, padding="zero"),),
    "cutout": (Cutout(SHAPE, 3),),
    "flip, shift": (Flip(SHAPE), Shift(SHAPE, pixels=2)),
    "all": (Shift(SHAPE, 2, "zero"), Cutout(SHAPE, 2), Flip(SHAPE), Shift(SHAPE, 3)),
}
EVERYTHING = (Flip(SHAPE, alternate=True), *GEOMETRIC["all"], ColorJitter(SHAPE), Mixup(0.7))
BOTH = (Flip(SHAPE), Shift(SHAPE, pixels=1))


def images(dtype="uint8", n=N):
    x = np.random.default_rng(5).integers(1, 256, (n, FEATURES), dtype=np.uint8)
    x = x if dtype == "uint8" else (x / 64.0).astype(dtype)
    x.flags.writeable = False
    return x


def labels(n=N):
    return np.random.default_rng(6).integers(0, CLASSES, n).astype(np.int32)


def drawn(augmentation, n=N, batch_size=BATCH, *, seed=3, epoch=1, pad=False, **settings):
    plan = plan_epoch(n, batch_size, seed=seed, epoch=epoch, pad=pad, **settings)
    return with_draws(plan, augmentation, seed=seed, epoch=epoch)
