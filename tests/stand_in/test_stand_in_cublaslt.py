"""cuBLASLt on the stand-in: its products, roundings and epilogues, and what it refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SPEC = importlib.util.find_spec("cupy")
if SPEC is None or not Path(SPEC.origin or "").with_name("_launch.py").exists():
    pytest.skip("the stand-in for CuPy is not on the path", allow_module_level=True)

from cupy import _launch, cuda  # noqa: E402
from nvmath import CudaDataType  # noqa: E402
from nvmath.bindings import cublasLt as lt  # noqa: E402, N813
from nvmath.bindings.cublas import ComputeType, Operation  # noqa: E402

F32, F64 = CudaDataType.CUDA_R_32F, CudaDataType.CUDA_R_64F
F16, BF16 = CudaDataType.CUDA_R_16F, CudaDataType.CUDA_R_16BF
DTYPES = {F32: np.float32, F64: np.float64, F16: np.float16, BF16: np.uint16}
INVALID_VALUE, NOT_SUPPORTED = 7, 15
DESC, LAYOUT = lt.MatmulDescAttribute, lt.MatrixLayoutAttribute


def upload(array):
    """Return memory of the device with the columns of an array, as cuBLASLt reads them."""
    packed = np.ascontiguousarray(np.swapaxes(array, -1, -2)) if array.ndim > 1 else array
    pointer = cuda.alloc(packed.nbytes)
    pointer.copy_from_host(packed.ctypes.data, packed.nbytes)
    return pointer


def download(pointer, shape, dtype):
    """Return columns as an array."""
    packed = np.empty((*shape[:-2], shape[-1], shape[-2]), dtype)
    pointer.copy_to_host(packed.ctypes.data, packed.nbytes)
    return np.swapaxes(packed, -1, -2)


def set_attribute(setter, dtype_of, thing, attribute, value):
    number = np.array([value], dtype_of(attribute))
    setter(thing, attribute, number.ctypes.data, number.nbytes)


class Product:
    """A product of arrays on the host, whose steps a test may bend."""

    def __init__(self, a, b, *, kind=F32, out=None, compute=None, c=None, **attributes):
        self.out = kind if out is None else out
        scale = F64 if kind == F64 else F32
        default = ComputeType.COMPUTE_64F if kind == F64 else ComputeType.COMPUTE_32F
        self.scale = DTYPES[scale]
        self.handle = lt.create()
        self.desc = lt.matmul_desc_create(default if compute is None else compute, scale)
        for name, value in attributes.items():
            self.set(name, value)
        rows = a.shape[-1] if attributes.get("TRANSA") else a.shape[-2]
        cols = b.shape[-2] if attributes.get("TRANSB") else b.shape[-1]
        self.shape = (*a.shape[:-2], rows, cols)
        self.layouts = [self.layout(kind, a.shape), self.layout(kind, b.shape)]
        self.layouts += [self.layout(self.out, self.shape)] * 2
        self.a, self.b = upload(a), upload(b)
        self.c = upload(np.zeros(self.shape, DTYPES[self.out]) if c is None else c)
        self.d = cuda.alloc(int(np.prod(self.shape)) * 8)
        self.results = lt.MatmulHeuristicResult(2)
        self.workspace = cuda.alloc(1 << 20)
        self.workspace_size = 1 << 20
        self.preference = lt.matmul_preference_create()

    def set(self, name, value):
        dtype_of = lt.get_matmul_desc_attribute_dtype
        set_attribute(lt.matmul_desc_set_attribute, dtype_of, self.desc, DESC[name], value)

    def layout(self, kind, shape):
        made = lt.matrix_layout_create(kind, shape[-2], shape[-1], shape[-2])
        if len(shape) > 2:
            self.arrange(made, "BATCH_COUNT", shape[0])
            self.arrange(made, "STRIDED_BATCH_OFFSET", shape[1] * shape[2])
        return made

    def arrange(self, layout, name, value):
        dtype_of = lt.get_matrix_layout_attribute_dtype
        set_attribute(lt.matrix_layout_set_attribute, dtype_of, layout, LAYOUT[name], value)

    def prefer(self, name, value):
        attribute = lt.MatmulPreferenceAttribute[name]
        dtype_of = lt.get_matmul_preference_attribute_dtype
        setter = lt.matmul_preference_set_attribute
        set_attribute(setter, dtype_of, self.preference, attribute, value)

    def search(self):
        count = np.zeros(1, np.int32)
        lt.matmul_algo_get_heuristic(
            self.handle,
            self.desc,
            *self.layouts,
            self.preference,
            2,
            self.results.ptr,
            count.ctypes.data,
        )
        return int(count[0])

    def run(self, *, alpha=1.0, beta=0.0, algo=None, stream=0):
        factors = np.array([alpha, beta], self.scale)
        lt.matmul(
            self.handle,
            self.desc,
            factors.ctypes.data,
            int(self.a),
            self.layouts[0],
            int(self.b),
            self.layouts[1],
            factors.ctypes.data + factors.itemsize,
            int(self.c),
            self.layouts[2],
            int(self.d),
            self.layouts[3],
            0 if algo is None else algo,
            int(self.workspace),
            self.workspace_size,
            stream,
        )

    def result(self, **options):
        self.search()
        self.run(algo=self.results[0].algo.ptr, **options)
        return download(self.d, self.shape, DTYPES[self.out])


@pytest.fixture
def factors(rng):
    return rng.standard_normal((5, 4)), rng.standard_normal((4, 3))


@pytest.mark.parametrize("kind", [F32, F64])
def test_products_are_numpys_products(factors, kind):
    a, b = (factor.astype(DTYPES[kind]) for factor in factors)
    c = np.ones((5, 3), DTYPES[kind])
    expected = 2 * (a @ b) + 3 * c
    np.testing.assert_allclose(
        Product(a, b, kind=kind, c=c).result(alpha=2, beta=3), expected, 1e-6
    )
    transposed = Product(a.T, b.T, kind=kind, TRANSA=Operation.T, TRANSB=Operation.T)
    np.testing.assert_allclose(transposed.result(), a @ b, 1e-5)


def test_batches_and_rows_first(rng):
    a = rng.standard_normal((3, 5, 4)).astype(np.float32)
    b = rng.standard_normal((3, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(Product(a, b).result(), a @ b, 1e-5)
    product = Product(a[0], b[0])
    product.layouts = []
    for rows, cols in ((5, 4), (4, 2), (5, 2), (5, 2)):
        layout = lt.matrix_layout_create(F32, rows, cols, cols)
        product.arrange(layout, "ORDER", lt.Order.ROW)
        product.layouts.append(layout)
    product.a, product.b = upload(a[0].T), upload(b[0].T)
    assert product.search() == 1
    product.run(algo=product.results[0].algo.ptr)
    np.testing.assert_allclose(download(product.d, (2, 5), np.float32).T, a[0] @ b[0], 1e-5)


@pytest.mark.parametrize(
    ("compute", "n_bits"),
    [(ComputeType.COMPUTE_32F_FAST_TF32, 11), (ComputeType.COMPUTE_32F_FAST_16BF, 8)],
)
def test_fast_compute_types_round_their_inputs_to_nearest_even(compute, n_bits):
    step = 2.0 ** (1 - n_bits)
    # A little more than half a step, exactly half of it to an even and to an odd neighbor.
    inputs = np.float32([1 + 0.51 * step, 1 + step / 2, 1 + 1.5 * step, np.inf])
    rounded = np.float32([1 + step, 1, 1 + 2 * step, np.inf])
    one = np.ones((1, 1), np.float32)
    assert Product(inputs[:, None], one).result()[:, 0].tolist() == inputs.tolist()
    assert (
        Product(inputs[:, None], one, compute=compute).result()[:, 0].tolist() == rounded.tolist()
    )


def test_bfloat16_is_read_and_rounded():
    def stored(x):
        return (np.float32(x).view(np.uint32) >> 16).astype(np.uint16)

    a, b = stored([[1.5, np.nan], [2.0, 3.0]]), stored([[4.0], [0.015625]])
    wide = Product(a, b, kind=BF16, out=F32).result()
    np.testing.assert_array_equal(wide, np.float32([[np.nan], [8.046875]]))
    (nan, rounded) = Product(a, b, kind=BF16).result()[:, 0]
    assert np.isnan((np.uint32([nan]) << 16).view(np.float32))
    assert rounded == stored(8.0625)
    half = Product(np.float16([[60000.0]]), np.float16([[2.0]]), kind=F16).result()
    assert half.tolist() == [[np.inf]]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_epilogues_forward_and_backward(factors, rng):
    a, b = (factor.astype(np.float32) for factor in factors)
    bias = rng.standard_normal(5).astype(np.float32)
    bias[0], a[0] = 0, 0  # Exactly zero: the mask counts it as passed on.
    z = a @ b + bias[:, None]
    at = upload(bias)
    plain = Product(a, b, EPILOGUE=lt.Epilogue.BIAS, BIAS_POINTER=int(at))
    np.testing.assert_allclose(plain.result(), z, 1e-5)

    mask = cuda.alloc(16 * 3)
    aux = {"EPILOGUE_AUX_POINTER": int(mask), "EPILOGUE_AUX_LD": 128}
    relu = Product(a, b, EPILOGUE=lt.Epilogue.RELU_AUX_BIAS, BIAS_POINTER=int(at), **aux)
    np.testing.assert_allclose(relu.result(), np.maximum(z, 0), 1e-5)
    bits = download(mask, (16, 3), np.uint8)
    assert (np.unpackbits(bits, axis=0, bitorder="little")[:5] == (z >= 0)).all()
    assert (bits[0] >> 5 == 7).all()  # Garbage from before: bits after the last row stay.
    assert (bits[1:] == 0xFF).all()

    gradient = cuda.alloc(20)
    epilogue = lt.Epilogue.DRELU_BGRAD
    back = Product(a, b, EPILOGUE=epilogue, BIAS_POINTER=int(gradient), **aux)
    expected = np.where(z >= 0, a @ b, 0)
    np.testing.assert_allclose(back.result(), expected, 1e-5)
    np.testing.assert_allclose(
        download(gradient, (5, 1), np.float32)[:, 0], expected.sum(1), 1e-5, 1e-6
    )

    inner = cuda.alloc(4 * 8 * 3)
    aux = {"EPILOGUE_AUX_POINTER": int(inner), "EPILOGUE_AUX_LD": 8}
    smooth = Product(a, b, EPILOGUE=lt.Epilogue.GELU_AUX_BIAS, BIAS_POINTER=int(at), **aux)
    np.testing.assert_allclose(smooth.result(), gelu(z), 1e-5, 1e-6)
    np.testing.assert_array_equal(download(inner, (8, 3), np.float32)[:5], a @ b + bias[:, None])
    back = Product(a, b, EPILOGUE=lt.Epilogue.DGELU, **aux)
    step = 1e-3
    slope = (gelu(z + step) - gelu(z - step)) / (2 * step)
    np.testing.assert_allclose(back.result(), (a @ b) * slope, 1e-3, 1e-3)


@pytest.mark.parametrize(("name", "side"), [("BGRADA", 0), ("BGRADB", 1)])
def test_gradients_of_a_bias_are_sums_over_k_without_alpha(factors, name, side):
    a, b = (factor.astype(np.float32) for factor in factors)
    sums = cuda.alloc(20)
    options = {"EPILOGUE": lt.Epilogue[name], "BIAS_POINTER": int(sums), "TRANSB": Operation.T}
    product = Product(a, b.T, **options)
    np.testing.assert_allclose(product.result(alpha=2), 2 * (a @ b), 1e-5)
    expected = b.sum(0) if side else a.sum(1)
    got = download(sums, (len(expected), 1), np.float32)[:, 0]
    np.testing.assert_allclose(got, expected, 1e-5, 1e-6)


def refused(call):
    with pytest.raises(lt.cuBLASLtError) as error:
        call()
    return error.value.status


RELU_AUX, GELU_AUX = lt.Epilogue.RELU_AUX, lt.Epilogue.GELU_AUX
AUX, LD = "EPILOGUE_AUX_POINTER", "EPILOGUE_AUX_LD"


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"EPILOGUE": RELU_AUX, AUX: 256, LD: 64}, INVALID_VALUE),
        ({"EPILOGUE": GELU_AUX, AUX: 256, LD: 4}, INVALID_VALUE),
        ({"EPILOGUE": GELU_AUX, AUX: 256, LD: 9}, INVALID_VALUE),
        ({"EPILOGUE": lt.Epilogue.BGRADB, "BIAS_POINTER": 256}, NOT_SUPPORTED),
        ({"EPILOGUE": lt.Epilogue.BIAS, "BIAS_DATA_TYPE": F64}, NOT_SUPPORTED),
        ({"SCALE_TYPE": F64}, NOT_SUPPORTED),
        ({"COMPUTE_TYPE": ComputeType.COMPUTE_64F}, NOT_SUPPORTED),
        ({"TRANSB": Operation.T}, INVALID_VALUE),
    ],
)
def test_the_search_refuses(factors, attributes, status):
    product = Product(*(factor.astype(np.float32) for factor in factors))
    for name, value in attributes.items():
        product.set(name, value)
    assert refused(product.search) == status
    assert refused(product.run) == status


@pytest.mark.parametrize(
    ("epilogue", "status"),
    [
        (lt.Epilogue.BIAS, INVALID_VALUE),
        (RELU_AUX, NOT_SUPPORTED),
        (lt.Epilogue.DRELU, INVALID_VALUE),
    ],
)
def test_only_the_product_refuses_a_missing_pointer(factors, epilogue, status):
    product = Product(*(factor.astype(np.float32) for factor in factors), EPILOGUE=epilogue)
    product.search()
    assert refused(product.run) == status


def test_bias_needs_a_result_with_columns_first(factors):
    product = Product(*(f.astype(np.float32) for f in factors), EPILOGUE=lt.Epilogue.BIAS)
    layout = product.layouts[3]
    product.arrange(layout, "ORDER", lt.Order.ROW)
    assert refused(product.search) == NOT_SUPPORTED


def test_an_algorithm_needs_its_workspace_alignment_and_problem(factors):
    a, b = (factor.astype(np.float32) for factor in factors)
    product = Product(a, b)
    assert product.search() == 1  # None with a workspace, which was not allowed.
    product.prefer("MAX_WORKSPACE_BYTES", 1 << 20)
    assert product.search() == 2
    algo = product.results[0].algo.ptr
    assert product.results[0].workspace_size > product.results[1].workspace_size == 0
    product.workspace_size = 0
    assert refused(lambda: product.run(algo=algo)) == INVALID_VALUE
    product.run(algo=product.results[1].algo.ptr)
    product.workspace_size = 1 << 20

    aligned, product.a = product.a, product.a + 16
    assert refused(lambda: product.run(algo=algo)) == NOT_SUPPORTED
    product.prefer("MIN_ALIGNMENT_A_BYTES", 16)
    product.search()
    product.run(algo=algo)
    product.a = aligned

    product.set("EPILOGUE", lt.Epilogue.RELU)
    assert refused(lambda: product.run(algo=algo)) == NOT_SUPPORTED


def test_descriptors_check_sizes_and_are_destroyed_once():
    desc = lt.matmul_desc_create(ComputeType.COMPUTE_32F, F32)
    value = np.array([lt.Epilogue.RELU], np.int64)
    call = lt.matmul_desc_set_attribute
    assert refused(lambda: call(desc, DESC.EPILOGUE, value.ctypes.data, 8)) == INVALID_VALUE
    call(desc, DESC.EPILOGUE, value.ctypes.data, 4)
    read, written = np.zeros(1, np.uint32), np.zeros(1, np.uint64)
    lt.matmul_desc_get_attribute(desc, DESC.EPILOGUE, read.ctypes.data, 4, written.ctypes.data)
    assert (read[0], written[0]) == (lt.Epilogue.RELU, 4)
    lt.matmul_desc_destroy(desc)
    assert refused(lambda: lt.matmul_desc_destroy(desc)) == INVALID_VALUE


def test_a_product_is_counted_captured_and_raced(factors):
    product = Product(*(factor.astype(np.float32) for factor in factors))
    product.search()
    algo = product.results[0].algo.ptr
    _launch.launches.clear()
    expected = product.result()
    assert _launch.launches["cublasLt DEFAULT"] == 1
    stream = cuda.Stream(non_blocking=True)
    stream.begin_capture()
    product.run(algo=algo, alpha=3, stream=stream.ptr)
    graph = stream.end_capture()
    np.testing.assert_array_equal(download(product.d, (5, 3), np.float32), expected)
    graph.launch(stream)
    with pytest.raises(_launch.RaceError, match="no wait"):
        product.run(algo=algo)  # On the default stream, without a wait.
    stream.synchronize()
    np.testing.assert_allclose(download(product.d, (5, 3), np.float32), 3 * expected, 1e-6)


def test_a_gradient_of_a_bias_is_written(factors):
    a, b = (factor.astype(np.float32) for factor in factors)
    sums, stream = cuda.alloc(20), cuda.Stream(non_blocking=True)
    options = {"EPILOGUE": lt.Epilogue.BGRADA, "BIAS_POINTER": int(sums)}
    product = Product(a, b, **options)
    product.search()
    cuda.Device(0).synchronize()
    product.run(stream=stream.ptr)
    with pytest.raises(_launch.RaceError, match="no wait"):
        cuda.alloc(20).copy_from_device_async(sums, 20)
    stream.synchronize()


def test_memory_that_is_too_short_is_an_error(factors):
    product = Product(*(factor.astype(np.float32) for factor in factors))
    product.search()
    pool = cuda.MemoryPool()  # An empty one: it has no longer memory.
    product.d = pool.malloc(512) + 500
    with pytest.raises(cuda.runtime.CUDARuntimeError, match="IllegalAddress"):
        product.run()
