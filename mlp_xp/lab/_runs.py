"""Train the lab's network for several epochs and measure its accuracy."""

from __future__ import annotations

from array_api_compat import array_namespace, device

from mlp_xp._utils.array_types import Array
from mlp_xp.lab._checks import check_axes, check_count, check_range, in_scope, prepare_labels
from mlp_xp.lab._training import AfterEpoch, accuracy, logits_of, to_weights, train
from mlp_xp.nn.network import Network, init_params


@in_scope
def train_mlp(
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    data_train: Array,
    labels_train: Array,
    learning_rate: float,
    num_epoch: int,
) -> tuple[Array, Array, Array, Array, list[float], list[float]]:
    """Train for ``num_epoch`` epochs; each epoch is one step of `learn_once_cross_entropy`.

    Each epoch's forward pass also measures the accuracy after the previous epoch, so one more
    forward pass follows the last epoch.

    Parameters
    ----------
    w1, b1, w2, b2 : (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    data_train : (n, d_in)
    labels_train : (n,)
        Integers from 0 to ``d_out - 1``.
    learning_rate : float
    num_epoch : int of at least 0

    Returns
    -------
    w1, b1, w2, b2 : arrays
        The new weights, with the same shapes.
    train_accuracies : list of float
        The accuracy after each epoch's step, from 0 to 1.
    losses : list of float
        The loss of each epoch, before its step.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match, or a label or `num_epoch` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.lab import train_mlp
    >>> data, labels = np.array([[-1.0], [1.0]]), np.array([0, 1])
    >>> weights = np.ones((1, 1)), np.zeros((1, 1)), np.zeros((1, 2)), np.zeros((1, 2))
    >>> *weights, accuracies, losses = train_mlp(*weights, data, labels, 1.0, 50)
    >>> accuracies[-1], losses[0] > losses[-1]
    (1.0, True)
    """
    xp, params, labels = prepare_labels(w1, b1, w2, b2, "_train", data_train, labels_train)
    params, train_accuracies, losses = train(
        params, data_train, labels, learning_rate, num_epoch, xp=xp
    )
    return (*to_weights(params), train_accuracies, losses)


@in_scope
def test_mlp(
    w1: Array, b1: Array, w2: Array, b2: Array, data_test: Array, labels_test: Array
) -> float:
    """Return the accuracy: the fraction of samples for which the label has the largest output.

    Parameters
    ----------
    w1, b1, w2, b2 : (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    data_test : (n, d_in)
    labels_test : (n,)
        Integers from 0 to ``d_out - 1``.

    Returns
    -------
    float
        The accuracy, from 0 to 1.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match, or a label is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp import lab
    >>> weights = np.eye(2), np.zeros((1, 2)), np.eye(2), np.zeros((1, 2))
    >>> lab.test_mlp(*weights, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    0.5
    """
    xp, params, labels = prepare_labels(w1, b1, w2, b2, "_test", data_test, labels_test)
    return accuracy(logits_of(params, data_test, xp=xp), labels, xp=xp)


# Prevent pytest from collecting this function as a test.
test_mlp.__test__ = False  # type: ignore[attr-defined]


@in_scope
def run_mlp_training(
    data_train: Array,
    labels_train: Array,
    data_test: Array,
    labels_test: Array,
    d_h: int,
    learning_rate: float,
    num_epoch: int,
    *,
    seed: int = 0,
    after_epoch: AfterEpoch | None = None,
) -> tuple[list[float], float, list[float]]:
    """Train a network from random initial weights, then test it.

    The weights are drawn on the host by `init_params`, so a seed gives the same weights in every
    namespace. Their dtype is the data's dtype, or float32 for integer data.

    Parameters
    ----------
    data_train : (n, d_in)
    labels_train : (n,)
        Integers from 0.
    data_test : (m, d_in)
    labels_test : (m,)
        Integers from 0. The number of classes is the largest label in both sets plus 1.
    d_h : int of at least 1
        The number of hidden neurons.
    learning_rate : float
    num_epoch : int of at least 0
    seed : int of at least 0, default=0
    after_epoch : callable, optional
        A function called after each epoch as ``after_epoch(epoch, accuracy, loss)``; ``epoch``
        counts from 1. Return True to stop training.

    Returns
    -------
    train_accuracies : list of float
        The accuracy after each epoch, from 0 to 1.
    test_accuracy : float
        The accuracy after the last epoch, from 0 to 1.
    losses : list of float
        The loss of each epoch, before its step.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match, or a label, `d_h` or `num_epoch` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.lab import run_mlp_training
    >>> data, labels = np.array([[-1.0], [1.0]]), np.array([0, 1])
    >>> accuracies, test_accuracy, losses = run_mlp_training(data, labels, data, labels, 4, 1.0, 20)
    >>> len(accuracies), test_accuracy, losses[0] > losses[-1]
    (20, 1.0, True)
    """
    xp = array_namespace(data_train, labels_train, data_test, labels_test)
    check_count("d_h", d_h, 1)
    check_axes("data_train", data_train)
    d_out = 1 + max(
        check_range(name, labels, xp=xp)[1]
        for name, labels in (("labels_train", labels_train), ("labels_test", labels_test))
    )
    is_real = xp.isdtype(data_train.dtype, "real floating")
    dtype = data_train.dtype if is_real else xp.float32
    network = Network((data_train.shape[1], d_h, d_out), "logistic")
    w1, b1, w2, b2 = (
        xp.asarray(array, dtype=dtype, device=device(data_train))
        for array in to_weights(init_params(network, seed))
    )
    # Check the training data and the test data before the first epoch.
    xp, params, labels_train = prepare_labels(w1, b1, w2, b2, "_train", data_train, labels_train)
    *_, labels_test = prepare_labels(w1, b1, w2, b2, "_test", data_test, labels_test)
    params, train_accuracies, losses = train(
        params, data_train, labels_train, learning_rate, num_epoch, after_epoch=after_epoch, xp=xp
    )
    test_accuracy = accuracy(logits_of(params, data_test, xp=xp), labels_test, xp=xp)
    return train_accuracies, test_accuracy, losses
