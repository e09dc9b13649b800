"""``mlp-xp predict``: say what pictures show."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from mlp_xp._optional import optional
from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.runs import Images, read_run
from mlp_xp.cli.start import printable

__all__ = ["run"]

_SHOWN = 3


def run(args: argparse.Namespace) -> int:
    """Print a line for each picture, once all of them could be read."""
    model, images = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    x = np.stack([read_image(path, images) for path in args.images])
    for path, p in zip(args.images, model.predict_proba(x), strict=True):
        likeliest = np.argsort(-p, kind="stable")[:_SHOWN]
        names = [images.class_names[label] for label in model.classes_[likeliest]]
        shares = [f"{name} {100 * p[i]:.1f} %" for name, i in zip(names, likeliest, strict=True)]
        print(printable(f"{path}: {', '.join(shares)}"))
    return 0


def read_image(path: Path, images: Images) -> np.ndarray:
    """Read a picture as a row of a data set: resized, with its channels and range of values.

    Parameters
    ----------
    path : Path
    images : Images

    Returns
    -------
    (channels * height * width,) uint8

    Raises
    ------
    ValueError
        If the file is no PNG or JPEG that can be read.
    """
    pillow, ops = optional("PIL.Image"), optional("PIL.ImageOps")
    channels, height, width = images.image_shape
    try:
        with pillow.open(path, formats=("PNG", "JPEG")) as file:
            # Cameras store how they were held instead of turning the picture.
            picture = ops.exif_transpose(file).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow raises whatever the file makes its decoders stumble over.
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read as a PNG or JPEG file: {reason}") from error
    if picture.size != (width, height):
        given = "x".join(map(str, picture.size))
        note = f"note: {path} is {given}, resized to {width}x{height}"
        print(printable(note), file=sys.stderr)
        picture = picture.resize((width, height))
    pixels: np.ndarray = np.asarray(picture, np.float32).reshape(height, width, channels)
    planes = np.rint(pixels * (images.max_value / 255)).transpose(2, 0, 1)
    return planes.astype(np.uint8).reshape(-1)
