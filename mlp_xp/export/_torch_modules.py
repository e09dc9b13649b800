"""Conversion of a network's blocks to PyTorch modules, and of modules to arrays and settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import get_backend
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.nn.blocks import (
    Activate,
    Affine,
    BatchNorm,
    Block,
    BlockAffine,
    Context,
    Dropout,
    LayerNorm,
    Residual,
    Signed,
)
from mlp_xp.nn.layers import ACTIVATIONS, Activation, Arrangement, BatchStats, Dense, Norm
from mlp_xp.nn.losses import OUTPUTS, EachTarget, Loss

_ACTIVATIONS: dict[str, Any] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": partial(nn.GELU, "tanh"),
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
}
_OUTPUTS: dict[str, Any] = _ACTIVATIONS | {"softmax": partial(nn.Softmax, -1)}


class _Buffers(nn.Module):  # type: ignore[misc]
    """A module with constant arrays, or None, by name."""

    def __init__(self, **arrays: Any) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name, None if array is None else torch.tensor(array))


class Scaled(_Buffers):
    """The input scaling ``(x - shift) * scale``, followed by a rotation for whitening."""

    def forward(self, x: Any) -> Any:
        y = (x - self.shift) * self.scale
        return y if self.rotation is None else y @ self.rotation


class Added(nn.Module):  # type: ignore[misc]
    """A residual block, which adds the inner modules' output to their input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return x + self.inner(x)


class BlockLinear(nn.Module):  # type: ignore[misc]
    """A block-diagonal dense layer; see `mlp_xp.nn.layers.block_dense`."""

    def __init__(self, params: Dense, arrangement: Arrangement) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(params.W))
        self.bias = nn.Parameter(torch.tensor(params.b))
        self.arrangement = arrangement

    def forward(self, x: Any) -> Any:
        arrangement, xp = self.arrangement, get_backend("torch").xp
        parts = arrangement.split(x, xp=xp) @ self.weight
        return arrangement.join(parts, xp=xp) + self.bias


class SignedWeight(_Buffers):
    """The weights of a monotone layer; see `mlp_xp.nn.layers.signed`."""

    def forward(self, weight: Any) -> Any:
        return weight * torch.where(weight >= 0.0, self.free + self.sign, self.free - self.sign)


class Applied(nn.Module):  # type: ignore[misc]
    """An activation computed by a function of arrays; see `mlp_xp.nn.layers.activate`."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x, xp=get_backend("torch").xp)[0]


class _Run(torch.autograd.Function):  # type: ignore[misc]
    """A block whose gradients are computed by its pullback."""

    @staticmethod
    def forward(ctx: Any, block: Block, params: Any, x: Any, *arrays: Any) -> Any:
        context = Context(get_backend("torch").xp)
        y, ctx.pullback, _ = block(rebuild(params, arrays), x, context)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> tuple[Any, ...]:
        dx, grads = ctx.pullback(dy, need_dx=ctx.needs_input_grad[2])
        return None, None, dx, *leaves(grads)


class OwnBlock(nn.Module):  # type: ignore[misc]
    """A block for which PyTorch has no module."""

    def __init__(self, block: Block, params: Any) -> None:
        super().__init__()
        self.block, self.structure = block, map_leaves(lambda leaf: None, params)
        self.arrays = nn.ParameterList(torch.tensor(leaf) for leaf in leaves(params))

    def forward(self, x: Any) -> Any:
        return _Run.apply(self.block, self.structure, x, *self.arrays)

    def extra_repr(self) -> str:
        return str(self.block)


class Activated(nn.Module):  # type: ignore[misc]
    """The output activation of a loss that predicts quantiles, or mean and standard deviation."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Any) -> Any:
        return self.loss.activate(x, xp=get_backend("torch").xp)


class Restored(_Buffers):
    """The conversion of outputs to the unit of the targets: ``x * factor + summand``."""

    def forward(self, x: Any) -> Any:
        return x * self.factor + self.summand


