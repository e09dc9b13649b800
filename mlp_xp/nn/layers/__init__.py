"""Layers: forward pass and pullback in one function each, below their formula.

A layer returns its output together with a *pullback*: a function that turns the gradient of the
loss with respect to the output, ``dy``, into the gradients with respect to the input and the
parameters. The closure keeps what the backward pass needs. Pullbacks are pure: they return
gradients and accumulate nothing. (The name comes from differential geometry; see e.g. the JAX
"Autodiff Cookbook" on vector-Jacobian products.)

Rows are ``x : (..., batch, features)``. Leading axes count models, and may be on the parameters
only; results are in the dtype of x. ``pullback(dy, need_dx=...)`` returns ``(dx, grads)``, with
``dx`` None unless needed. For a layer without parameters, ``pullback(dy)`` returns ``dx``. Inputs
are never written to. A layer may write to arrays that it has just created.
"""

from __future__ import annotations

from mlp_xp.nn.layers._activations import (
    ACTIVATIONS,
    activate,
    elu,
    exp,
    identity,
    leaky_relu,
    logistic,
    relu,
    selu,
    softplus,
    tanh,
)
from mlp_xp.nn.layers._block_dense import Arrangement, affine, block_dense
from mlp_xp.nn.layers._dense import Dense, DensePullback, dense, per_sample
from mlp_xp.nn.layers._dropout import dropout, threshold
from mlp_xp.nn.layers._embedding import Embedding, embed, run_layer_with, sum_rows_of_table
from mlp_xp.nn.layers._gated import gelu, mish, sigmoid, silu
from mlp_xp.nn.layers._layer import Activation, ActivationPullback, LayerPullback, run_layer
from mlp_xp.nn.layers._members import Heads, SharedDense, member_heads, shared_dense
from mlp_xp.nn.layers._normalization import (
    BatchStats,
    Norm,
    NormPullback,
    apply_norm,
    batch_norm,
    layer_norm,
)
from mlp_xp.nn.layers._numeric import (
    InputScale,
    Periodic,
    Piecewise,
    periodic,
    piecewise,
    scale_inputs,
)
from mlp_xp.nn.layers._parametric import Slope, parametric
from mlp_xp.nn.layers._parts import BatchPart, cut_rows, shares, sum_in_pairs, sum_rows
