"""The functions that a backend may replace with faster ones, and their defaults."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, DType, Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.augmentation import PixelMap, map_pixels
from mlp_xp.nn.layers import LayerKernels
from mlp_xp.nn.losses import mean_accuracy, mean_loss
from mlp_xp.optimizers import averaged, clip, update_tree


class Scaling(NamedTuple):
    """The scaling of each feature: ``(x - shift) * scale``, with ``shift, scale : (features,)``."""

    shift: Array
    scale: Array


class Whitening(NamedTuple):
    """The whitening of the features: ``((x - shift) * scale) @ rotation``.

    Shapes: ``shift, scale : (features,)``, ``rotation : (features, inputs)``.
    """

    shift: Array
    scale: Array
    rotation: Array


class SparseMatrix(NamedTuple):
    """A CSR matrix: ``data[indptr[i]:indptr[i + 1]]`` are the entries of row i.

    ``indices`` are the columns of the entries. Shapes: ``data, indices : (entries,)``, ``indptr :
    (rows + 1,)``.
    """

    data: Array
    indices: Array
    indptr: Array


class Transposed(NamedTuple):
    """The transpose of rows gathered from a sparse matrix."""

    rows: Any

    def __matmul__(self, dy: Array) -> Any:
        return self.rows.transposed_product(dy)


class Source(NamedTuple):
    """A data set, the rows to gather (None for all), and their transformations.

    ``x : (samples, features)`` has any real dtype and is never written to. Backends with sparse
    products also accept a `SparseMatrix` without scaling or pixel map, in the dtype of the
    products.
    """

    x: Any
    rows: Any = None
    scaling: Scaling | None = None
    pixel_map: PixelMap | None = None


def gather(source: Source, *, dtype: DType, xp: Namespace) -> Array:
    """Gather rows of a data set, augment them, cast them to ``dtype``, and scale them.

    For a sparse matrix, return an object that supports what `mlp_xp.nn.layers.dense` needs: ``x @
    W``, ``x.T @ dy``, ``x.dtype``, ``x.ndim``.
    """
    x, rows, scaling, pixel_map = source
    if rows is not None:
        x = xp.take(x, rows, axis=0)
    if pixel_map is not None:
        x = map_pixels(x, pixel_map, xp=xp)
    x = xp.astype(x, dtype, copy=False)
    if scaling is not None:
        x = x - scaling.shift
        x *= scaling.scale
    return x


def accumulate(total: Array, fraction: Array, *terms: Array | float) -> Array:
    """Add a step's loss to the epoch's sum; the result may reuse the memory of ``total``."""
    return total + fraction * reduce(operator.add, terms)


@dataclass(frozen=True)
class Kernels(LayerKernels):
    """The functions of a training step that a backend may replace with faster ones."""

    gather: Callable[..., Array] = gather
    loss: Callable[..., tuple[Array, Callable[[], Array]]] = mean_loss
    update: Callable[..., tuple[Tree, tuple[Tree, ...], Array | float]] = update_tree
    average: Callable[..., Tree] = averaged
    accuracy: Callable[..., Array] = mean_accuracy
    accumulate: Callable[..., Array] = accumulate
    clip: Callable[..., tuple[Tree, Array]] = clip

    def __hash__(self) -> int:
        # Each fit looks up its step by its kernels; two of them suffice to distinguish backends.
        return hash((self.dense, self.activate))
