r"""Functions on plain arrays for teaching: a network with one hidden layer.

.. math::
    A_1 = \sigma(X W_1 + b_1), \qquad Z_2 = A_1 W_2 + b_2, \qquad
    A_2 = \sigma(Z_2) \;\text{or}\; \mathrm{softmax}(Z_2)

The functions use `nn` to train the network by full-batch gradient descent; ``docs/lab.md`` derives
the gradients. For mini-batches, other solvers or deeper networks, use `estimators`. Arrays may come
from any namespace, and are never modified. Shapes:

- ``w1 : (d_in, d_h)``, ``b1 : (1, d_h)``, ``w2 : (d_h, d_out)``, ``b2 : (1, d_out)``, with the same
  real floating dtype, which is used for all computations;
- ``data : (n, d_in)``, of any real dtype, which is cast in blocks of rows, and not scaled;
- ``labels : (n,)``, integers from 0 to ``d_out - 1``.
"""

from mlp_xp.lab._runs import run_mlp_training, test_mlp, train_mlp
from mlp_xp.lab._steps import learn_once_cross_entropy, learn_once_mse, one_hot

__all__ = [
    "learn_once_cross_entropy",
    "learn_once_mse",
    "one_hot",
    "run_mlp_training",
    "test_mlp",
    "train_mlp",
]
