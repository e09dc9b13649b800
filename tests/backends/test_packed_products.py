"""Products of packed factors: in bfloat16 bit by bit as instructions are defined, and in float32.

What needs no such processor runs everywhere: the rounding, the packing, and layers by NumPy alone.
AMX runs on processors with AVX512_BF16, its instructions in software.
"""

import functools
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import close, small
from modelled_amx import TILES, add_products, emit, no_subnormals
from numpy.testing import assert_array_equal
from scipy.special import softmax

from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.kernels import products
from mlp_xp.backends._numpy.kernels.bfloat16 import round_to_bfloat16
from mlp_xp.backends._numpy.runtime import caches, tasks, thread_pool
from mlp_xp.backends._numpy.runtime.tuning import AVX2_TILE, AVX512_TILE
from mlp_xp.nn.layers import Dense

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not thread_pool.can_compile(), reason="no machine code here")
UNIT = tasks.Unit(tasks.number_of(tasks.TiledProduct), 0, tasks.AMX)
PACK = tasks.number_of(tasks.Pack)
ROUNDED = {  # Bits of float32, and of the nearest bfloat16, the even one of two.
    0x3F800000: 0x3F80, 0x3F808000: 0x3F80, 0x3F808001: 0x3F81, 0x3F818000: 0x3F82,
    0xBF818000: 0xBF82, 0x7F7FFFFF: 0x7F80, 0x7F800000: 0x7F80, 0xFF800000: 0xFF80,
    0x7FFFFFFF: 0x7FC0, 0x7F800001: 0x7FC0, 0x80000000: 0x8000, 0x00018000: 0x0002,
}  # fmt: skip


def rounded(x):
    out = np.empty_like(x)
    round_to_bfloat16(x, out)
    return out


def dot_in_pairs(a, b, bias):
    """Return the product as the instruction computes it: of each pair the second number first.

    Each is a fused multiplication and addition. In float64 both are exact, or far from a tie.
    """
    a, b = (no_subnormals(rounded(x)).astype(np.float64) for x in (a, b))
    total = np.broadcast_to(bias, (len(a), b.shape[1])).astype(np.float32)
    for k in (k for first in range(0, a.shape[1], 2) for k in (first + 1, first)):
        if k < a.shape[1]:
            total = no_subnormals((total + np.outer(a[:, k], b[k])).astype(np.float32))
    return total


def dot_in_tiles(a, b, bias):
    """Return the product as AMX computes it, 16 pairs at a time."""
    even, odd = (0, 0), (0, len(b) % 2)
    a, b = np.pad(rounded(a), (even, odd)), np.pad(rounded(b), (odd, even))
    a, b = np.stack((a[:, ::2], a[:, 1::2])), np.stack((b[::2], b[1::2]))
    total = np.broadcast_to(bias, (a.shape[1], b.shape[2])).astype(np.float32)
    for first in range(0, a.shape[2], 16):
        total = add_products(total, a[:, :, first : first + 16], b[:, first : first + 16])
    return total


@functools.cache
def modelled_product():
    """Compile AMX's product with its instructions in software."""
    from mlp_xp.backends._numpy import machine_code
    from mlp_xp.backends._numpy.machine_code import _amx, _build

    engine = machine_code._engine.__wrapped__()  # Where no other product has its name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_amx, "emit", emit)
        patch.setattr(machine_code, "_engine", lambda: engine)
        return machine_code._load(UNIT.name, _build.build(UNIT)), engine


@pytest.fixture(params=["amx", "bfloat16", "float32", "float64"])
def kind(request, monkeypatch):
    is_low = request.param in ("amx", "bfloat16")
    if not (thread_pool.bfloat16_packing() if is_low else thread_pool.find_tile()):
        pytest.skip("this processor has no such product")
    if request.param == "amx":
        addresses = thread_pool._machine_code().addresses([UNIT._replace(kind=PACK)])
        monkeypatch.setitem(addresses, UNIT, modelled_product()[0])
        monkeypatch.setattr(products, "bfloat16_packing", lambda: tasks.AMX)
    yield request.param
    assert not TILES  # Each thread has released its own.


