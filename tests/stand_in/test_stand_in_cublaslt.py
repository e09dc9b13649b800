"""cuBLASLt on the stand-in: its products, roundings and epilogues, and what it refuses."""

import cupy
import numpy as np
import pytest
from cupy import _launch, cuda
from nvmath import CudaDataType
from nvmath.bindings import cublasLt as lt  # noqa: N813
from nvmath.bindings.cublas import ComputeType

from mlp_xp.backends._cupy.cublaslt import _set

F16, F32, F64 = CudaDataType.CUDA_R_16F, CudaDataType.CUDA_R_32F, CudaDataType.CUDA_R_64F
DTYPES = {F16: np.float16, F32: np.float32}
INVALID_VALUE, NOT_SUPPORTED = 7, 15


def upload(array):
    """Return memory of the device with the columns of an array, as cuBLASLt reads them."""
    return cupy.array(np.ascontiguousarray(array.T)).data


def download(pointer, shape, dtype=np.float32):
    return cupy.ndarray(shape[::-1], dtype, pointer).get().T


class Product:
    """A product of arrays on the host, whose steps a test may bend."""

    def __init__(self, a, b, *, kind=F32, **attributes):
        self.dtype = DTYPES[kind]
        self.handle = lt.create()
        compute = attributes.pop("COMPUTE_TYPE", ComputeType.COMPUTE_32F)
        self.desc = lt.matmul_desc_create(compute, F32)
        self.set(**attributes)
        self.shape = a.shape[bool(attributes.get("TRANSA"))], b.shape[not attributes.get("TRANSB")]
        shapes = a.shape, b.shape, self.shape, self.shape
        self.layouts = [lt.matrix_layout_create(kind, *shape, shape[0]) for shape in shapes]
        self.a, self.b = (upload(np.asarray(x, self.dtype)) for x in (a, b))
        self.d = cuda.alloc(int(np.prod(self.shape)) * 8)
        self.found = np.zeros(2, lt.matmul_heuristic_result_dtype)
        self.workspace, self.workspace_size = cuda.alloc(1 << 20), 1 << 20
        self.preference = lt.matmul_preference_create()

    def set(self, **attributes):
        _set(lt, "matmul_desc", self.desc, attributes)

    def prefer(self, name, value):
        _set(lt, "matmul_preference", self.preference, {name: value})

    def search(self):
        count = np.zeros(1, np.int32)
        lt.matmul_algo_get_heuristic(
            *(self.handle, self.desc, *self.layouts, self.preference),
            *(2, self.found.ctypes.data, count.ctypes.data),
        )
        return int(count[0])

    def run(self, *, alpha=1.0, algorithm=0, stream=0):
        factors = np.array([alpha, 0.0], np.float32)
        a, b, c, d = self.layouts
        lt.matmul(
            *(self.handle, self.desc, factors.ctypes.data, int(self.a), a, int(self.b), b),
            *(factors.ctypes.data + factors.itemsize, int(self.d), c, int(self.d), d),
            *(self.found[algorithm:].ctypes.data, int(self.workspace), self.workspace_size, stream),
        )

    def result(self, **options):
        self.search()
        self.run(**options)
        return download(self.d, self.shape, self.dtype)


@pytest.fixture
def factors(rng):
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (4, 3)))


@pytest.fixture
def product(factors):
    return Product(*factors)


@pytest.mark.parametrize(
    ("compute", "n_bits"),
    [(ComputeType.COMPUTE_32F_FAST_TF32, 11), (ComputeType.COMPUTE_32F_FAST_16BF, 8)],
)
def test_fast_compute_types_round_to_nearest_even_and_half_precision_overflows(compute, n_bits):
    step = 2.0 ** (1 - n_bits)
    # A little more than half a step, exactly half of it to an even and to an odd neighbor.
    inputs = np.float32([1 + 0.51 * step, 1 + step / 2, 1 + 1.5 * step, np.inf])
    rounded = np.float32([1 + step, 1, 1 + 2 * step, np.inf])
    one = np.ones((1, 1), np.float32)
    assert Product(inputs[:, None], one).result()[:, 0].tolist() == inputs.tolist()
    fast = Product(inputs[:, None], one, COMPUTE_TYPE=compute)
    assert fast.result()[:, 0].tolist() == rounded.tolist()
    half = Product(np.float16([[60000.0]]), np.float16([[2.0]]), kind=F16)
    assert half.result().tolist() == [[np.inf]]