class Limited(_Buffers):
    """A module that clips outputs to ``lowest`` and ``highest``, but not in training."""

    def forward(self, x: Any) -> Any:
        return x if self.training else torch.clamp(x, self.lowest, self.highest)


def build(state: FittedState, *, activate: bool) -> nn.Sequential:
    """Return a module that is equivalent to a network."""
    params, batch_stats = iter(state.params), list(state.batch_stats)
    modules: list[nn.Module] = []
    if state.scaling is not None:
        modules.append(Scaled(**{"rotation": None} | state.scaling._asdict()))
    for layer in state.network.blocks:
        modules += _modules(layer, params, batch_stats)
    # Raw outputs are converted only if each is the prediction of a target.
    is_final = activate or (state.output == "identity" and state.loss.outputs_per_target == 1)
    if activate and (state.loss.outputs_per_target > 1 or isinstance(state.loss, EachTarget)):
        modules.append(Activated(state.activating_loss))
    elif activate and state.output != "identity":
        is_known = state.output in _OUTPUTS
        modules.append(_OUTPUTS[state.output]() if is_known else Applied(OUTPUTS[state.output]))
    if state.target_scaling is not None and is_final:
        xp: Any = get_backend("numpy").xp
        factor, summand = state.activating_loss.units(*state.targets.scaling, xp=xp)
        modules.append(Restored(factor=factor, summand=summand))
    if state.clips_predictions and is_final:
        lowest, highest = state.targets.limits
        modules.append(Limited(lowest=lowest, highest=highest))
    return nn.Sequential(*modules).to(getattr(torch, state.dtype)).eval()


def _modules(
    blocks: tuple[Block, ...], params: Iterator[Any], batch_stats: list[BatchStats]
) -> list[nn.Module]:
    return [
        _module(block, next(params) if block.has_params else (), batch_stats) for block in blocks
    ]


def _module(block: Block, params: Any, batch_stats: list[BatchStats]) -> nn.Module:
    match block:
        case Affine():
            weight = params.W.T * block.factor
            return _filled(nn.Linear(block.fan_in, block.fan_out), weight=weight, bias=params.b)
        case BlockAffine():
            return BlockLinear(params, block.arrangement)
        case LayerNorm():
            return _filled(nn.LayerNorm(block.width), weight=params.scale, bias=params.shift)
        case BatchNorm():
            mean, variance = batch_stats[block.number]
            statistics = {"running_mean": mean, "running_var": variance}
            norm = nn.BatchNorm1d(block.width)
            return _filled(norm, weight=params.scale, bias=params.shift, **statistics)
        case Signed():
            return _signed(block, _module(block.block, params, batch_stats), params)
        case Activate(function):
            if not isinstance(function, str):
                return Applied(function)
            known = _ACTIVATIONS.get(function)
            return Applied(ACTIVATIONS[function]) if known is None else known()
        case Dropout():
            return nn.Dropout(block.rate)
        case Residual():
            return Added(nn.Sequential(*_modules(block.blocks, iter(params), batch_stats)))
    if not block.has_params:
        raise ValueError(f"PyTorch has no module for {block!r}: export with to_onnx.")
    return OwnBlock(block, params)


def _signed(block: Signed, module: nn.Module, params: Any) -> nn.Module:
    """Return a module whose weights keep their signs in further training, too."""
    if isinstance(module, OwnBlock):
        return OwnBlock(block, params)
    given: Any = (np.asarray(d, params[0].dtype) for d in (block.inputs, block.outputs))
    signs = block.block.signs(*given)[0]
    assert signs is not None
    weight = SignedWeight(free=signs.free.T, sign=signs.sign.T)
    return parametrize.register_parametrization(module, "weight", weight)


def _filled(module: nn.Module, **arrays: Any) -> nn.Module:
    """Replace a module's parameters and buffers, and return the module."""
    for name, array in arrays.items():
        getattr(module, name).data = torch.tensor(np.ascontiguousarray(array))
    return module


class Parsed(NamedTuple):
    """The arrays of a module, its output activation, and settings of an equivalent estimator."""

    denses: list[Dense]
    norms: list[Norm]
    batch_stats: list[BatchStats]
    settings: dict[str, Any]
    output: str | None


