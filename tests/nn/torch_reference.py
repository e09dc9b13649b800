"""Activations and losses, written once more with torch's own functions."""

from __future__ import annotations

from gradient import fourth_power

from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Gaussian,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
)

TORCH_ACTIVATIONS = {
    "identity": lambda torch, x: x,
    "logistic": lambda torch, x: torch.sigmoid(x),
    "tanh": lambda torch, x: torch.tanh(x),
    "relu": lambda torch, x: torch.relu(x),
    "gelu": lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda torch, x: torch.nn.functional.silu(x),
    "elu": lambda torch, x: torch.nn.functional.elu(x),
    "leaky_relu": lambda torch, x: torch.nn.functional.leaky_relu(x),
    "softplus": lambda torch, x: torch.nn.functional.softplus(x, threshold=1e4),
}


TORCH_OUTPUTS = {
    "identity": lambda torch, z: z,
    "logistic": lambda torch, z: torch.sigmoid(z),
    "tanh": lambda torch, z: torch.tanh(z),
    "exp": lambda torch, z: torch.exp(z),
    "softplus": lambda torch, z: torch.nn.functional.softplus(z, threshold=1e4),
    "relu": lambda torch, z: torch.relu(z),
    "softmax": lambda torch, z: torch.softmax(z, dim=1),
}


def torch_quantiles(torch, loss, z):
    """Return quantiles, (batch, quantiles, targets): the first, and positive steps from there."""
    parts = z.reshape((len(z), len(loss.levels), -1))
    steps = torch.nn.functional.softplus(parts[:, 1:], threshold=1e4)
    return torch.cumsum(torch.cat([parts[:, :1], steps], dim=1), dim=1)


def torch_each(torch, loss, z, targets):
    """Return the loss of each sample, written once more with torch's own functions."""
    f = torch.nn.functional
    activate = TORCH_OUTPUTS["identity"]
    if isinstance(loss, Through):
        loss, activate = loss.loss, TORCH_OUTPUTS[loss.output]
    if isinstance(loss, Quantile):
        errors = activate(torch, torch_quantiles(torch, loss, z)) - targets[:, None, :]
        q = torch.tensor(loss.levels, dtype=z.dtype)[:, None]
        return torch.sum(torch.maximum((1 - q) * errors, -q * errors), dim=(1, 2))
    if isinstance(loss, Gaussian):
        mean, log_variance = torch.chunk(z, 2, dim=1)
        variance = torch.exp(log_variance)
        each = f.gaussian_nll_loss(mean, targets, variance, full=True, reduction="none", eps=1e-300)
        return torch.sum(each, dim=1)
    z = activate(torch, z)
    if isinstance(loss, Custom):
        outputs = TORCH_OUTPUTS[loss.output](torch, z)
        if loss.function is fourth_power:
            return torch.sum((outputs - targets) ** 4, dim=1)
        return f.cross_entropy(z, targets, reduction="none")
    if isinstance(loss, SoftmaxCrossEntropy):
        targets = targets.long() if targets.ndim == 1 else targets
        smoothing = loss.label_smoothing
        return f.cross_entropy(z, targets, reduction="none", label_smoothing=smoothing)
    if isinstance(loss, SoftmaxFocal):
        if targets.ndim == 1:
            targets = f.one_hot(targets.long(), z.shape[1])
        log_p = torch.log_softmax(z, dim=1)
        # torch's own derivative of 0^gamma is not finite, where there is a single class.
        rest = torch.clamp(1 - torch.exp(log_p), min=1e-300)
        return -torch.sum(targets * rest**loss.gamma * log_p, dim=1)
    if isinstance(loss, BinaryFocal):
        yes = (1 - torch.sigmoid(z)) ** loss.gamma * f.logsigmoid(z)
        no = torch.sigmoid(z) ** loss.gamma * f.logsigmoid(-z)
        return -torch.sum(targets * yes + (1 - targets) * no, dim=1)
    if isinstance(loss, BinaryCrossEntropy):
        targets = targets * (1 - loss.label_smoothing) + loss.label_smoothing / 2
        return torch.sum(f.binary_cross_entropy_with_logits(z, targets, reduction="none"), dim=1)
    if isinstance(loss, Poisson):
        each = f.poisson_nll_loss(z, targets, reduction="none")
        return torch.sum(each + torch.xlogy(targets, targets) - targets, dim=1)
    if isinstance(loss, SquaredError):
        each = 0.5 * (z - targets) ** 2
    elif isinstance(loss, AbsoluteError):
        each = f.l1_loss(z, targets, reduction="none")
    else:
        each = f.huber_loss(z, targets, reduction="none", delta=loss.delta)
    return torch.sum(each, dim=1)
