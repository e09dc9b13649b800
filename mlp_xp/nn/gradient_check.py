r"""A check that compares the gradient of a user's loss or activation with a finite difference.

A wrong gradient rarely causes an error: the network just learns less well. The check therefore
compares a pullback with the central difference :math:`(f(x + hv) - f(x - hv)) / 2h` along a few
directions :math:`v`. For :math:`h = \varepsilon^{1/3}`, the difference has an error of order
:math:`\varepsilon^{2/3}` (Press et al., "Numerical Recipes" (2007), section 5.7). The tolerance is
a hundred times this error. The check reads values on the host, so a compiled step cannot contain
it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.compiler import check_formula, forget, with_pullback
from mlp_xp.nn.blocks import Block, Context
from mlp_xp.nn.layers import Activation, name_of
from mlp_xp.nn.losses import Custom, Loss

_N_DIRECTIONS = 3


def check_loss(
    loss: Loss | Callable[..., Any], logits: Array, targets: Array, *, xp: Namespace
) -> None:
    """Raise ValueError unless a loss is well-formed and its pullback is its derivative.

    ``loss`` is a `Loss`, or a function as in `Custom`. Use a few samples with ordinary logits, e.g.
    from -2 to 2, and not at a kink of the loss. In float64, the check finds much smaller mistakes
    than in float32. The error message contains the numbers and says what to do.
    """
    what = f"loss {_name(loss)}"
    # For a Custom loss, check the signature of its function, but the derivative with respect to the
    # logits, because softmax outputs cannot change independently.
    whole: Any = loss
    forget(loss)
    function, outputs = whole, logits
    if isinstance(loss, Custom):
        function, outputs = loss.function, loss.activate(logits, xp=xp)
    # Use a different weight for each sample.
    dlosses = 1.5 + _direction(logits[:, 0], _N_DIRECTIONS, xp=xp)
    given = {"outputs": outputs, "targets": targets, "dlosses": dlosses}
    about = "losses", "xp.sum(..., axis=-1)", "one number per sample", "the outputs"
    is_derived = _check_contract(function, what, given, *about, xp=xp)
    if is_derived:
        return
    _compare(what, lambda point: whole(point, targets, xp=xp), logits, dlosses, xp=xp)


def check_activation(
    activation: Activation | Callable[..., Any], x: Array, *, xp: Namespace, name: str = ""
) -> None:
    """Raise ValueError unless an activation is well-formed and its pullback is its derivative.

    ``activation(x, *, xp)`` returns ``(y, pullback)``, and ``pullback(dy)`` returns ``dx``. Use a
    few numbers of ordinary size that are not at a kink of the activation. ``name`` is the name in
    error messages.
    """
    what = f"activation {name or _name(activation)}"
    given = {"x": x, "dy": _direction(x, _N_DIRECTIONS, xp=xp)}
    about = "y", "xp.tanh(x)", "one number per input", "x"
    if not _check_contract(activation, what, given, *about, xp=xp):
        _compare(what, lambda point: activation(point, xp=xp), x, given["dy"], xp=xp)


def check_block(block: Block, params: Any, x: Array, keys: Array, *, xp: Namespace) -> None:
    """Raise ValueError unless the formula of a block, its `forward`, is well-formed.

    ``x : (samples, inputs)`` are a few numbers of ordinary size, and ``keys : (dropouts,)`` the
    int32 keys of dropout.
    """
    what = f"block {block!r}"
    context = Context(xp, is_training=True, keys=keys)
    found = []
    for _ in range(2):
        forget(block)
        y, pullback, _ = block(params, x, context)
        shape = (*x.shape[:-1], block.fan_out or x.shape[-1])
        meaning = "fan_out numbers per sample" if block.fan_out else "one number per input"
        # The logarithm of an input may be finite in the data.
        _check_form(y, shape, x.dtype, f"the output of {what}", meaning)
        found.append(y)
    is_same = (found[0] == found[1]) | (xp.isnan(found[0]) & xp.isnan(found[1]))
    if not bool(xp.all(is_same)):
        raise ValueError(
            f"{what} has another output in each call, so it draws random numbers or changes its "
            "own settings; compute the same formula each time."
        )
    gradients = leaves(pullback(_direction(y, _N_DIRECTIONS, xp=xp), need_dx=True))
    if not any(bool(xp.any(gradient != 0.0)) for gradient in gradients):
        raise ValueError(
            f"{what} does not depend on its inputs and parameters, so there is nothing to learn; "
            "compute the result from x."
        )


def _check_contract(
    function: Any,
    what: str,
    given: dict[str, Array],
    result: str,
    example: str,
    meaning: str,
    variable: str,
    *,
    xp: Namespace,
) -> bool:
    """Raise an error unless a function has the right signature and returns valid arrays.

    ``given`` are the function's arguments, and the pullback's argument, by name. Return whether the
    pullback is derived, and so need not be compared with a difference.
    """
    copies = {name: xp.asarray(array, copy=True) for name, array in given.items()}
    *names, dy_name = given
    *arguments, dy = given.values()
    dtype, pull = arguments[0].dtype, f"the pullback of {what}"
    _check_signature(function, what, f"({', '.join(names)}, *, xp)", arguments, xp=xp)
    is_derived = False
    call = function
    forget(function)
    if not isinstance(function, Loss):
        is_derived = check_formula(function, *arguments, names=names, what=what)
        call = partial(with_pullback, function, names=names, what=what)
    else:
        own: Any = function.losses if type(function).terms is Loss.terms else function.terms
        is_derived = check_formula(own, *arguments, names=names, what=what)
    found = call(*arguments, xp=xp)
    y, pullback = _check_pair(found, what, f"({result}, pullback)", example)
    _check_array(y, dy.shape, dtype, f"the value of {what}", meaning, xp=xp)
    _check_signature(pullback, pull, f"({dy_name})", [dy], xp=None)
    meaning = f"the gradient with respect to {variable}"
    _check_array(pullback(dy), arguments[0].shape, dtype, pull, meaning, xp=xp)
    for name, array in given.items():
        if not bool(xp.all(array == copies[name])):
            raise ValueError(
                f"{what} writes to its {name}, which must not change: write only to new arrays."
            )
    return is_derived


def _name(function: object) -> str:
    if isinstance(function, Custom):
        function = function.function
    return name_of(function)


def _direction(like: Array, k: int, *, xp: Namespace) -> Array:
    """Return the ``k``-th direction, which contains irregular numbers from -1 to 1."""
    steps = xp.arange(math.prod(like.shape), dtype=like.dtype, device=device(like))
    return xp.reshape(xp.sin(steps * (1.7 + k) + (1.0 + k)), like.shape)


def _check_signature(
    function: Any, what: str, signature: str, arguments: list[Any], *, xp: Namespace
) -> None:
    """Raise ValueError if a function does not accept the arguments."""
    if not callable(function):
        raise ValueError(f"{what} must be a callable {signature}, got {type(function).__name__}.")
    try:
        bind = inspect.signature(function).bind
    except (TypeError, ValueError):  # A compiled function may lack a signature.
        return
    try:
        bind(*arguments, **({} if xp is None else {"xp": xp}))
    except TypeError as error:
        raise ValueError(f"{what} must accept {signature}, got an error: {error}.") from None


def _check_pair(result: Any, what: str, pair: str, example: str) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise ValueError(
            f"{what} must return one array, or {pair}, got {got}; end it with e.g. "
            f"'return {example}'."
        )
    return result


def _check_form(array: Any, shape: tuple[int, ...], dtype: object, what: str, meaning: str) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise ValueError(f"{what} must be an array ({meaning}), got {type(array).__name__}.")
    if tuple(array.shape) != tuple(shape):
        raise ValueError(
            f"{what} must have the shape {tuple(shape)} ({meaning}), got {tuple(array.shape)}."
        )
    if array.dtype != dtype:
        raise ValueError(
            f"{what} must have the dtype of the input, {dtype}, got {array.dtype}; create arrays "
            "with dtype=, and convert others with xp.astype."
        )


def _check_array(
    array: Any, shape: tuple[int, ...], dtype: object, what: str, meaning: str, *, xp: Namespace
) -> None:
    _check_form(array, shape, dtype, what, meaning)
    if not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"{what} is not finite; look for the logarithm of 0, a division by 0, or an "
            "exponential that overflows."
        )


def _compare(
    what: str, function: Callable[[Array], Any], x: Array, dy: Array, *, xp: Namespace
) -> None:
    """Compare a gradient with the central difference along each direction."""
    y, pullback = function(x)
    value, dx = float(xp.sum(y * dy)), pullback(dy)

    def value_at(point: Array) -> float:
        return float(xp.sum(function(point)[0] * dy))

    eps = float(xp.finfo(x.dtype).eps)
    h = eps ** (1 / 3)
    size = float(xp.max(xp.abs(x)))
    found = []
    for k in range(_N_DIRECTIONS):
        v = _direction(x, k, xp=xp)
        given = float(xp.sum(dx * v))
        difference = (value_at(x + h * v) - value_at(x - h * v)) / (2 * h)
        # Rounding errors are proportional to the value and to x.
        scale = 1.0 + abs(value) + (1.0 + size) * float(xp.sum(xp.abs(dx * v)))
        apart = abs(given - difference)
        # NaN fails this comparison.
        right = apart <= 100.0 * eps ** (2 / 3) * scale
        found.append((right, given, difference, apart))
    wrong = [row for row in found if not row[0]]
    if not wrong:
        return
    _, given, difference, apart = max(wrong, key=lambda row: row[3])
    raise ValueError(
        f"the pullback of {what} must match the finite difference along a direction, "
        f"{difference:.6g}, got {given:.6g} ({apart:.3g} apart): {_advice(found)}"
    )


def _advice(found: list[tuple[bool, float, float, float]]) -> str:
    """Return advice: name the factor to correct if it is the same in all directions."""
    ratios = [given / difference for _, given, difference, _ in found if difference]
    factor = sum(ratios) / max(len(ratios), 1)
    if factor and all(abs(ratio - factor) <= 0.01 * abs(factor) for ratio in ratios):
        return (
            f"the pullback is {factor:.3g} times the derivative everywhere; multiply what it "
            f"returns by {1 / factor:.3g}."
        )
    return (
        "it must return the derivative of the value, multiplied by its argument (there is no "
        "derivative at a kink, so check elsewhere)."
    )
