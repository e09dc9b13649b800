"""cuBLASLt on the stand-in: its products, roundings and epilogues, and what it refuses."""

import cupy
import numpy as np
import pytest
from cupy import _launch, cuda
from nvmath import CudaDataType
from nvmath.bindings import cublasLt as lt  # noqa: N813
from nvmath.bindings.cublas import ComputeType

DTYPES = {
    CudaDataType.CUDA_R_16F: np.float16,
    CudaDataType.CUDA_R_32F: np.float32,
    CudaDataType.CUDA_R_64F: np.float64,
}
F16, F32, F64 = DTYPES
INVALID_VALUE, NOT_SUPPORTED = 7, 15
ATTRIBUTES = {
    "matmul_desc": lt.MatmulDescAttribute,
    "matrix_layout": lt.MatrixLayoutAttribute,
    "matmul_preference": lt.MatmulPreferenceAttribute,
}


def upload(array):
    """Return memory of the device with the columns of an array, as cuBLASLt reads them."""
    packed = np.ascontiguousarray(np.swapaxes(array, -1, -2)) if array.ndim > 1 else array
    return cupy.array(packed).data


def download(pointer, shape, dtype=np.float32):
    packed = cupy.ndarray((*shape[:-2], shape[-1], shape[-2]), dtype, pointer)
    return np.swapaxes(packed.get(), -1, -2)


def set_attribute(kind, thing, name, value):
    attribute = ATTRIBUTES[kind][name]
    number = np.array([value], getattr(lt, f"get_{kind}_attribute_dtype")(attribute))
    setter = getattr(lt, f"{kind}_set_attribute")
    setter(thing, attribute, number.ctypes.data, number.nbytes)


