"""Where each number of rows is compiled, few are: batches are filled up, which changes nothing."""

from itertools import pairwise, product

import numpy as np
import pytest
from helpers import small, tolerance
from scipy import sparse

from mlp_xp import MLP, MLPRegressor
from mlp_xp.training import inference

RNG = np.random.default_rng(0)
X = RNG.integers(0, 9, (120, 5)).astype(np.float64)
Y = RNG.integers(0, 3, 120)


@pytest.fixture
def compiled(caplog):
    """What JAX has compiled."""
    import jax

    class Names:
        def take(self):
            found = [m.split()[4] for m in caplog.messages if m.startswith("Finished XLA")]
            caplog.clear()
            return found

    jax.clear_caches()
    jax.config.update("jax_log_compiles", True)
    yield Names()
    jax.config.update("jax_log_compiles", False)


def quick(estimator=MLP, **settings):
    return small(estimator, max_iter=2, learning_rate="cosine", **settings)


@pytest.mark.libraries("jax")
def test_numbers_of_rows_share_what_is_compiled(on, compiled):
    model = quick(**on).fit(X, Y)
    compiled.take()
    for n in (7, 2, 100, 33, 101):
        assert model.predict_proba(X[:n]).shape == (n, 3)
    assert compiled.take() == ["jit(predict)"]
    one = model.predict_proba(X[:1])
    assert compiled.take() == ["jit(predict)"]  # Nothing is added to one row.
    for n in (7, 2, 100, 33, 101):
        model.predict(X[:n])
        model.score(X[:n], Y[:n])
    assert compiled.take() == ["jit(predict)"]
    assert one.flags.writeable


@pytest.mark.libraries("jax")
def test_samples_held_out_in_other_numbers_compile_nothing_else(on, compiled):
    for n in (30, 41):
        model = quick(**on).fit(X[:50], Y[:50], X_val=X[-n:], y_val=Y[-n:])
        expected = model.evaluate(X[-n:], Y[-n:])["loss"]
        assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
        names = compiled.take()
        assert ("jit(predict)" in names) == (n == 30)
    assert names == []


@pytest.mark.libraries("jax")
def test_a_loss_of_a_library_scores_held_out_samples_there(on):
    import jax.numpy as jnp

    def squares(outputs, targets, *, xp):
        given.add(type(outputs))
        errors = outputs - targets
        return jnp.sum(errors**2, axis=-1), lambda dlosses: 2 * dlosses[:, None] * errors

    given = set()
    model = quick(MLPRegressor, loss=squares, **on).fit(X, Y, X_val=X[:30], y_val=Y[:30])
    assert np.ndarray not in given
    expected = np.mean((model.predict(X[:30]) - Y[:30]) ** 2)
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.libraries("jax")
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_rows_that_fill_a_batch_change_nothing(on, backend, normalization, monkeypatch):
    model = quick(normalization=normalization, input_scaling="standardize", **on).fit(X, Y)
    kinds = {name: X[:37].astype(name) for name in ("float64", "float32", "uint8")}
    kinds |= {"bool": X[:37] > 4, "sparse": sparse.csr_array(X[:37]), "jax": backend.put(X[:37])}
    filled = {k: [model.predict_proba(x), model.hidden_activations(x)] for k, x in kinds.items()}
    monkeypatch.setattr(inference, "_compiled_rows", lambda n_samples, *_: n_samples)
    for kind, x in kinds.items():
        plain = [model.predict_proba(x), model.hidden_activations(x)]
        for found, expected in zip(filled[kind], plain, strict=True):
            assert type(found) is type(expected) is type(plain[0]), kind
            found, expected = np.asarray(found), np.asarray(expected)
            assert (len(found), found.dtype) == (37, expected.dtype), kind
            atol = np.abs(expected).max() * tolerance(str(expected.dtype), 5)
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=kind)


@pytest.mark.parametrize("sizes", [(4, 3), (1, 100, 1), (64, 100, 10), (3072, 512, 512, 10)])
def test_few_rows_are_added(sizes):
    weights = sum(a * b for a, b in pairwise(sizes))
    for most, n_views in product((2048, 1000), (1, 10)):
        shapes = set()
        for n in range(1, most + 1):
            n_rows = inference._compiled_rows(n, most, sizes, n_views)
            assert n <= n_rows <= most
            assert (n_rows - n) * n_views * weights < 1 << 20 or n_rows < 1.07 * n
            # Of an activation, which takes 1 to 2 ns: tanh of XLA.
            assert (n_rows - n) * n_views * sum(sizes[1:]) < 1 << 15 or n_rows < 1.07 * n
            if n * sizes[0] > 1 << 18:  # No copy of what is large.
                assert n_rows == n
            else:
                shapes.add(n_rows)
        assert inference._compiled_rows(1, most, sizes, n_views) == 1
        assert len(shapes) <= 80


@pytest.mark.libraries("jax")
def test_predictions_wait_for_no_other_thread(on, backend, monkeypatch):
    import jax

    model = quick(**on).fit(X, Y)
    with monkeypatch.context() as patched:
        patched.setattr(jax, "live_arrays", lambda platform: pytest.fail("waits for all arrays"))
        model.predict(X)
    taken = backend.put(X)
    taken.delete()  # As a step of another thread does while this one waits.
    monkeypatch.setattr(jax, "live_arrays", lambda platform: [taken])
    backend.synchronize()
