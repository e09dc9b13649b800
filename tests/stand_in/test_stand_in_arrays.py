"""Arrays of the stand-in: what CuPy refuses, what it launches, and what makes the host wait."""

import copy
import pickle

import cupy
import numpy as np
import pytest
from cupy import _launch


@pytest.fixture
def x():
    return cupy.asarray([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        lambda x: np.add(np.ones(3), x),
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) * x,
        lambda x: cupy.maximum(x, np.ones(3)),
        lambda x: np.ones(3) @ x.T,
        lambda x: cupy.where(x > 0, x, np.ones(3)),
        lambda x: cupy.sum(np.ones(3)),
        lambda x: cupy.concatenate([x[0], np.ones(3)]),
        memoryview,
        lambda x: x - [1.0],
    ],
)
def test_cupy_rejects_host_arrays(x, convert):
    with pytest.raises(TypeError):
        convert(x)


def test_assigning_host_arrays_and_object_dtypes_is_rejected(x):
    with pytest.raises(ValueError, match="non-scalar"):
        x[0] = np.ones(3)
    for values in (np.array(["a"]), np.array([object()])):
        with pytest.raises(ValueError, match="Unsupported dtype"):
            cupy.asarray(values)


def test_numpy_scalars_affect_dtypes_but_python_scalars_do_not():
    x = cupy.ones(2, dtype=cupy.float32)
    assert (x * 2.0).dtype == (2.0 * x).dtype == (x * np.float32(2)).dtype == np.float32
    assert (x * np.float64(2)).dtype == (np.float64(2) * x).dtype == np.float64
    with pytest.raises(TypeError, match="casting"):
        x += cupy.ones(2, dtype=cupy.complex64)
    integers = cupy.arange(3)
    with pytest.raises(TypeError, match="casting"):
        integers += 0.5


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: x.sum(),
        lambda x: x @ x.T,
        lambda x: x.astype("f4"),
        lambda x: x[x > 0],
        lambda x: cupy.take(x, cupy.arange(2), axis=0),
        lambda x: x.fill(1),
        cupy.ElementwiseKernel("T x", "T y", "y = x", "same"),
    ],
)
def test_operations_on_another_device_are_rejected(x, use):
    with (
        cupy.cuda.Device(1),
        pytest.raises(ValueError, match=r"resides \(0\) is different from the current device \(1"),
    ):
        use(x)


def test_copies_and_views_work_from_another_device(x):
    with cupy.cuda.Device(1):
        moved = cupy.asarray(x)
        assert moved.device.id == 1
        assert x[0].T.reshape(3, 1).device.id == 0
        np.testing.assert_array_equal(x.get(), moved.get())
        assert copy.deepcopy(x).device.id == 0


def test_out_of_range_array_indices_wrap_around(x):
    rows = cupy.asarray([0, 3, -1])
    expected = x.get()[[0, 1, 1]]
    for taken in (x[rows], cupy.take(x, rows, axis=0), x.take(rows, axis=0)):
        np.testing.assert_array_equal(taken.get(), expected)
    x[cupy.asarray([3])] = 0.0
    np.testing.assert_array_equal(x.get()[1], 0)
    with pytest.raises(IndexError):
        x[2]


def test_memory_layouts_are_preserved_or_made_c_contiguous(x):
    columns = cupy.asarray(np.asfortranarray(x.get()))
    assert columns.flags.f_contiguous
    assert columns.flags.fnc
    assert cupy.empty_like(columns).flags.fnc
    assert columns.astype(cupy.float32).flags.fnc
    assert columns.T.flags.c_contiguous
    assert not (columns + 1).flags.f_contiguous
    assert columns.get().flags.c_contiguous
    again = pickle.loads(pickle.dumps(columns))  # noqa: S301
    assert again.flags.fnc
    np.testing.assert_array_equal(again.get(), x.get())
    assert (x.strides, x[:, 1:].strides, x.itemsize, x.nbytes) == ((24, 8), (24, 8), 8, 48)
    assert x[:, 1:].data.ptr == x.data.ptr + 8
    assert x[:, 1:].base is x


# Launches that CuPy needs, and waits of the host.
COSTS = {
    "add": (lambda x: x + x, 1, 0),
    "sum": (lambda x: x.sum(axis=0), 1, 0),
    "var": (lambda x: x.var(axis=0), 2, 0),
    "product": (lambda x: x @ x.T, 1, 0),
    "product of a slice": (lambda x: x[:, :2] @ x[:, :2].T, 3, 0),
    "product of two vectors": (lambda x: x[0] @ x[0], 2, 0),
    "zeros": (lambda x: cupy.zeros(3), 1, 0),
    "empty": (lambda x: cupy.empty(3), 0, 0),
    "view": (lambda x: x.T[1:].reshape(2, 2, 1).swapaxes(0, 1), 0, 0),
    "copy of a transposed array": (lambda x: x.T.reshape(-1), 1, 0),
    "take": (lambda x: x[cupy.arange(2)], 2, 0),
    "astype": (lambda x: x.astype(cupy.float32), 1, 0),
    "no astype": (lambda x: x.astype(x.dtype, copy=False), 0, 0),
    "concatenate": (lambda x: cupy.concatenate([x, x]), 2, 0),
    "from a number": (lambda x: cupy.asarray(3.0), 1, 0),
    "from the host": (lambda x: cupy.asarray(np.ones(3)), 1, 0),
    "of no elements": (lambda x: x[:0] + 1, 0, 0),
    "get": (lambda x: x.get(), 1, 1),
    "float": (lambda x: float(x[0, 0]), 1, 1),
    "if": (lambda x: 1 if (x > 0).all() else 0, 3, 1),
    "mask": (lambda x: x[x > 0], 4, 1),
    "assignment to a mask": (lambda x: x.__setitem__(x > 0, 0.0), 5, 1),
    "nonzero": (lambda x: cupy.nonzero(x), 4, 1),
    "unique": (lambda x: cupy.unique(x), 4, 1),
}


@pytest.mark.parametrize("name", COSTS)
def test_kernel_launches_and_synchronizations_are_counted(x, name):
    function, *expected = COSTS[name]
    counters = _launch.launches, _launch.waits
    for counter in counters:
        counter.clear()
    function(x)
    assert [sum(counter.values()) for counter in counters] == expected


def test_dlpack_shares_device_memory_and_rejects_host_access(x):
    assert cupy.from_dlpack(x).data.ptr == x.data.ptr
    assert x.__dlpack_device__() == (2, 0)
    with pytest.raises(TypeError, match="CPU arrays cannot"):
        cupy.from_dlpack(np.ones(3))
    with pytest.raises(BufferError):
        np.from_dlpack(x)
