"""TF32 is a setting of the products, in the scope of the backend alone."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest

from mlp_xp.backends import get_backend


@pytest.mark.parametrize("before", ["none", "tf32"])
def test_torch_products_have_their_precision_in_the_scope_alone(torch, before):
    products = torch.backends.cuda.matmul
    was = products.fp32_precision
    plain = type(get_backend("torch"))(torch.device("cuda:0"))  # No GPU is asked.
    tf32 = copy(plain)
    tf32.precision = "tf32"
    try:
        products.fp32_precision = before
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
    finally:
        products.fp32_precision = was


def test_jax_products_have_their_precision_in_the_scope_alone():
    jax = pytest.importorskip("jax")
    plain = get_backend("jax")
    tf32 = copy(plain)
    tf32.precision = "tf32"
    found = {}
    for backend in (plain, tf32):
        with backend.scope():
            text = str(jax.make_jaxpr(jax.numpy.matmul)(np.ones((2, 2)), np.ones((2, 2))))
            found[backend.precision] = "TF32_TF32_F32" in text or "Precision.HIGH," in text
    assert found == {None: False, "tf32": True}
