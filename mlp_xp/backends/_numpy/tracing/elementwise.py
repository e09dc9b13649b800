"""Loops for the elementwise operations of a traced step."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.backends._numpy.kernels.formulas import Sized, elementwise_kernel, is_large
from mlp_xp.backends._numpy.kernels.views import arrange
from mlp_xp.backends._numpy.runtime.tasks import address
from mlp_xp.backends._numpy.tracing.traced import Traced, value_of

_LOOP_DTYPES = (np.float32, np.float64, np.int32, np.int64, np.bool_)


def are_arrays(*operands: Any) -> bool:
    return all(isinstance(x, Traced | np.ndarray) for x in operands)


def compute(name: str, *operands: Any) -> bool:
    """Record a loop for an elementwise function; the last operand is the result."""
    *inputs, out = operands
    dtypes = [x.dtype for x in inputs if hasattr(x, "dtype")]
    like = out.dtype if name == "where" else dtypes[0]
    numbers = [x for x in inputs if not hasattr(x, "dtype")]
    if np.result_type(like, *numbers) != like:  # For example, integers are compared with 0.5.
        return False
    if like == np.int32 and any(x not in range(-(2**31), 2**31) for x in numbers):
        return False  # Leave comparisons with such numbers to NumPy.
    if name != "pow":  # Exponents such as 2 or 0.5 have special formulas.
        # Convert NumPy scalars to arrays, since their memory would be freed.
        inputs = [np.asarray(x, getattr(x, "dtype", like)) if np.isscalar(x) else x for x in inputs]
    arrays = [x for x in inputs if are_arrays(x)]
    if not all(map(_is_readable, (*arrays, out))) or out.size == 0:
        return False
    clashes = [x for x in arrays if share_memory(x, out)]
    if any(not _are_same(x, out) for x in clashes):
        return False
    first = next((i for i, x in enumerate(arrays) if clashes and x is clashes[0]), None)
    given = tuple(x.dtype.name if are_arrays(x) else float(x) for x in inputs)
    kernel = elementwise_kernel(name, given, first)
    if kernel is None or kernel.results[0].dtype != out.dtype.name:
        return False
    arranged = arrange([*arrays, out], out.shape)
    if arranged is None:
        return False
    grid, layouts, (*arrays, result) = arranged
    sized = Sized(kernel._replace(layouts=layouts), grid)
    sized.run(arrays, [result], is_shared=is_large(out))
    return True


def _is_readable(x: Any) -> bool:
    """Whether loops can read an array, by dtype and alignment."""
    is_aligned = x.flags.aligned and not any(step % x.itemsize for step in x.strides)
    return x.dtype in _LOOP_DTYPES and is_aligned


def share_memory(x: Any, out: Traced) -> bool:
    return np.may_share_memory(value_of(x), out.value)


def _are_same(x: Any, out: Traced) -> bool:
    same = (x.shape, x.strides, address(x)) == (out.shape, out.strides, address(out))
    return same and x.dtype == out.dtype


def copy_values(out: Traced, x: Any) -> bool:
    return are_arrays(x) and out.dtype in _LOOP_DTYPES and compute(out.dtype.name, x, out)
