"""TF32 is a setting of the products, in the scope of the backend alone."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest

from mlp_xp.backends import get_backend


def with_tf32(backend):
    tf32 = copy(backend)
    tf32.precision = "tf32"
    return tf32


@pytest.fixture(params=["none", "tf32"])
def before(torch, request):
    """Set the precision of torch's products."""
    products = torch.backends.cuda.matmul
    was, products.fp32_precision = products.fp32_precision, request.param
    yield request.param
    products.fp32_precision = was


def test_torch_products_have_their_precision_in_the_scope_alone(torch, before):
    products = torch.backends.cuda.matmul
    plain = type(get_backend("torch"))(torch.device("cuda:0"))  # No GPU is asked.
    tf32 = with_tf32(plain)
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
def test_jax_products_have_their_precision_in_the_scope_alone():
    jax = pytest.importorskip("jax")
    plain, found = get_backend("jax"), {}
    for backend in (plain, with_tf32(plain)):
        with backend.scope():
            text = str(jax.make_jaxpr(jax.numpy.matmul)(np.ones((2, 2)), np.ones((2, 2))))
            found[backend.precision] = "TF32_TF32_F32" in text or "Precision.HIGH," in text
    assert found == {None: False, "tf32": True}
