"""The user's own images: a folder with one subfolder of PNG or JPEG files per class."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.files import open_file
from mlp_xp.datasets._dataset import DatasetError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
# An image may have `_PIXELS_PER_BYTE` pixels per byte of its file, always `_MIN_LIMIT` pixels, and
# never more than `_MAX_LIMIT` pixels.
_PIXELS_PER_BYTE, _MIN_LIMIT, _MAX_LIMIT = 32, 16 << 20, 64 << 20
_GRAY = {"1", "L", "LA"}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an image and read its first bytes; raise DatasetError for any error."""
    pillow = optional("PIL.Image")
    try:
        with open_file(path) as content, pillow.open(content, formats=("PNG", "JPEG")) as picture:
            yield picture
    except Exception as error:  # Pillow's decoders can raise any error.
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read as a PNG or JPEG file: {reason}") from error


def open_image(path: Path) -> Any:
    """Read an image, rotated according to its EXIF data.

    Raise DatasetError if the file is not a PNG or JPEG, has 16 bits per channel, or has implausibly
    many pixels for its size.
    """
    ops = optional("PIL.ImageOps")
    with _opened(path) as picture:
        _check_size(picture.size, path.stat().st_size)
        if picture.mode.startswith("I"):
            raise ValueError("the image has 16 bits per channel: save it with 8 bits")
        ops.exif_transpose(picture, in_place=True)
        picture.load()
    return picture


def image_planes(picture: Any, n_channels: int) -> NDArray[Any]:
    """Return the pixels of an image as (channels, height, width) uint8, in color or gray."""
    mode = "RGB" if n_channels == 3 else "L"
    picture = picture if picture.mode == mode else picture.convert(mode)
    pixels = np.asarray(picture).reshape(picture.height, picture.width, n_channels)
    return pixels.transpose(2, 0, 1)


def read_images(
    folder: Path, size: tuple[int, int] | None = None
) -> tuple[NDArray[Any], NDArray[Any], tuple[int, int, int]]:
    """Read the images of a folder that contains one subfolder per class.

    Return the pixels, (images, channels * height * width), the class name of each image, and
    (channels, height, width). Pixels are in color unless all images are gray. Images are resized to
    ``size`` (width, height) if given; otherwise they must all have the same size.
    """
    classes = sorted(entry for entry in folder.iterdir() if _is_class(entry))
    if len(classes) < 2:
        raise DatasetError(
            f"{folder} must have at least two subfolders of PNG or JPEG files, one per class, got "
            f"{len(classes)}"
        )
    files = {entry: [f for f in sorted(entry.rglob("*")) if _is_image(f)] for entry in classes}
    if empty := [entry for entry, found in files.items() if not found]:
        raise DatasetError(f"{empty[0]} has no PNG or JPEG files: add some, or remove the folder")
    paths = [path for found in files.values() for path in found]
    labels = np.asarray([entry.name for entry, found in files.items() for _ in found])
    n_channels = 3 if any(_is_color(path) for path in paths) else 1
    first = open_image(paths[0])
    width, height = size or first.size
    try:
        x = np.empty((len(paths), n_channels, height, width), dtype=np.uint8)
    except (MemoryError, ValueError) as error:
        raise DatasetError(
            f"{len(paths):,} images of {width}x{height} pixels do not fit into memory: set "
            "--image-size to a smaller size, e.g. 32"
        ) from error
    for row, path in zip(x, paths, strict=True):
        picture = open_image(path)
        if picture.size != (width, height):
            if size is None:
                raise DatasetError(
                    f"{path} is {picture.width}x{picture.height}, but {paths[0]} is "
                    f"{width}x{height}: type --image-size {width}x{height} to resize all images"
                )
            picture = picture.convert("RGB" if n_channels == 3 else "L").resize((width, height))
        row[:] = image_planes(picture, n_channels)
    return x.reshape(len(x), -1), labels, (n_channels, height, width)


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _is_image(path: Path) -> bool:
    is_shown = not path.name.startswith(".")
    return is_shown and path.suffix.lower() in IMAGE_ENDINGS and not path.is_dir()


def _is_color(path: Path) -> bool:
    """Whether an image is in color."""
    with _opened(path) as picture:
        return picture.mode not in _GRAY


def _check_size(size: tuple[int, int], n_bytes: int) -> None:
    """Raise ValueError for an image with implausibly many pixels for its file's size."""
    width, height = size
    limit = min(_MAX_LIMIT, max(_MIN_LIMIT, _PIXELS_PER_BYTE * n_bytes))
    if width * height > limit:
        raise ValueError(
            f"the image has {width}x{height} pixels, but at most {limit:,} are read from a file of "
            f"{n_bytes:,} bytes: make it smaller"
        )
