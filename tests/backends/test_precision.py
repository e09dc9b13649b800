"""Products in a low precision: what is rounded, what is not, and which devices have none."""

import re
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers import matrix, pickled_and_saved, small

from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import BackendError, get_backend
from mlp_xp.backends._precision import check_capability
from mlp_xp.backends.kernels import Kernels, Scaling, Source
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.layers import Dense, Norm, dense
from mlp_xp.nn.losses import SquaredError
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import SGD
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import put_data
from mlp_xp.training.step.step_settings import Rules
from mlp_xp.training.trainer import Trainer

# The distances from 1 to the next number: 8 and 11 bits, the first one implied.
EPS = {"bf16": 2.0**-7, "float16": 2.0**-10}
CUDA = "cupy:cuda:0", "cupy:cuda:1"
FORMATS = {"tf32": "TF32", "bf16": "bfloat16", "float16": "float16"}


@pytest.fixture(params=matrix("torch", "jax"))
def plain(request):
    name, _, device = request.param.partition(":")
    pytest.importorskip(name)
    try:
        return get_backend(name, device or None)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(params=EPS)
def precision(request):
    return request.param


def rounded(array, precision):
    """Round float32 to nearest and then to even; to bfloat16 in plain integers."""
    if precision == "float16":
        return np.asarray(array, np.float32).astype(np.float16).astype(np.float32)
    bits = np.asarray(array, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("before", ["none", "tf32"])
def test_torch_product_precision_is_restored_after_the_scope(torch, before, request):
    products = torch.backends.cuda.matmul
    was, products.fp32_precision = products.fp32_precision, before
    request.addfinalizer(lambda: setattr(products, "fp32_precision", was))
    plain = type(get_backend("torch"))(torch.device("cuda:0"))  # No GPU is asked.
    tf32 = copy(plain)
    tf32.precision = "tf32"
    with tf32.scope():
        assert products.fp32_precision == "tf32"
        assert not torch.is_grad_enabled()
        with plain.scope():
            assert products.fp32_precision != "tf32"
        assert products.fp32_precision == "tf32"
    assert products.fp32_precision == before
    assert torch.is_grad_enabled()
    with pytest.raises(KeyError), tf32.scope():
        raise KeyError
    assert products.fp32_precision == before


@pytest.mark.matrix
def test_jax_product_precision_applies_only_in_the_scope():
    jax = pytest.importorskip("jax")
    for precision in (None, "tf32"):
        backend = copy(get_backend("jax"))
        backend.precision = precision
        with backend.scope():
            text = str(jax.make_jaxpr(jax.numpy.matmul)(np.ones((2, 2)), np.ones((2, 2))))
        is_low = "TF32_TF32_F32" in text or "Precision.HIGH," in text
        assert is_low == (precision == "tf32")


def test_backends_with_different_precision_are_not_equal(plain, precision):
    low = plain.with_precision(precision)
    assert low == plain.with_precision(precision)
    assert low != plain
    assert (low.name, low.device) == (plain.name, plain.device)
    assert replace(low.kernels, gather=plain.kernels.gather) == plain.kernels
    for name in ("auto", "float32", "float64"):  # The precision of the parameters.
        assert plain.with_precision(name) is plain


# 1025 x 300 is large enough for memory that is used again.
@pytest.mark.parametrize(("rows", "fan_in", "fan_out"), [(3, 5, 4), (1025, 300, 129)])
def test_a_layer_computes_in_the_dtype_of_its_input(plain, precision, rows, fan_in, fan_out, rng):
    shapes = (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    backend = plain.with_precision(precision)
    xp, dtype = backend.xp, getattr(backend.xp, FORMATS[precision])
    with backend.scope():
        x16, W32, b32, dy32 = (backend.put(array) for array in (x, W, b, dy))
        x16 = xp.astype(x16, dtype)
        y, pullback = backend.kernels.dense(Dense(W32, b32), x16, xp=xp)
        dx, grads = pullback(dy32, need_dx=True)
        none, again = pullback(dy32, need_dx=False)
        arrays = (y, dx, *grads)
        assert all(array.dtype == dtype for array in arrays)
        found = [np.asarray(backend.get(array), np.float32) for array in arrays]
        assert none is None
        # A second call writes to other memory.
        np.testing.assert_array_equal(np.asarray(backend.get(again.W), np.float32), found[2])
        np.testing.assert_array_equal(backend.get(W32), W)
    x, W, b, dy = (rounded(array, precision) for array in (x, W, b, dy))
    expected, plain_pullback = dense(Dense(W, b), x, xp=np)
    expected_dx, expected_grads = plain_pullback(dy, need_dx=True)
    # Sums are in float32 and are rounded once, or twice where a bias is added.
    eps = EPS[precision]
    for mine, exact in zip(found, (expected, expected_dx, *expected_grads), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=eps, atol=eps / 4 * np.abs(exact).max())


def test_the_input_of_a_step_is_rounded_only_after_scaling(plain, precision, rng):
    backend = plain.with_precision(precision)
    xp, gather = backend.xp, backend.kernels.gather
    with backend.scope():
        x = backend.put(rng.standard_normal((6, 3)).astype(np.float32))
        scaling = Scaling(*(backend.put(np.full(3, v, np.float32)) for v in (1000.0, 0.5)))
        found = gather(Source(x, None, scaling), dtype=xp.float32, xp=xp)
        assert found.dtype == getattr(xp, FORMATS[precision])
        exact = (backend.get(x) - 1000) * np.float32(0.5)
        found = np.asarray(backend.get(found), np.float32)
        np.testing.assert_array_equal(found, rounded(exact, precision))
        double = xp.astype(x, xp.float64)
        assert gather(Source(double), dtype=xp.float64, xp=xp).dtype == xp.float64


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_batch_statistics_are_not_rounded(plain, precision, normalization, rng):
    width = 64
    norm = Network((4, width, 2), normalization=normalization).blocks[0][1]
    params = Norm(np.ones(width, np.float32), np.zeros(width, np.float32))
    x = rounded(rng.standard_normal((256, width)) + 3.0, precision)
    backend = plain.with_precision(precision)
    xp, dtype = backend.xp, getattr(backend.xp, FORMATS[precision])
    context = Context(xp, backend.kernels, is_training=True)
    with backend.scope():
        x16 = xp.astype(backend.put(x), dtype)
        y, pullback, measured = norm(map_leaves(backend.put, params), x16, context)
        dx, grads = pullback(xp.ones_like(y), need_dx=True)
        assert (y.dtype, dx.dtype) == (dtype, dtype)
        assert all(leaf.dtype == xp.float32 for leaf in leaves((grads, measured)))
        batch_stats = [backend.get(leaf) for leaf in leaves(measured)]
    if normalization == "batch":
        np.testing.assert_allclose(batch_stats[0], x.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(batch_stats[1], x.var(axis=0), rtol=1e-4)


def test_updates_too_small_for_16_bits_are_kept(plain, precision):
    """A weight of 1 that moves by 1e-5 a step: in 16 bits it would never move."""
    backend, rule = plain.with_precision(precision), SGD(momentum=0.0)
    rules = Rules(Network((1, 1)), SquaredError(), rule, learning_rate=1e-5)
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    trainer = Trainer(backend, rules, params=(Dense(one, zero),), dtype="float32")
    data = put_data(backend, np.ones((64, 1), np.float32), np.zeros((64, 1), np.float32), "float32")
    for _ in range(20):
        trainer.run_epoch(data, plan_epoch(64, 64), n_epochs=20)
    W = backend.get(trainer.learned[0].W)
    assert W.dtype == np.float32
    # Each step moves it by the rate times the error, which stays near 1; the first loss scale,
    # 2^16, times this gradient is more than the largest number of float16.
    n_steps = 19 if precision == "float16" else 20
    assert W[0, 0] == pytest.approx(1 - n_steps * 1e-5, abs=5e-6)
    assert rounded(W, precision)[0, 0] == 1.0


@pytest.mark.parametrize("plain", matrix("torch", "jax", CUDA[0]), indirect=True)
def test_low_precision_fit_predicts_in_float32_and_can_be_saved(
    problem, plain, precision, tmp_path
):
    X, y = problem()
    exact, model, again = (
        small(backend=plain.name, precision=name).fit(X, y)
        for name in ("float32", precision, precision)
    )
    np.testing.assert_array_equal(model.coefs_[0], again.coefs_[0])
    assert model.coefs_[0].dtype == np.float32
    proba = model.predict_proba(X)
    assert proba.dtype == np.float32
    assert 0 < np.abs(proba - exact.predict_proba(X)).max() < 4 * EPS["bf16"]
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(model.to("numpy").predict_proba(X), proba, rtol=1e-4, atol=1e-6)
    for again in pickled_and_saved(model, tmp_path):
        assert again.precision == precision
        np.testing.assert_array_equal(again.predict_proba(X), proba)
        again.partial_fit(X, y)
        assert all(np.isfinite(W).all() for W in again.coefs_)
    exact.set_params(precision=precision).partial_fit(X, y)
    exact.set_params(precision="float32").partial_fit(X, y)
    assert exact.n_iter_ == 7
    with pytest.raises(ValueError, match="precision='float32', but the settings now say 'float64'"):
        exact.set_params(precision="float64").partial_fit(X, y)


@pytest.mark.parametrize("plain", matrix(*CUDA), indirect=True)
@pytest.mark.parametrize("low", ["tf32", "bf16", "float16"])
def test_cupy_rounds_only_the_operands_of_products(plain, low, rng):
    shapes = (32, 16), (16, 24), (24,), (32, 24)
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    backend = plain.with_precision(low)
    assert replace(backend.kernels, dense=plain.kernels.dense) == plain.kernels
    with backend.scope():
        params = Dense(backend.put(W), backend.put(b))
        y, pullback = backend.kernels.dense(params, backend.put(x), xp=backend.xp)
        dx, grads = pullback(backend.put(dy), need_dx=True)
        found = [backend.get(array) for array in (y, dx, *grads)]
    assert {array.dtype.name for array in found} == {"float32"}
    exact, plain_pullback = dense(Dense(W, b), x, xp=np)
    exact_dx, exact_grads = plain_pullback(dy, need_dx=True)
    eps = 2.0**-10 if low == "tf32" else EPS[low]
    for mine, reference in zip(found[:3], (exact, exact_dx, exact_grads.W), strict=True):
        error = np.linalg.norm(mine - reference) / np.linalg.norm(reference)
        assert eps / 32 < error < eps
    np.testing.assert_allclose(found[3], exact_grads.b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plain", matrix(CUDA[0]), indirect=True)
def test_cupy_without_cublaslt_rejects_low_precision(problem, plain, monkeypatch):
    monkeypatch.setattr("mlp_xp.backends._cupy.backend.is_usable", lambda: False)
    message = r"'bf16' is not supported on device 'cuda:\d' of .* without cuBLASLt: use .*, or ty"
    with pytest.raises(ValueError, match=message):
        small(precision="bf16", backend="cupy").fit(*problem())


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_unsupported_precision_error_names_supported_backends(problem, name):
    for low in FORMATS:
        if (name, low) == ("numpy", "bf16"):  # Support depends on the processor.
            continue
        model = small(backend=name, precision=low)
        where = " on a GPU" if low == "tf32" else ""
        message = f"'{name}': use backend='cupy', 'torch' or 'jax'{where}, or precision='float32'"
        with pytest.raises(ValueError, match=message):
            model.fit(*problem())
        assert not hasattr(model, "coefs_")
    assert get_backend(name).with_precision("float32").name == name
    assert get_backend(name).kernels == Kernels() or name == "numpy"


def test_tf32_on_a_cpu_and_low_precision_lbfgs_are_rejected(problem, plain):
    message = f"not supported on device '{plain.device}' of .*: use device='cuda', or precision="
    with pytest.raises(ValueError, match=message):
        small(backend=plain.name, precision="tf32").fit(*problem())
    for low in FORMATS:
        message = f"'{low}', but solver 'lbfgs' needs .*: set precision='float32', or use"
        with pytest.raises(ValueError, match=message):
            small(backend=plain.name, precision=low, solver="lbfgs").fit(*problem())


def test_error_names_the_compute_capability_that_an_old_gpu_lacks():
    for low, enough in (("tf32", (8, 0)), ("bf16", (8, 0)), ("float16", (5, 3))):
        check_capability("torch", "cuda:0", low, enough)
    both = "is 7.5, but 8.0 is required): use precision='float16' or precision='float32'."
    for low, capability, words in (
        ("tf32", (7, 5), both),
        ("bf16", (7, 5), both),
        ("float16", (5, 2), "5.2, but 5.3 is required): use precision='float32'."),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            check_capability("torch", "cuda:0", low, capability)
