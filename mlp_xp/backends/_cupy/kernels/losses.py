"""Compute a batch's average loss or accuracy, in one launch or, for large batches, in two.

A small batch is summed by one block of threads. For a larger batch, a second launch adds up the
sums of several blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends._cupy.kernels.rendering import (
    FLOATS,
    SHARES,
    THREADS,
    blocks_for,
    is_plain,
    kernel,
    raw_kernel,
    share_arguments,
    total,
)
from mlp_xp.nn import losses
from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Gaussian,
    Huber,
    Loss,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
)
from mlp_xp.nn.losses._base import log_bounds

_LABELS = ("|u1", "<i4", "<i8")
_OF_CLASSES = (SoftmaxCrossEntropy, SoftmaxFocal)
# The number of rows (or array elements) per group of threads. The maximum number of blocks.
_ROWS_AT_ONCE, _MOST_BLOCKS = 4, 256
_NUMBERS_AT_ONCE = 16

# All kernels have the same parameters. Each thread adds the losses of its rows to `value`.
_HEAD = f"""(const T* logits, const L* targets, const T* weights, T even, T smallest,
    T setting, T lowest, T highest, T* dlogits, T* parts, long long rows, int columns) {{
#define FOR_EACH(i, n) for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < (n); \\
    i += (long long)gridDim.x * THREADS)
  __shared__ T shared[THREADS];
  {SHARES}
  T value = 0;
"""
_TAIL = """
  value = sum_of<THREADS, 1>(value, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = value;
}"""

# With few classes, each row has one thread. Otherwise LANES threads share a row, so that
# neighboring threads read neighboring numbers.
_SOFTMAX = """
  const int lane = threadIdx.x % LANES, rows_of_block = THREADS / LANES;
  for (long long first = (long long)blockIdx.x * rows_of_block; first < rows;
       first += (long long)gridDim.x * rows_of_block) {
    const long long row = first + threadIdx.x / LANES;
    const int n = row < rows ? columns : 0;
    const T* z = logits + row * columns;
    T* dz = dlogits + row * columns;
    T largest = log(T(0));
    for (int k = lane; k < n; k += LANES) largest = z[k] > largest ? z[k] : largest;
    largest = largest_of<LANES>(largest, shared);
    T sum = 0;
    for (int k = lane; k < n; k += LANES) sum += exp(z[k] - largest);
    sum = sum_of<LANES, 1>(sum, shared);
    const T log_sum = log(sum), share = n > 0 ? SHARE(row) : T(0);
    T slopes = 0;
    for (int k = lane; k < n; k += LANES) {
      T target = LABELS ? T(targets[row] == k) : T(targets[row * columns + k]);
      const T centered = z[k] - largest, p = exp(centered) / sum;
      T log_p = centered - log_sum;
#if FOCAL
      const T q = -expm1(log_p), factor = pow(q, setting) * target * share;
      const T slope = factor * (setting * p * (log_p / (q > T(0) ? q : T(1))) - T(1));
      value -= factor * log_p;
      slopes += slope;
      dz[k] = slope;
#else
      target = target * (T(1) - setting) + setting / columns;
      value -= clip(log_p, lowest, highest) * target * share;
      dz[k] = (p - target) * share;
#endif
    }
#if FOCAL
    slopes = sum_of<LANES, 1>(slopes, shared);
    for (int k = lane; k < n; k += LANES) dz[k] -= exp(z[k] - largest) / sum * slopes;
#endif
  }"""

# C code for the loss of a target t and its derivatives with respect to the target's PARTS outputs,
# which are `columns` elements apart.
_EACH_TARGET = """
  FOR_EACH(i, rows * columns) {
    const long long row = i / columns, first = row * columns * PARTS + i % columns;
    const T t = targets[i], share = SHARE(row);
    const T* z = logits + first;
    T* dz = dlogits + first;
    TERMS
  }"""
_ONE_OUTPUT = """
    const T x = z[0];
    T term, slope;
    TERMS
    value += term * share;
    dz[0] = slope * share;"""
_TERMS: dict[type[Loss], str] = {
    SquaredError: "slope = x - t; term = T(0.5) * slope * slope;",
    AbsoluteError: "slope = sign_of(x - t); term = slope * (x - t);",
    Huber: """
      slope = clip(x - t, -setting, setting);
      term = slope * (x - t - T(0.5) * slope);""",
    BinaryCrossEntropy: """
      const T target = t * (T(1) - setting) + setting / T(2), bounded = clip(x, lowest, highest);
      term = softplus(bounded) - bounded * target;
      slope = sigmoid(x) - target;""",
    BinaryFocal: """
      const T p = sigmoid(x), q = sigmoid(-x), tail = log1p(exp(x < T(0) ? x : -x));
      const T log_p = (x < T(0) ? x : T(0)) - tail, log_q = (x > T(0) ? -x : T(0)) - tail;
      const T yes = pow(q, setting) * t, no = pow(p, setting) * (T(1) - t);
      slope = yes * (setting * p * log_p - q) - no * (setting * q * log_q - p);
      term = -(yes * log_p + no * log_q);""",
    Poisson: """
      slope = exp(x > highest ? highest : x) - t;
      term = (log(t > T(0) ? t : T(1)) - x) * t + slope;""",
}
_TERMS = {kind: _ONE_OUTPUT.replace("TERMS", terms) for kind, terms in _TERMS.items()} | {
    Gaussian: """
      const T bounded = clip(z[columns], lowest, highest);
      const T error = z[0] - t, slope = error * exp(-bounded), scaled = error * slope;
      value += T(0.5) * (bounded + scaled + T(1.8378770664093453)) * share;
      dz[0] = slope * share;
      dz[columns] = (T(0.5) - T(0.5) * scaled) * share;""",
    Quantile: """
      const T levels[] = {LEVELS};
      T quantile = z[0], slopes[PARTS], slope = 0;
      for (int k = 0; k < PARTS; k++) {
        if (k > 0) quantile += softplus(z[k * columns]);
        const T error = quantile - t, sign = sign_of(error);
        slopes[k] = T(0.5) * sign + (T(0.5) - levels[k]);
        value += (T(0.5) * sign * error + (T(0.5) - levels[k]) * error) * share;
      }
      for (int k = PARTS - 1; k >= 0; k--) {
        slope += slopes[k];
        dz[k * columns] = slope * share * (k > 0 ? sigmoid(z[k * columns]) : T(1));
      }""",
}

# As in `argmax`, ties select the first class, and NaN counts as the largest number.
_CORRECT = """
  FOR_EACH(row, rows) {
    const T* z = logits + row * columns;
    const L* t = targets + (LABELS ? row : row * columns);
    bool correct = true;
    if (CLASSES) {
      int predicted = 0, wanted = 0;
      for (int k = 1; k < columns; k++) {
        if (z[k] > z[predicted] || (z[k] != z[k] && z[predicted] == z[predicted])) predicted = k;
        if (!LABELS && t[k] > t[wanted]) wanted = k;
      }
      correct = LABELS ? t[0] == predicted : wanted == predicted;
    } else {
      for (int k = 0; k < columns; k++) correct = correct && (z[k] > T(0)) == (t[k] > L(0.5));
    }
    value += correct ? SHARE(row) : T(0);
  }"""

_DTYPES = (*((FLOATS[0], kind) for kind in _LABELS), *zip(FLOATS, FLOATS, strict=True))


@kernel(
    *((SoftmaxCrossEntropy, (), *dtypes, 1, 1) for dtypes in _DTYPES),
    *((SoftmaxCrossEntropy, (), dtype, dtype, 0, n) for dtype in FLOATS for n in (32, THREADS)),
    *((SoftmaxFocal, (), dtype, dtype, 0, 1) for dtype in FLOATS),
    *((kind, (0.2, 0.7), dtype, dtype, 1, 1) for kind in _TERMS for dtype in FLOATS),
)
def _loss_kernel(
    kind: type[Loss], levels: tuple[float, ...], dtype: str, targets: str, weighted: int, lanes: int
) -> Any:
    body = _SOFTMAX if kind in _OF_CLASSES else _EACH_TARGET.replace("TERMS", _TERMS[kind])
    numbers = ", ".join(f"T({level!r})" for level in map(float, levels))
    return raw_kernel(
        f"mlp_xp_{kind.__name__.lower()}",
        f"{_HEAD}{body.replace('LEVELS', numbers)}{_TAIL}",
        {"T": dtype, "L": targets},
        LABELS=int(targets in _LABELS),
        WEIGHTED=weighted,
        LANES=lanes,
        FOCAL=int(kind is SoftmaxFocal),
        PARTS=2 if kind is Gaussian else max(len(levels), 1),
    )


@kernel(*((*dtypes, 1, 1) for dtypes in _DTYPES), *((dtype, dtype, 0, 0) for dtype in FLOATS))
def _correct_kernel(dtype: str, targets: str, weighted: int, classes: int) -> Any:
    return raw_kernel(
        "mlp_xp_correct",
        f"{_HEAD}{_CORRECT}{_TAIL}",
        {"T": dtype, "L": targets},
        LABELS=int(targets in _LABELS),
        WEIGHTED=weighted,
        CLASSES=classes,
    )


def loss(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    """Compute `mlp_xp.nn.losses.mean_loss`, together with its gradient."""
    kind, n_parts = type(loss), loss.outputs_per_target
    is_softmax = kind in _OF_CLASSES
    is_known = is_softmax or kind in _TERMS
    if not is_known or not _accepts(logits, targets, weights, labels=is_softmax, n_parts=n_parts):
        return losses.mean_loss(loss, logits, targets, weights, xp=xp)
    rows, columns = logits.shape[0], logits.shape[1] // n_parts
    lanes, n_blocks = 1, blocks_for(rows * columns, _NUMBERS_AT_ONCE * THREADS)
    if is_softmax:
        lanes = 1 if columns <= 32 else 32 if columns <= 1024 else THREADS
        n_blocks = blocks_for(rows, _ROWS_AT_ONCE * (THREADS // lanes))
    kinds = logits.dtype.str, targets.dtype.str, int(weights is not None)
    compute = _loss_kernel(kind, loss.levels, *kinds, lanes)
    dlogits, settings = cupy.empty_like(logits), _settings(loss, logits, xp=xp)
    arguments = (logits, targets, weights), settings, dlogits, columns
    return _sum(compute, n_blocks, *arguments), lambda: dlogits


def _settings(loss: Loss, logits: Any, *, xp: Namespace) -> tuple[float, float, float]:
    """Return a loss's parameter, such as the label smoothing, and the loss's clipping bounds."""
    match loss:
        case SoftmaxCrossEntropy(label_smoothing):
            return label_smoothing, *log_bounds(logits.dtype, xp=xp)
        case BinaryCrossEntropy(label_smoothing):
            lowest, highest = log_bounds(logits.dtype, xp=xp)
            return label_smoothing, lowest - highest, highest - lowest
        case Gaussian():
            largest = loss.largest_log_variance(logits, xp=xp)
            return 0.0, -largest, largest
        case Poisson():
            return 0.0, 0.0, loss.largest_logit(logits, xp=xp)
        case SoftmaxFocal(setting) | BinaryFocal(setting) | Huber(setting):
            return setting, 0.0, 0.0
    return 0.0, 0.0, 0.0


def mean_accuracy(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> Array:
    """Compute `mlp_xp.nn.losses.mean_accuracy`."""
    is_classes = type(loss) in _OF_CLASSES
    is_known = is_classes or type(loss) in (BinaryCrossEntropy, BinaryFocal)
    if not is_known or not _accepts(logits, targets, weights, labels=is_classes):
        return losses.mean_accuracy(loss, logits, targets, weights, xp=xp)
    rows, columns = logits.shape
    kinds = logits.dtype.str, targets.dtype.str, int(weights is not None), int(is_classes)
    arguments = (logits, targets, weights), (0.0, 0.0, 0.0), logits, columns
    return _sum(_correct_kernel(*kinds), blocks_for(rows, _ROWS_AT_ONCE * THREADS), *arguments)


def _sum(
    compute: Any, n_blocks: int, batch: tuple[Any, ...], settings: Any, dlogits: Any, columns: int
) -> Array:
    """Launch a kernel on a batch, and return the sum over its blocks."""
    logits, targets, weights = batch
    parts = cupy.empty(min(n_blocks, _MOST_BLOCKS), logits.dtype)
    given = (*share_arguments(logits, weights), *map(logits.dtype.type, settings))
    size = np.int64(logits.shape[0]), np.int32(columns)
    compute((parts.size,), (THREADS,), (logits, targets, *given, dlogits, parts, *size))
    return total(parts)


def _accepts(logits: Any, targets: Any, weights: Any, *, labels: bool, n_parts: int = 1) -> bool:
    """Whether the kernels support the arrays: one model, contiguous, with matching dtypes."""
    if logits.ndim != 2 or logits.size == 0 or not is_plain(logits.dtype, logits):
        return False
    if weights is not None and not is_plain(logits.dtype, weights):
        return False
    if labels and targets.dtype.str in _LABELS:
        fits: bool = targets.flags.c_contiguous and targets.shape == logits.shape[:1]
        return fits
    rows, outputs = logits.shape
    return is_plain(logits.dtype, targets) and targets.shape == (rows, outputs // n_parts)
