"""One-hot encoding, and single steps of gradient descent on two losses."""

from __future__ import annotations

import array_api_extra as xpx
from array_api_compat import array_namespace

from mlp_xp._utils.array_types import Array
from mlp_xp.backends import get_backend
from mlp_xp.lab._checks import check_range, default_dtype, in_scope, prepare, prepare_labels
from mlp_xp.lab._training import loss_and_gradients, reported_cross_entropy, to_weights, updated
from mlp_xp.nn.losses import SoftmaxCrossEntropy, SquaredError, Through


def one_hot(labels: Array) -> Array:
    """Return the one-hot encoding of labels, with ``max(labels) + 1`` columns.

    Parameters
    ----------
    labels : (...)
        Integers of at least 0, with any number of axes.

    Returns
    -------
    (..., max(labels) + 1)
        The one-hot encoding, in the namespace's default real dtype.

    Raises
    ------
    ValueError
        If `labels` is empty or contains negative or non-integer values.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.lab import one_hot
    >>> one_hot(np.array([1, 2, 0]))
    array([[0., 1., 0.],
           [0., 0., 1.],
           [1., 0., 0.]])
    """
    xp = array_namespace(labels)
    # Read the default dtype first, since the scope enables float64 in JAX.
    dtype = default_dtype("real floating", labels, xp=xp)
    with get_backend(labels).scope():
        labels, largest = check_range("labels", labels, xp=xp)
        return xpx.one_hot(labels, largest + 1, dtype=dtype, xp=xp)


@in_scope
def learn_once_mse(
    w1: Array, b1: Array, w2: Array, b2: Array, data: Array, targets: Array, learning_rate: float
) -> tuple[Array, Array, Array, Array, float]:
    r"""Update the weights by one gradient descent step on the mean squared error.

    The outputs are logistic.

    :math:`L = \frac{1}{n\,d_{out}} \sum (A_2 - T)^2`, the mean over samples and outputs.

    Parameters
    ----------
    w1, b1, w2, b2 : (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    data : (n, d_in)
    targets : (n, d_out)
        From 0 to 1.
    learning_rate : float

    Returns
    -------
    w1, b1, w2, b2 : arrays
        The new weights, with the same shapes.
    loss : float
        The loss before the step.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match.

    References
    ----------
    Nielsen, "Neural Networks and Deep Learning" (2015), chapter 2.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.lab import learn_once_mse
    >>> w1, b1, w2, b2 = np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((3, 1)), np.zeros((1, 1))
    >>> w1, b1, w2, b2, loss = learn_once_mse(w1, b1, w2, b2, np.ones((4, 2)), np.ones((4, 1)), 1.0)
    >>> loss, b2
    (0.25, array([[0.25]]))
    """
    xp, params = prepare(w1, b1, w2, b2, "data", data, targets)
    expected = (data.shape[0], w2.shape[1])
    if tuple(targets.shape) != expected:
        raise ValueError(
            f"`targets` must have shape {expected}, got {tuple(targets.shape)}: one row per row "
            "of data and one column per column of w2. For labels, use one_hot(labels)."
        )

    targets = xp.astype(targets, w1.dtype, copy=False)
    squares = Through(SquaredError(), "logistic")
    loss, _, grads = loss_and_gradients(params, data, targets, squares, xp=xp)
    # `SquaredError` is half the sum of squared errors over the outputs, but our loss is their mean.
    scale = 2.0 / w2.shape[1]
    return (*to_weights(updated(params, grads, scale * learning_rate)), scale * float(loss))


@in_scope
def learn_once_cross_entropy(
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    data: Array,
    labels_train: Array,
    learning_rate: float,
) -> tuple[Array, Array, Array, Array, float]:
    r"""Update the weights by one gradient descent step on the cross-entropy of softmax outputs.

    With one-hot labels :math:`Y`, the gradient with respect to the logits is :math:`(A_2 - Y) / n`,
    as in the softmax cross-entropy. The reported loss is the binary cross-entropy,
    :math:`-\frac{1}{n\,d_{out}} \sum Y \log A_2 + (1 - Y) \log(1 - A_2)`.

    Parameters
    ----------
    w1, b1, w2, b2 : (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    data : (n, d_in)
    labels_train : (n,)
        Integers from 0 to ``d_out - 1``. Classes may be missing.
    learning_rate : float

    Returns
    -------
    w1, b1, w2, b2 : arrays
        The new weights, with the same shapes.
    loss : float
        The loss before the step.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match, or a label is out of range.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.lab import learn_once_cross_entropy
    >>> weights = np.zeros((2, 3)), np.zeros((1, 3)), np.zeros((3, 2)), np.zeros((1, 2))
    >>> *weights, loss = learn_once_cross_entropy(*weights, np.ones((1, 2)), np.array([1]), 1.0)
    >>> loss == np.log(2), weights[3]
    (np.True_, array([[-0.5,  0.5]]))
    """
    xp, params, labels = prepare_labels(w1, b1, w2, b2, "", data, labels_train)
    _, logits, grads = loss_and_gradients(params, data, labels, SoftmaxCrossEntropy(), xp=xp)
    loss = reported_cross_entropy(logits, labels, xp=xp)
    return (*to_weights(updated(params, grads, learning_rate)), loss)