_ENDS = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax", nn.Sigmoid: "logistic"}
_NAMES = {kind: name for name, kind in _ACTIVATIONS.items() if isinstance(kind, type)}


def parse(module: nn.Module) -> Parsed:
    """Return a module's arrays and settings; raise ValueError if no estimator is equivalent."""
    steps = [*module] if isinstance(module, nn.Sequential) else [module]
    steps = steps[isinstance(steps[0], nn.Flatten) if steps else 0 :]
    output = None
    if steps and type(steps[-1]) in _ENDS:
        output = _ENDS[type(steps.pop())]
    if not steps or not isinstance(steps[-1], nn.Linear):
        raise ValueError(
            f"`module` must be a Sequential whose last layer is a Linear, got {module!r}."
        )
    denses: list[Dense] = []
    norms: list[Norm] = []
    batch_stats: list[BatchStats] = []
    settings: list[dict[str, Any]] = []
    while steps:
        dense = steps.pop(0)
        if not isinstance(dense, nn.Linear):
            raise _unknown(dense)
        denses.append(_dense(dense))
        if not steps:
            break
        layer: dict[str, Any] = {"normalization": None, "activation": "identity", "dropout": 0.0}
        if isinstance(steps[0], nn.LayerNorm | nn.BatchNorm1d):
            layer["normalization"] = _add_norm(steps.pop(0), norms, batch_stats)
        if (name := _activation(steps[0])) is not None:
            layer["activation"] = name
            steps.pop(0)
        if isinstance(steps[0], nn.Dropout):
            layer["dropout"] = float(steps.pop(0).p)
        settings.append(layer)
    return Parsed(denses, norms, batch_stats, _joined(settings), output)


def _joined(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings of all layers."""
    kinds = {layer["normalization"] for layer in layers}
    if len(kinds) > 1:
        raise ValueError(
            "The module has normalization after only some layers, or two kinds of normalization, "
            "but an estimator has one kind after every hidden layer, or none."
        )
    if not layers:
        return {}
    joined: dict[str, Any] = {"normalization": kinds.pop()}
    for name in ("activation", "dropout"):
        values = tuple(layer[name] for layer in layers)
        joined[name] = values[0] if len(set(values)) == 1 else values
    return joined


def _array(tensor: Any) -> Any:
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _dense(module: nn.Linear) -> Dense:
    W = _array(module.weight.T)
    bias = module.bias
    b: Any = np.zeros(W.shape[1], W.dtype) if bias is None else _array(bias)
    return Dense(W, b)


def _add_norm(module: Any, norms: list[Norm], batch_stats: list[BatchStats]) -> str:
    """Append the arrays of a normalization to the lists; return its kind, "layer" or "batch"."""
    if module.eps != 1e-5 or module.weight is None or module.bias is None:
        raise ValueError(f"{module!r} must have eps=1e-5, a weight and a bias, as in an estimator.")
    norms.append(Norm(_array(module.weight), _array(module.bias)))
    if isinstance(module, nn.LayerNorm):
        return "layer"
    if module.running_mean is None:
        raise ValueError(f"{module!r} has no running statistics, which predictions need.")
    batch_stats.append(BatchStats(_array(module.running_mean), _array(module.running_var)))
    return "batch"


def _activation(module: nn.Module) -> str | None:
    """Return the name of an activation, or None for another module."""
    if isinstance(module, nn.Linear | nn.Dropout):
        return None
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        return "gelu"
    name = _NAMES.get(type(module))
    is_default = repr(module) == repr(type(module)()) or isinstance(module, nn.ReLU | nn.SiLU)
    if name is None or not is_default:
        raise _unknown(module)
    return name


def _unknown(module: nn.Module) -> ValueError:
    return ValueError(
        f"{module!r} is not part of an estimator's network: use Linear layers, each followed by "
        "LayerNorm or BatchNorm1d, an activation with its default settings (GELU with "
        "approximate='tanh') and Dropout."
    )
