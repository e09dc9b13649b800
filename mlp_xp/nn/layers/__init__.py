"""Layers: forward pass and pullback in one function each, below their formula.

A layer returns its output together with a *pullback*: a function that converts the gradient of the
loss with respect to the output, ``dy``, to the gradients with respect to the input and the
parameters. The pullback is a closure over the values that the backward pass needs. Pullbacks are
pure: they return gradients and accumulate nothing. (The name comes from differential geometry; see
e.g. the JAX "Autodiff Cookbook" on vector-Jacobian products.)

Rows are ``x : (..., batch, features)``. The leading axes count models; the parameters may have them
even if x has none. Results are in the dtype of x. ``pullback(dy, need_dx=...)`` returns ``(dx,
grads)``; ``dx`` is None unless needed. If a layer has no parameters, ``pullback(dy)`` returns
``dx``. A layer never writes to its inputs, only to arrays that it has created.
"""

from __future__ import annotations

from mlp_xp.nn.layers._activations import (
    ACTIVATIONS,
    INCREASING,
    activate,
    elu,
    exp,
    identity,
    leaky_relu,
    logistic,
    name_of,
    relu,
    selu,
    softplus,
    tanh,
)
from mlp_xp.nn.layers._block_dense import Arrangement, affine, block_dense
from mlp_xp.nn.layers._dense import Dense, dense, per_sample
from mlp_xp.nn.layers._dropout import dropout, threshold
from mlp_xp.nn.layers._embedding import Embedding, embed, sum_rows_of_table
from mlp_xp.nn.layers._gated import gelu, mish, sigmoid, silu
from mlp_xp.nn.layers._kernels import LayerKernels
from mlp_xp.nn.layers._layer import Activation, ActivationPullback, LayerPullback, run_layer
from mlp_xp.nn.layers._members import Heads, SharedDense, member_heads, shared_dense
from mlp_xp.nn.layers._normalization import (
    BatchStats,
    Norm,
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
from mlp_xp.nn.layers._signed import Directions, Signs, direction_array, signed
