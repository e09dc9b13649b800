"""Indexing as CuPy does it: indices out of range wrap, and a boolean mask waits for the device."""

from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._operations import launch_all, read_back, run_into, upload


def _prepared(index: Any) -> tuple[tuple[Any, ...], list[ndarray]]:
    """Return an index as a tuple, with what is on the host copied to the device, and its arrays."""
    items = []
    for item in index if isinstance(index, tuple) else (index,):
        if item is None or item is Ellipsis or isinstance(item, slice | ndarray):
            items.append(item)
        elif np.isscalar(item) and not isinstance(item, bool | np.bool_):
            items.append(int(item))
        else:
            host = np.asarray(item)
            if host.size == 0 and isinstance(item, list | tuple):
                host = host.astype(np.int32)
            items.append(upload(host))
    arrays = [item for item in items if isinstance(item, ndarray)]
    for array in arrays:
        if array.dtype.kind not in "biu":
            raise IndexError(f"an index of {array.dtype}, which is neither integer nor boolean")
    return tuple(items), arrays


def _n_dims(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, ndarray) and item.dtype.kind == "b" else 1


def _sizes(items: tuple[Any, ...], shape: tuple[int, ...]) -> list[int]:
    missing = len(shape) - sum(map(_n_dims, items))
    if missing < 0:
        raise IndexError(f"too many indices for an array of shape {shape}")
    sizes, axis = [], 0
    for item in items:
        sizes.append(shape[axis] if axis < len(shape) else 1)
        axis += missing if item is Ellipsis else _n_dims(item)
    return sizes


def _wrapped(items: list[Any], sizes: list[int]) -> tuple[Any, ...]:
    """Return an index of views for NumPy, of the values that are there now."""
    return tuple(
        item.astype(np.int64) % max(size, 1)
        if isinstance(item, np.ndarray) and item.dtype.kind != "b"
        else item
        for item, size in zip(items, sizes, strict=True)
    )


def _views(items: tuple[Any, ...]) -> list[Any]:
    return [item._a if isinstance(item, ndarray) else item for item in items]


def get_item(array: ndarray, index: Any) -> ndarray:
    items, arrays = _prepared(index)
    if not arrays:
        return array._view(array._a[items if Ellipsis in items else (*items, Ellipsis)])
    sizes = _sizes(items, array.shape)
    masks = [a for a in arrays if a.dtype.kind == "b"]
    if masks:
        read_back("getitem_mask", *masks, n=2)
        shape = array._a[_wrapped(_views(items), sizes)].shape
    else:
        zeros = tuple(np.zeros(i.shape, int) if isinstance(i, ndarray) else i for i in items)
        if 0 in [size for i, size in zip(items, sizes, strict=True) if isinstance(i, ndarray)]:
            if all(a.size for a in arrays):
                raise IndexError("cannot do a non-empty take from an empty axes.")
            zeros = tuple(z[..., :0] if isinstance(z, np.ndarray) else z for z in zeros)
        shape = np.broadcast_to(np.zeros((), bool), array.shape)[zeros].shape
    out = ndarray(shape, array.dtype)
    views, source, target = _views(items), array._a, out._a

    def run() -> None:
        target[...] = source[_wrapped(views, sizes)]

    # Several arrays are first made one: filled with 0, then one launch for each.
    n = 1 if len(arrays) == 1 else 2 + len(arrays)
    launch_all("getitem_mask" if masks else "take", run, [array, *arrays], out, n)
    return out


def set_item(array: ndarray, index: Any, value: Any) -> None:
    _, arrays = _prepared(index)
    if arrays:
        scatter(array, index, value)
        return
    target = get_item(array, index)
    if not isinstance(value, ndarray):
        fill(target, value)
    elif not _is_same(value, target):
        value = squeezed(value, target.ndim)
        if np.broadcast_shapes(value.shape, target.shape) != target.shape:
            raise ValueError(f"could not broadcast {value.shape} into {target.shape}")
        run_into("copy", np.asarray, (value,), {}, target)


def squeezed(value: ndarray, ndim: int) -> ndarray:
    """Return an array without its leading dimensions of length 1, down to a number of them."""
    while value.ndim > ndim and value.shape[0] == 1:
        value = value[0]
    return value


def _is_same(a: ndarray, b: ndarray) -> bool:
    here, there = a._a.__array_interface__, b._a.__array_interface__
    return (here["data"], a.shape, a.strides) == (there["data"], b.shape, b.strides)


def fill(array: ndarray, value: Any) -> None:
    """Set all elements to one value; ValueError for an array of the host."""
    number = np.asarray(value, dtype=array.dtype)
    if number.shape:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    name = "memset" if number == 0 and array.flags.c_contiguous else "fill"
    target = array._a
    launch_all(name, lambda: np.copyto(target, number), [], array)


def scatter(array: ndarray, index: Any, value: Any) -> None:
    items, arrays = _prepared(index)
    sizes = _sizes(items, array.shape)
    masks = [a for a in arrays if a.dtype.kind == "b"]
    if masks:
        read_back("scatter_mask", *masks, n=2)
    if not isinstance(value, ndarray):
        number, value = value, ndarray((), array.dtype)
        fill(value, number)
    elif value.dtype != array.dtype:
        value = value.astype(array.dtype)
    views, source, target = _views(items), squeezed(value, array.ndim)._a, array._a

    def run() -> None:
        target[_wrapped(views, sizes)] = source

    n = 1 if len(arrays) == 1 else 1 + len(arrays)
    launch_all("scatter_mask" if masks else "scatter", run, [value, *arrays], array, n)


def take(a: ndarray, indices: Any, axis: int | None = None, out: ndarray | None = None) -> ndarray:
    if axis is None or out is not None or not isinstance(indices, ndarray):
        raise NotImplementedError("the stand-in takes arrays of indices, along an axis")
    return get_item(a, (*[slice(None)] * range(a.ndim)[axis], indices))
