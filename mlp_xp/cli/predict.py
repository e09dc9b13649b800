"""``mlp-xp predict``: classify pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from mlp_xp._utils.files import open_file
from mlp_xp._utils.optional import optional
from mlp_xp.cli.loading import load_backend
from mlp_xp.cli.output import Output
from mlp_xp.cli.process import printable
from mlp_xp.cli.runs import Images, read_run

__all__ = ["run"]

_N_CLASSES = 3
# A picture may have this many pixels for each byte of its file, at least 16 Mi and at most 64 Mi.
_PIXELS_PER_BYTE, _MIN_LIMIT, _MAX_LIMIT = 32, 16 << 20, 64 << 20


def run(args: argparse.Namespace) -> int:
    """Print a line for each picture, once all of them are read."""
    model, images = read_run(args.run_folder)
    load_backend(args.backend, args.device)
    model.set_params(backend=args.backend, device=args.device)
    x = np.stack([read_image(path, images) for path in args.images])
    lines, found = [], []
    for path, p in zip(args.images, model.predict_proba(x), strict=True):
        likeliest = np.argsort(-p, kind="stable")[:_N_CLASSES]
        names = [images.class_names[label] for label in model.classes_[likeliest]]
        shares = dict(zip(names, p[likeliest].tolist(), strict=True))
        found.append({"file": str(path), "probabilities": shares})
        text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
        lines.append(printable(f"{path}: {text}"))
    Output(args).result("\n".join(lines), {"predictions": found})
    return 0


def read_image(path: Path, images: Images) -> np.ndarray:
    """Read a picture as a row of a data set, resized, with the same channels and value range.

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
        If the file cannot be read as PNG or JPEG.
    """
    pillow, ops = optional("PIL.Image"), optional("PIL.ImageOps")
    channels, height, width = images.image_shape
    mode = "RGB" if channels == 3 else "L"
    try:
        with open_file(path) as content, pillow.open(content, formats=("PNG", "JPEG")) as picture:
            _check_size(picture.size, path.stat().st_size)
            # Cameras store their orientation instead of rotating the picture.
            ops.exif_transpose(picture, in_place=True)
            picture.load()
        picture = picture if picture.mode == mode else picture.convert(mode)
    except Exception as error:  # Pillow's decoders can raise anything.
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


def _check_size(size: tuple[int, int], n_bytes: int) -> None:
    """Raise ValueError for a picture with far more pixels than its file explains."""
    width, height = size
    limit = min(_MAX_LIMIT, max(_MIN_LIMIT, _PIXELS_PER_BYTE * n_bytes))
    if width * height > limit:
        raise ValueError(
            f"it is of {width}x{height} pixels, and at most {limit:,} are read of {n_bytes:,} "
            "bytes: make it smaller"
        )