def test_epilogue_sums_are_asynchronous_like_their_product(factors):
    a, b = factors
    sums, stream = cuda.alloc(20), cuda.Stream(non_blocking=True)
    product = Product(a, b.T, EPILOGUE=lt.Epilogue.BGRADA, BIAS_POINTER=int(sums), TRANSB=1)
    product.search()
    cuda.Device(0).synchronize()
    product.run(stream=stream.ptr)
    with pytest.raises(_launch.RaceError, match="no wait"):
        cuda.alloc(20).copy_from_device_async(sums, 20)
    stream.synchronize()


def refused(call):
    with pytest.raises(lt.cuBLASLtError) as error:
        call()
    return error.value.status


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"SCALE_TYPE": F64}, NOT_SUPPORTED),
        ({"COMPUTE_TYPE": ComputeType.COMPUTE_64F}, NOT_SUPPORTED),
        ({"TRANSB": 1}, INVALID_VALUE),
        ({"TRANSA": 1}, INVALID_VALUE),
    ],
)
def test_invalid_attributes_are_rejected_by_search_and_product(product, attributes, status):
    product.set(**attributes)
    assert refused(product.search) == refused(product.run) == status


def test_bias_needs_a_pointer_and_bias_gradient_an_untransposed_matrix(factors, product):
    a, b = factors
    sums = cuda.alloc(20)
    turned = Product(a.T, b, EPILOGUE=lt.Epilogue.BGRADA, BIAS_POINTER=int(sums), TRANSA=1)
    assert refused(turned.search) == NOT_SUPPORTED
    product.set(EPILOGUE=lt.Epilogue.BIAS)
    assert product.search()  # Only the product refuses it.
    assert refused(product.run) == INVALID_VALUE


def test_an_algorithm_needs_its_workspace_alignment_and_problem(product):
    assert product.search() == 1  # None with a workspace, which was not allowed.
    product.prefer("MAX_WORKSPACE_BYTES", 1 << 20)
    assert product.search() == 2
    assert product.found["workspace_size"][0] > product.found["workspace_size"][1] == 0
    product.workspace_size = 0
    assert refused(product.run) == INVALID_VALUE
    product.run(algorithm=1)
    product.workspace_size = 1 << 20

    aligned, product.a = product.a, product.a + 16
    assert refused(product.run) == NOT_SUPPORTED
    product.prefer("MIN_ALIGNMENT_A_BYTES", 16)
    product.search()
    product.run()
    product.a = aligned

    product.set(COMPUTE_TYPE=ComputeType.COMPUTE_32F_FAST_TF32)
    assert refused(product.run) == NOT_SUPPORTED


def test_products_are_counted_captured_and_checked_for_races(product):
    _launch.launches.clear()
    expected = product.result()
    assert _launch.launches["cublasLt DEFAULT"] == 1
    stream = cuda.Stream(non_blocking=True)
    stream.begin_capture()
    product.run(alpha=3, stream=stream.ptr)
    graph = stream.end_capture()
    np.testing.assert_array_equal(download(product.d, (5, 3)), expected)
    graph.launch(stream)
    with pytest.raises(_launch.RaceError, match="no wait"):
        product.run()  # On the default stream, without a wait.
    stream.synchronize()
    np.testing.assert_allclose(download(product.d, (5, 3)), 3 * expected, 1e-6)


def test_too_small_a_buffer_is_an_error(product):
    product.search()
    pool = cuda.MemoryPool()  # An empty one: it has no longer memory.
    product.d = pool.malloc(512) + 500
    for name in "CD":  # They are in one place.
        product.prefer(f"MIN_ALIGNMENT_{name}_BYTES", 4)
    product.search()
    with pytest.raises(cuda.runtime.CUDARuntimeError, match="IllegalAddress"):
        product.run()
