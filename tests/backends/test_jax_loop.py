"""JAX's loops on a GPU are chunks whose length XLA knows, seen here on a CPU."""

import numpy as np
import pytest

pytestmark = [pytest.mark.matrix, pytest.mark.libraries("jax")]


def body(i, state, table):
    return state * 1.5 + table[i]


def test_chunked_loop_matches_a_single_loop(monkeypatch):
    from mlp_xp.backends._jax import backend as _jax

    backend, table = _jax.create("cpu"), np.arange(100, dtype=np.float32)
    whole = backend.loop(body)
    monkeypatch.setattr(backend, "shares_host_memory", False)
    for start, stop in (0, 100), (3, 11), (98, 99), (5, 5):
        both = [run(start, stop, np.float32(1), table) for run in (whole, backend.loop(body))]
        assert both[0] == both[1]


def test_xla_knows_the_length_of_a_chunk():
    import jax

    from mlp_xp.backends._jax import backend as _jax

    table = np.arange(100, dtype=np.float32)
    chunk = jax.jit(lambda *arguments: _jax._run_chunk(body, 64, *arguments))
    text = chunk.lower(np.int64(0), np.float32(1), table).compile().as_text()
    assert '"known_trip_count":{"n":"64"}' in text