def run(made):
    table, _ = tasks.table(made)
    thread_pool.link([table])
    thread_pool.runner()(tasks.step_range(table))


def test_rounding_is_to_nearest_even(pool_of):
    bits, expected = (np.asarray(list(x), np.uint32) for x in (ROUNDED, ROUNDED.values()))
    x = bits.view(np.float32)
    assert_array_equal(rounded(x).view(np.uint32) >> 16, expected)
    if thread_pool.bfloat16_packing():
        out, lines = np.zeros(16, np.uint32), np.zeros((12, 16), np.uint32)
        for source, options in (
            (x[None], {"columns": out, "columns_width": 8}),
            (x[:, None], {"rows": out, "rows_width": 16, "lines": lines, "lines_ld": 16}),
        ):
            pack = tasks.Pack(False, True, *source.shape, source, source.shape[1], **options)
            with pool_of(2):
                run([tasks.Task(pack, True)])
            for found in (out[:12], lines[:, 0])[: 1 + len(options) // 4]:
                assert not (found >> 16).any()  # Each with a 0 that is not there.
                values = [no_subnormals((y << 16).view(np.float32)) for y in (found, expected)]
                assert_array_equal(*values)


@pytest.mark.parametrize("transposed", ["", "a", "b"])
@pytest.mark.parametrize("shape", [(37, 51, 100), (3, 130, 700), (3, 1, 70), (4, 3000, 2)])
def test_product_of_packed_matrices_is_correct(kind, shape, transposed, pool_of, rng, monkeypatch):
    (m, k, n), is_low = shape, kind in ("amx", "bfloat16")
    dtype, dot = "float32" if is_low else kind, dot_in_pairs
    if is_low and products.bfloat16_packing() == tasks.AMX:
        dot = dot_in_tiles
    a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
    a[0, :2], b[:2, 0] = 1e-38, 1e-3  # Products that are subnormal, and factors that become so.
    a[-1, -1] = 1e-41
    given = [np.asfortranarray(x).T if key in transposed else x for key, x in (("a", a), ("b", b))]
    ways = [(True, True)]
    sizes, ta, tb = caches.Blocks(16, 16, 96), transposed == "a", transposed == "b"
    monkeypatch.setattr(products, "LEAST_PRODUCTS", 0)  # Threads share small ones, too.
    if not is_low:  # All ways that there are; pairs are packed.
        ways = [(x, y) for x in {False, ta} for y in ({False, True} if m < 5 or not tb else {True})]
    for (n_threads, blocks), way in product(((1, None), (2, sizes), (3, sizes)), ways):
        if blocks is not None:
            monkeypatch.setattr(products, "make_blocks", lambda *sizes_: sizes)
        out = np.full((m, n), np.nan, dtype)
        options = {"ta": ta, "tb": tb, "bias": 0 if tb and not way[1] else bias}
        with pool_of(n_threads):
            packed, ahead = products.Factors(*way), {}
            for x in given[: 1 + ta] if is_low and n_threads == 2 else ():  # For two products each.
                products.pack_ahead(ahead, x, is_left=x is given[0] and not tb)
            run(
                products.product_tasks(*given, out, packed, in_pairs=is_low, ahead=ahead, **options)
            )
        if tb and not way[1]:
            close(out, a @ b, k)
        elif is_low:
            assert_array_equal(out, dot(a, b, bias))
        else:
            close(out, a @ b + bias, k)


def test_block_sizes_fit_the_reported_cache_size(tmp_path):
    assert caches.cache_bytes(tmp_path / "none") == 512 << 10
    for number, level, size in (0, "1", "48K"), (1, "?", "?"), (2, "2", "1024K"), (3, "3", "32M"):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert caches.cache_bytes(tmp_path) == 1 << 20
    (tmp_path / "index2" / "size").write_text("0K\n")  # Some virtual machines report this.
    assert caches.cache_bytes.__wrapped__(tmp_path) == 512 << 10
    for item_bytes, n_bytes in (4, 256 << 10), (4, 1 << 20), (8, 2 << 20):
        depth, rows, columns = caches.make_blocks(AVX512_TILE, item_bytes, n_bytes)
        panel = 192 // item_bytes
        used = item_bytes * (depth * (rows + panel) + rows * columns)
        assert n_bytes / 3 < used < n_bytes
        assert (rows % 8, columns % panel) == (0, 0)


@pytest.mark.parametrize(
    ("shape", "ta", "tb", "expected"),
    [  # AVX-512 on Zen, AVX-512 on other processors, and AVX2.
        ((1024, 2048, 1000), False, False, "B B B"),
        ((1024, 2048, 10), False, False, "B B B"),
        ((128, 2048, 1000), False, False, "- - B"),
        ((128, 2048, 1024), False, False, "- B B"),  # Rows of W that are far apart.
        ((128, 2048, 64), False, False, "- - -"),  # Threads may split the sums.
        ((128, 512, 512), False, True, "B B B"),
        ((4, 512, 512), False, True, "- - -"),
        ((2048, 1024, 2048), True, False, "AB AB AB"),
        ((2048, 256, 512), True, False, "- - B"),  # An update may compute it.
        ((2048, 256, 2048), True, False, "- - AB"),
        ((2048, 32, 512), True, False, "- - -"),
        ((2048, 256, 16), True, False, "- - -"),
        ((2048, 1024, 128), True, False, "- - AB"),
    ],
)
def test_matrices_are_packed_if_reading_them_unpacked_is_slow(shape, ta, tb, expected, monkeypatch):
    m, k, n = shape
    a, b, out = (np.broadcast_to(np.float32(0), shape) for shape in ((m, k), (k, n), (m, n)))
    processors = (True, AVX512_TILE), (False, AVX512_TILE), (True, AVX2_TILE)
    for (is_zen, tile), control_words in zip(processors, expected.split(), strict=True):
        monkeypatch.setattr(products, "is_zen", lambda is_zen=is_zen: is_zen)
        monkeypatch.setattr(products, "find_tile", lambda tile=tile: tile)
        found = products.choose_packed(a.T if ta else a, b.T if tb else b, out, ta=ta, tb=tb)
        assert found == ("A" in control_words, "B" in control_words)


@pytest.mark.parametrize("n_threads", [0, 2])
def test_dense_layer_rounds_only_the_operands_of_products(n_threads, pool_of, rng, monkeypatch):
    """NumPy alone, with 0 threads, gives the same result on every processor."""
    if n_threads and not thread_pool.bfloat16_packing():
        pytest.skip("this processor has no such product")
    monkeypatch.setattr("mlp_xp.backends._numpy.backend.bfloat16_packing", lambda: True)
    backend = get_backend("numpy").with_precision("bf16")
    shapes = (40, 33), (33, 50), (50,), (40, 50)
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    with pool_of(n_threads):
        y, pullback = backend.kernels.dense(Dense(W, b), x, xp=np)
        dx, grads = pullback(dy, need_dx=True)
    low_x, low_W, low_dy = map(rounded, (x, W, dy))
    close(y, low_x @ low_W + b, 33)
    close(dx, low_dy @ low_W.T, 50)
    close(grads.W, low_x.T @ low_dy, 40)
    close(grads.b, dy.sum(0), 40)


def test_long_predictions_round_operands_like_training(problem, monkeypatch):
    if not thread_pool.bfloat16_packing():
        pytest.skip("this processor has no such product")
    X, y = problem()
    model = small(precision="bf16", scoring="loss").fit(X, y, X_val=X, y_val=y)
    short = model.predict_proba(X)
    for name in "backends._numpy.backend._LONG", "training.inference.inference._HOST_NUMBERS":
        monkeypatch.setattr(f"mlp_xp.{name}", 0)
    monkeypatch.setattr("mlp_xp.training.inference.inference._HOST_BATCH", 16)
    hidden = np.maximum(rounded(np.float32(X)) @ rounded(model.coefs_[0]) + model.intercepts_[0], 0)
    logits = rounded(hidden) @ rounded(model.coefs_[1]) + model.intercepts_[1]
    monkeypatch.setattr("mlp_xp.backends._numpy.kernels.bfloat16.affine_in_bfloat16", None)
    close(model.predict_proba(np.asfortranarray(X)), softmax(logits, axis=1), 8)  # A DataFrame's.
    assert np.abs(model.predict_proba(X) - short).max() > 1e-4
    model.fit(X, y, X_val=X, y_val=y)
    assert model.validation_loss_curve_[-1] == model.evaluate(X, y)["loss"]
    monkeypatch.setattr("mlp_xp.backends._numpy.backend.bfloat16_packing", lambda: 0)
    close(model.predict_proba(X), model.set_params(precision="float32").predict_proba(X), 8)


def test_unsupported_bf16_error_names_processors_that_support_it(problem, monkeypatch):
    words = r"lacks AVX512_BF16, available in AMD since Zen 4 and .* use precision='float32'"
    for name, found, text in (
        ("bfloat16_packing", 0, words),
        ("can_compile", False, "without numba.* or type .*pip install"),
    ):
        monkeypatch.setattr(f"mlp_xp.backends._numpy.backend.{name}", lambda found=found: found)
        with pytest.raises(ValueError, match=text):
            small(precision="bf16").fit(*problem())


def test_amx_is_used_only_if_linux_permits_it(monkeypatch):
    from mlp_xp.backends._numpy.machine_code import _cpu

    cpuinfo, found = Path("/proc/cpuinfo"), []
    assert _cpu._may_use_tiles() == (cpuinfo.exists() and "amx_tile" in cpuinfo.read_text())
    monkeypatch.setattr(_cpu, "has_avx512", lambda: True)
    for names in ("avx512bf16 amx-tile amx-bf16", "avx512bf16 amx-tile", "amx-tile amx-bf16"):
        monkeypatch.setattr(_cpu, "_features", lambda names=names: dict.fromkeys(names.split(), 1))
        for is_granted in (True, False):
            monkeypatch.setattr(_cpu, "_may_use_tiles", lambda is_granted=is_granted: is_granted)
            found.append(_cpu.bfloat16_packing.__wrapped__())
    assert found == [tasks.AMX, *[tasks.PAIRS] * 3, *[tasks.NUMBERS] * 2]


BUILD = """
from llvmlite import binding
from mlp_xp.backends._numpy.machine_code import _build, _cpu
from mlp_xp.backends._numpy.runtime.tasks import AMX, TiledProduct, Unit, number_of
_cpu.describe_cpu = lambda: ("sapphirerapids", "")
binding.TargetMachine.emit_object = lambda self, module: self.emit_assembly(module).encode()
print(_build.build(Unit(number_of(TiledProduct), 0, AMX)).decode())
"""


@pytest.mark.matrix
def test_compiled_amx_code_contains_tile_instructions():
    if not thread_pool.bfloat16_packing():
        pytest.skip("the code around it has other vectors here")
    environment = {**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": ""}
    code = subprocess.check_output([sys.executable, "-c", BUILD], text=True, env=environment)
    assert [code.count(f"\t{name}") for name in ("ldtilecfg", "tilerelease")] == [1, 1]
    for name in "tilezero", "tileloadd", "tdpbf16ps", "tilestored":
        assert f"\t{name}\t" in code
