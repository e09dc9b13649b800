"""The lab's training loop, whose forward and backward passes run in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from array_api_compat import device

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.backends import Backend, get_backend
from mlp_xp.lab._checks import check_count
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.layers import Dense
from mlp_xp.nn.losses import Loss, SoftmaxCrossEntropy
from mlp_xp.nn.network import Network, Params, forward
from mlp_xp.training.step.inputs import Batch
from mlp_xp.training.step.value_and_gradient import value_and_gradient

Weights = tuple[Array, Array, Array, Array]
# A function of the epoch number (from 1), the accuracy and the loss; it returns True to stop.
AfterEpoch = Callable[[int, float, float], bool | None]


def reported_cross_entropy(logits: Array, labels: Array, *, xp: Namespace) -> float:
    r"""Return the loss that the lab reports: the binary cross-entropy of all softmax outputs.

    With :math:`t_k = e^{z_k - \max z}` and :math:`t = \sum_k t_k`, the probabilities are :math:`p_k
    = t_k / t`. The loss of a sample is a mean over the classes. The true class contributes
    :math:`-\log p_k = \log t - \log t_k`, and every other class contributes :math:`-\log (1 - p_k)
    = \log t - \log (t - t_k)`. For the largest logit, :math:`t - t_k` may round to 0, so the terms
    of the other classes are summed again, relative to the second largest logit. This avoids
    overflow and the logarithm of 0.
    """
    n_samples, n_classes = logits.shape
    # Put classes on the first axis, because NumPy is several times faster along long inner axes.
    z = xp.reshape(xp.reshape(logits.T, (-1,)), (n_classes, n_samples))
    classes = xp.arange(n_classes, dtype=labels.dtype, device=device(labels))[:, None]
    is_top = classes == xp.astype(xp.argmax(z, axis=0), labels.dtype)[None, :]

    z = z - xp.max(z, axis=0, keepdims=True)
    terms = xp.exp(z)
    total = xp.sum(terms, axis=0, keepdims=True)
    # Half of the lowest float, so that a subtraction does not overflow.
    others = xp.where(is_top, -0.5 * float(xp.finfo(z.dtype).max), z)
    second = xp.max(others, axis=0, keepdims=True)
    others -= second
    log_rest_of_top = xp.log(xp.sum(xp.exp(others), axis=0, keepdims=True)) + second
    # Use 1 for the largest term, to avoid a log(0) warning; the result is replaced below.
    log_rest = xp.log(xp.where(is_top, 1.0, total - terms))
    log_rest = xp.where(is_top, log_rest_of_top, log_rest)
    logs = xp.where(classes == labels[None, :], z, log_rest)
    return float(xp.mean(xp.log(total) - logs))


def _blocks(backend: Backend, data: Array, dtype: DType, *, xp: Namespace) -> Iterator[slice]:
    """Yield the rows of each block.

    Casts and temporary arrays are small, because each block finishes its forward and backward pass
    before the next block starts.
    """
    n_samples, d_in = data.shape
    n_rows = max(1, backend.block_bytes() * 8 // (d_in * xp.finfo(dtype).bits))
    for start in range(0, n_samples, n_rows):
        yield slice(start, min(start + n_rows, n_samples))


def _work(params: Params, data: Array) -> int:
    """Return the number of multiplications in the first layer, to choose the number of threads."""
    return data.shape[0] * params[0].W.shape[0] * params[0].W.shape[1]


def _network(params: Params) -> Network:
    (W1, _), (W2, _) = params
    return Network((*W1.shape, W2.shape[1]), "logistic")


def loss_and_gradients(
    params: Params, data: Array, targets: Array, loss: Loss, *, xp: Namespace
) -> tuple[Any, Array, list[Array]]:
    """Return the mean loss (0-d), the logits for all samples, and the gradients.

    Each block's average is weighted by the block's fraction of the rows.
    """
    backend = get_backend(data)
    evaluate = value_and_gradient(_network(params), loss, backend.kernels, xp=xp)
    arrays = [array for layer in params for array in layer]
    total = xp.zeros_like(arrays[0][0, 0])
    grads = [xp.zeros_like(array) for array in arrays]
    logits = []
    with backend.training(_work(params, data)):
        for rows in _blocks(backend, data, arrays[0].dtype, xp=xp):
            found = evaluate(params, Batch(data[rows, ...], targets[rows, ...]), None)
            fraction = (rows.stop - rows.start) / data.shape[0]
            total += fraction * found.loss
            logits.append(found.logits)
            block_grads = leaves(found.backward(fraction * found.pull_loss()))
            for number, grad in enumerate(block_grads):
                grads[number] += grad
    return total, xp.concat(logits), grads


def logits_of(params: Params, data: Array, *, xp: Namespace) -> Array:
    """Return the logits, (n, d_out), of a forward pass."""
    network = _network(params)
    backend = get_backend(data)
    dtype = params[0].W.dtype
    logits = []
    with backend.training(_work(params, data)):
        context = Context(xp, backend.kernels)
        for rows in _blocks(backend, data, dtype, xp=xp):
            x = xp.astype(data[rows, ...], dtype, copy=False)
            logits.append(forward(network, params, x, context, xp=xp)[0])
    return cast(Array, xp.concat(logits))


def accuracy(logits: Array, labels: Array, *, xp: Namespace) -> float:
    """Return the fraction of samples for which the label's logit is largest."""
    correct = SoftmaxCrossEntropy().is_correct(logits, labels, xp=xp)
    # Count integers, since a sum of ones in low precision stops growing.
    return int(xp.count_nonzero(correct)) / labels.shape[0]


def updated(params: Params, grads: list[Array], learning_rate: float) -> Params:
    """Return the weights after a gradient descent step."""
    # Convert to a Python float, since a NumPy float64 would promote float32 weights to float64.
    rate = float(learning_rate)
    (W1, b1), (W2, b2) = params
    dW1, db1, dW2, db2 = grads
    return (Dense(W1 - rate * dW1, b1 - rate * db1), Dense(W2 - rate * dW2, b2 - rate * db2))


def train(
    params: Params,
    data: Array,
    labels: Array,
    learning_rate: float,
    num_epoch: int,
    *,
    after_epoch: AfterEpoch | None = None,
    xp: Namespace,
) -> tuple[Params, list[float], list[float]]:
    """Train for ``num_epoch`` epochs; return the weights, accuracies and losses."""
    check_count("num_epoch", num_epoch, 0)
    accuracies: list[float] = []
    losses: list[float] = []

    def record(value: float) -> bool:
        accuracies.append(value)
        if after_epoch is None:
            return False
        return bool(after_epoch(len(accuracies), value, losses[len(accuracies) - 1]))

    for epoch in range(num_epoch):
        _, logits, grads = loss_and_gradients(params, data, labels, SoftmaxCrossEntropy(), xp=xp)
        if epoch > 0 and record(accuracy(logits, labels, xp=xp)):
            return params, accuracies, losses
        losses.append(reported_cross_entropy(logits, labels, xp=xp))
        params = updated(params, grads, learning_rate)
    if num_epoch > 0:
        record(accuracy(logits_of(params, data, xp=xp), labels, xp=xp))
    return params, accuracies, losses


def to_weights(params: Params) -> Weights:
    """Return the layers as w1, b1, w2, b2, with biases of shape (1, n)."""
    (W1, b1), (W2, b2) = params
    return W1, b1[None, :], W2, b2[None, :]