class Product:
    """A product of arrays on the host, whose steps a test may bend."""

    def __init__(self, a, b, *, kind=F32, c=None, **attributes):
        self.dtype = DTYPES[kind]
        scale = F64 if kind == F64 else F32
        compute = ComputeType.COMPUTE_64F if kind == F64 else ComputeType.COMPUTE_32F
        self.scale = DTYPES[scale]
        self.handle = lt.create()
        self.desc = lt.matmul_desc_create(attributes.pop("COMPUTE_TYPE", compute), scale)
        self.set(**attributes)
        rows = a.shape[-1] if attributes.get("TRANSA") else a.shape[-2]
        cols = b.shape[-2] if attributes.get("TRANSB") else b.shape[-1]
        self.shape = (*a.shape[:-2], rows, cols)
        self.layouts = [self.layout(kind, x) for x in (a.shape, b.shape, self.shape, self.shape)]
        self.a, self.b = (upload(np.asarray(x, self.dtype)) for x in (a, b))
        self.c = upload(np.zeros(self.shape, self.dtype) if c is None else c)
        self.d = cuda.alloc(int(np.prod(self.shape)) * 8)
        self.found = np.zeros(2, lt.matmul_heuristic_result_dtype)
        self.workspace, self.workspace_size = cuda.alloc(1 << 20), 1 << 20
        self.preference = lt.matmul_preference_create()

    def set(self, **attributes):
        for name, value in attributes.items():
            set_attribute("matmul_desc", self.desc, name, value)

    def layout(self, kind, shape):
        made = lt.matrix_layout_create(kind, shape[-2], shape[-1], shape[-2])
        if len(shape) > 2:
            set_attribute("matrix_layout", made, "BATCH_COUNT", shape[0])
            set_attribute("matrix_layout", made, "STRIDED_BATCH_OFFSET", shape[1] * shape[2])
        return made

    def prefer(self, name, value):
        set_attribute("matmul_preference", self.preference, name, value)

    def search(self):
        count = np.zeros(1, np.int32)
        lt.matmul_algo_get_heuristic(
            *(self.handle, self.desc, *self.layouts, self.preference),
            *(2, self.found.ctypes.data, count.ctypes.data),
        )
        return int(count[0])

    def run(self, *, alpha=1.0, beta=0.0, algorithm=0, stream=0):
        factors = np.array([alpha, beta], self.scale)
        a, b, c, d = self.layouts
        lt.matmul(
            *(self.handle, self.desc, factors.ctypes.data, int(self.a), a, int(self.b), b),
            *(factors.ctypes.data + factors.itemsize, int(self.c), c, int(self.d), d),
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


@pytest.mark.parametrize("kind", [F32, F64])
def test_products_are_numpys_products(factors, kind, rng):
    a, b = (factor.astype(DTYPES[kind]) for factor in factors)
    c = np.ones((5, 3), DTYPES[kind])
    added = Product(a, b, kind=kind, c=c).result(alpha=2, beta=3)
    np.testing.assert_allclose(added, 2 * (a @ b) + 3 * c, 1e-6)
    transposed = Product(a.T, b.T, kind=kind, TRANSA=1, TRANSB=1)
    np.testing.assert_allclose(transposed.result(), a @ b, 1e-5)
    a, b = (rng.standard_normal((3, *shape)).astype(DTYPES[kind]) for shape in ((5, 4), (4, 2)))
    np.testing.assert_allclose(Product(a, b, kind=kind).result(), a @ b, 1e-5)


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


def test_a_bias_is_added_and_its_gradient_is_the_sum_over_k_without_alpha(factors, rng):
    a, b = factors
    bias = rng.standard_normal(5).astype(np.float32)
    at = upload(bias)
    plain = Product(a, b, EPILOGUE=lt.Epilogue.BIAS, BIAS_POINTER=int(at))
    np.testing.assert_allclose(plain.result(), a @ b + bias[:, None], 1e-5)
    sums, stream = cuda.alloc(20), cuda.Stream(non_blocking=True)
    product = Product(a, b.T, EPILOGUE=lt.Epilogue.BGRADA, BIAS_POINTER=int(sums), TRANSB=1)
    np.testing.assert_allclose(product.result(alpha=2), 2 * (a @ b), 1e-5)
    np.testing.assert_allclose(download(sums, (5, 1))[:, 0], a.sum(1), 1e-5, 1e-6)
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
def test_the_search_and_the_product_refuse(product, attributes, status):
    product.set(**attributes)
    assert refused(product.search) == refused(product.run) == status


def test_a_bias_needs_a_pointer_and_its_gradient_the_matrix_as_it_is(factors, product):
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


def test_a_product_is_counted_captured_and_raced(product):
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


def test_memory_that_is_too_short_is_an_error(product):
    product.search()
    pool = cuda.MemoryPool()  # An empty one: it has no longer memory.
    product.d = pool.malloc(512) + 500
    product.prefer("MIN_ALIGNMENT_D_BYTES", 4)
    product.search()
    with pytest.raises(cuda.runtime.CUDARuntimeError, match="IllegalAddress"):
        product.run()


def test_operands_of_16_bits_are_rounded_to_nearest_even_and_multiplied_as_they_are(rng) -> None:
    from bench.gpu.sixteen_bits import rounding_operands, to_bf16
    from mlp_xp.backends import get_backend
    from mlp_xp.nn.layers import Dense

    def rounded(x):
        bits = x.view(np.uint32).astype(np.int64)
        bits += 0x7FFF + (bits >> 16) % 2
        return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)

    every = np.arange(0, 0x7F800001, 4099, np.uint32)
    x = np.concatenate((every, every + 0x80000000, np.arange(2, 99, dtype=np.uint32) << 15))
    x = x.astype(np.uint32).view(np.float32)
    found = to_bf16(cupy.asarray(x)).get()
    np.testing.assert_array_equal(found, rounded(x).view(np.uint32) >> 16)
    assert to_bf16(cupy.asarray(np.float32(np.nan))).get() & 0x7FFF > 0x7F80

    backend = rounding_operands(get_backend("cupy"))
    x, W, b, dy = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((40, 8), (8, 16), 16, (40, 16))
    )
    put = backend.put
    y, pullback = backend.kernels.dense(Dense(put(W), put(b)), put(x), xp=backend.xp)
    dx, (dW, db) = pullback(put(dy), need_dx=True)
    x, W, dy = rounded(x), rounded(W), rounded(dy)
    for mine, theirs in ((y, x @ W + b), (dx, dy @ W.T), (dW, x.T @ dy), (db, dy.sum(0))):
        np.testing.assert_allclose(mine.get(), theirs, rtol=1e-5, atol=1e-5)
