"""Losses and accuracies with their averages: one launch for a batch that one block can sum.

Larger batches are shared by many blocks, whose sums a second launch adds up.
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

__all__ = ["loss", "mean_accuracy"]

_LABELS = ("|u1", "<i4", "<i8")
# The most rows a block takes for each of its groups of threads; further rows take further blocks.
_ROWS_AT_ONCE, _MOST_BLOCKS = 4, 256
_NUMBERS_AT_ONCE = 16

# One thread has a row of few classes; of more, LANES threads share one, so that neighbors read
# neighboring numbers.
_SOFTMAX = f"""(const T* logits, const L* targets, const T* weights, T even, T smallest,
    T setting, T lowest, T highest, T* dlogits, T* parts, long long rows, int classes) {{
  __shared__ T shared[THREADS];
  const int lane = threadIdx.x % LANES, rows_of_block = THREADS / LANES;
  {SHARES}
  T value = 0;
  for (long long first = (long long)blockIdx.x * rows_of_block; first < rows;
       first += (long long)gridDim.x * rows_of_block) {{
    const long long row = first + threadIdx.x / LANES;
    const int n = row < rows ? classes : 0;
    const T* z = logits + row * classes;
    T largest = log(T(0));
    for (int k = lane; k < n; k += LANES) largest = z[k] > largest ? z[k] : largest;
    largest = largest_of<LANES>(largest, shared);
    T sum = 0;
    for (int k = lane; k < n; k += LANES) sum += exp(z[k] - largest);
    sum = sum_of<LANES, 1>(sum, shared);
    const T log_sum = log(sum), share = n > 0 ? SHARE(row) : T(0);
    T slopes = 0;
    for (int k = lane; k < n; k += LANES) {{
      T target = LABELS ? T(targets[row] == k) : T(targets[row * classes + k]);
      const T centered = z[k] - largest, p = exp(centered) / sum;
      T log_p = centered - log_sum;
#if FOCAL
      const T q = -expm1(log_p), factor = pow(q, setting) * target * share;
      const T slope = factor * (setting * p * (log_p / (q > T(0) ? q : T(1))) - T(1));
      value -= factor * log_p;
      slopes += slope;
      dlogits[row * classes + k] = slope;
#else
      target = target * (T(1) - setting) + setting / classes;
      log_p = log_p < lowest ? lowest : log_p;
      log_p = log_p > highest ? highest : log_p;
      value -= log_p * target * share;
      dlogits[row * classes + k] = (p - target) * share;
#endif
    }}
#if FOCAL
    slopes = sum_of<LANES, 1>(slopes, shared);
    for (int k = lane; k < n; k += LANES)
      dlogits[row * classes + k] -= exp(z[k] - largest) / sum * slopes;
#endif
  }}
  value = sum_of<THREADS, 1>(value, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = value;
}}"""

# The loss of an output z with its target t, and the slope by z, with one setting.
_TERMS: dict[type[Loss], str] = {
    SquaredError: "slope = z - t; term = T(0.5) * slope * slope;",
    AbsoluteError: """
      T error = z - t;
      slope = error > T(0) ? T(1) : error < T(0) ? T(-1) : error;
      term = slope * error;""",
    Huber: """
      T error = z - t;
      slope = error < -setting ? -setting : error > setting ? setting : error;
      term = slope * (error - T(0.5) * slope);""",
    Quantile: """
      T error = z - t, sign = error > T(0) ? T(1) : error < T(0) ? T(-1) : error;
      slope = T(0.5) * sign + (T(0.5) - setting);
      term = T(0.5) * sign * error + (T(0.5) - setting) * error;""",
    BinaryCrossEntropy: """
      T target = t * (T(1) - setting) + setting / T(2);
      T clipped = z < -bound ? -bound : z > bound ? bound : z;
      term = log1p(exp(clipped < T(0) ? clipped : -clipped))
          + (clipped < T(0) ? T(0) : clipped) - clipped * target;
      slope = sigmoid(z) - target;""",
    BinaryFocal: """
      const T p = sigmoid(z), q = sigmoid(-z), tail = log1p(exp(z < T(0) ? z : -z));
      const T log_p = (z < T(0) ? z : T(0)) - tail, log_q = (z > T(0) ? -z : T(0)) - tail;
      const T yes = pow(q, setting) * t, no = pow(p, setting) * (T(1) - t);
      slope = yes * (setting * p * log_p - q) - no * (setting * q * log_q - p);
      term = -(yes * log_p + no * log_q);""",
    Poisson: """
      slope = exp(z > bound ? bound : z) - t;
      term = (log(t > T(0) ? t : T(1)) - z) * t + slope;""",
}

_ELEMENTWISE = """(const T* logits, const T* targets, const T* weights, T even, T smallest,
    T setting, T bound, T* dlogits, T* parts, long long rows, int outputs) {{
  __shared__ T shared[THREADS];
  {shares}
  T value = 0;
  const long long n = rows * outputs;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n;
       i += (long long)gridDim.x * THREADS) {{
    const T z = logits[i], t = targets[i], share = SHARE(i / outputs);
    T term, slope;
    {terms}
    value += term * share;
    dlogits[i] = slope * share;
  }}
  value = sum_of<THREADS, 1>(value, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = value;
}}"""

# The loss of a target with several outputs, which lie `columns` apart, and the slopes by them.
_PARTS: dict[type[Loss], str] = {
    Gaussian: """
      const T bounded = z[columns] < -bound ? -bound : z[columns] > bound ? bound : z[columns];
      const T error = z[0] - t, slope = error * exp(-bounded), scaled = error * slope;
      value += T(0.5) * (bounded + scaled + T(1.8378770664093453)) * share;
      dz[0] = slope * share;
      dz[columns] = (T(0.5) - T(0.5) * scaled) * share;""",
    Quantile: """
      const T levels[] = {levels};
      T quantile = z[0], slopes[PARTS], slope = 0;
      for (int k = 0; k < PARTS; k++) {{
        const T step = z[k * columns];
        if (k > 0) quantile += log1p(exp(step < T(0) ? step : -step)) + (step > T(0) ? step : T(0));
        const T error = quantile - t, sign = error > T(0) ? T(1) : error < T(0) ? T(-1) : error;
        slopes[k] = T(0.5) * sign + (T(0.5) - levels[k]);
        value += (T(0.5) * sign * error + (T(0.5) - levels[k]) * error) * share;
      }}
      for (int k = PARTS - 1; k >= 0; k--) {{
        slope += slopes[k];
        dz[k * columns] = slope * share * (k > 0 ? sigmoid(z[k * columns]) : T(1));
      }}""",
}

_SEVERAL = """(const T* logits, const T* targets, const T* weights, T even, T smallest,
    T bound, T* dlogits, T* parts, long long rows, int columns) {{
  __shared__ T shared[THREADS];
  {shares}
  T value = 0;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < rows * columns;
       i += (long long)gridDim.x * THREADS) {{
    const long long row = i / columns, first = row * columns * PARTS + i % columns;
    const T t = targets[i], share = SHARE(row);
    const T* z = logits + first;
    T* dz = dlogits + first;
    {terms}
  }}
  value = sum_of<THREADS, 1>(value, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = value;
}}"""

# The first of the largest classes wins, and NaN before it, as in `argmax`.
_CORRECT = f"""(const T* logits, const L* targets, const T* weights, T even, T smallest,
    T* parts, long long rows, int outputs) {{
  __shared__ T shared[THREADS];
  {SHARES}
  T value = 0;
  for (long long row = (long long)blockIdx.x * THREADS + threadIdx.x; row < rows;
       row += (long long)gridDim.x * THREADS) {{
    const T* z = logits + row * outputs;
    bool correct = true;
    if (CLASSES) {{
      int predicted = 0, wanted = 0;
      for (int k = 1; k < outputs; k++)
        if (z[k] > z[predicted] || (z[k] != z[k] && z[predicted] == z[predicted])) predicted = k;
      if (LABELS) {{
        correct = targets[row] == predicted;
      }} else {{
        const L* t = targets + row * outputs;
        for (int k = 1; k < outputs; k++) if (t[k] > t[wanted]) wanted = k;
        correct = wanted == predicted;
      }}
    }} else {{
      const L* t = targets + row * outputs;
      for (int k = 0; k < outputs; k++) correct = correct && (z[k] > T(0)) == (t[k] > L(0.5));
    }}
    value += correct ? SHARE(row) : T(0);
  }}
  value = sum_of<THREADS, 1>(value, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = value;
}}"""

_SOFTMAX_VARIANTS = (
    *((FLOATS[0], kind, 1, 1, 0) for kind in _LABELS),
    *((dtype, dtype, 0, lanes, 0) for dtype in FLOATS for lanes in (1, 32, THREADS)),
    *((dtype, dtype, 0, 1, 1) for dtype in FLOATS),
)
_CORRECT_VARIANTS = (
    *((FLOATS[0], kind, 1, 1) for kind in _LABELS),
    *((dtype, dtype, classes, 0) for dtype in FLOATS for classes in (0, 1)),
)


@kernel(*_SOFTMAX_VARIANTS)
def _softmax_kernel(dtype: str, targets: str, weighted: int, lanes: int, focal: int) -> Any:
    return raw_kernel(
        "mlp_xp_focal" if focal else "mlp_xp_softmax",
        _SOFTMAX,
        {"T": dtype, "L": targets},
        LABELS=int(targets in _LABELS),
        WEIGHTED=weighted,
        LANES=lanes,
        FOCAL=focal,
    )


@kernel(*((kind, dtype, 1) for kind in _TERMS for dtype in FLOATS))
def _elementwise_kernel(kind: type[Loss], dtype: str, weighted: int) -> Any:
    body = _ELEMENTWISE.format(shares=SHARES, terms=_TERMS[kind])
    return raw_kernel(f"mlp_xp_{kind.__name__.lower()}", body, {"T": dtype}, WEIGHTED=weighted)


@kernel(*((kind, dtype, 1) for kind in (Gaussian(), Quantile((0.2, 0.7))) for dtype in FLOATS))
def _several_kernel(loss: Loss, dtype: str, weighted: int) -> Any:
    terms = _PARTS[type(loss)]
    if isinstance(loss, Quantile):
        levels = ", ".join(f"T({level!r})" for level in map(float, loss.levels))
        terms = terms.format(levels=f"{{{levels}}}")
    return raw_kernel(
        f"mlp_xp_{type(loss).__name__.lower()}s",
        _SEVERAL.format(shares=SHARES, terms=terms),
        {"T": dtype},
        WEIGHTED=weighted,
        PARTS=loss.outputs_per_target,
    )


@kernel(*_CORRECT_VARIANTS)
def _correct_kernel(dtype: str, targets: str, classes: int, weighted: int) -> Any:
    types = {"T": dtype, "L": targets}
    is_label = int(targets in _LABELS)
    return raw_kernel(
        "mlp_xp_correct", _CORRECT, types, LABELS=is_label, WEIGHTED=weighted, CLASSES=classes
    )


def loss(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    """Compute `mlp_xp.nn.losses.mean_loss`, the gradient with the value."""
    is_softmax = type(loss) in (SoftmaxCrossEntropy, SoftmaxFocal)
    n_parts = loss.outputs_per_target
    is_known = is_softmax or type(loss) in (_TERMS if n_parts == 1 else _PARTS)
    if not is_known or not _accepts(logits, targets, weights, labels=is_softmax, n_parts=n_parts):
        return losses.mean_loss(loss, logits, targets, weights, xp=xp)
    rows, outputs = logits.shape[0], logits.shape[1] // n_parts
    number, dtype = logits.dtype.type, logits.dtype.str
    dlogits = cupy.empty_like(logits)
    weighted = int(weights is not None)
    if is_softmax:
        lanes = 1 if outputs <= 32 else 32 if outputs <= 1024 else THREADS
        n_blocks = min(blocks_for(rows, _ROWS_AT_ONCE * (THREADS // lanes)), _MOST_BLOCKS)
        is_focal = int(type(loss) is SoftmaxFocal)
        compute = _softmax_kernel(dtype, targets.dtype.str, weighted, lanes, is_focal)
    else:
        n_blocks = min(blocks_for(rows * outputs, _NUMBERS_AT_ONCE * THREADS), _MOST_BLOCKS)
        if n_parts > 1:
            compute = _several_kernel(loss, dtype, weighted)
        else:
            compute = _elementwise_kernel(type(loss), dtype, weighted)
    parts = cupy.empty(n_blocks, logits.dtype)
    settings = map(number, _settings(loss, logits, xp=xp))
    shares = share_arguments(logits, weights)
    size = np.int64(rows), np.int32(outputs)
    arguments = (logits, targets, *shares, *settings, dlogits, parts, *size)
    compute((n_blocks,), (THREADS,), arguments)
    return total(parts), lambda: dlogits


def _settings(loss: Loss, logits: Any, *, xp: Namespace) -> tuple[float, ...]:
    """Return the settings of a kernel: of an elementwise loss one, and a bound of the logits.

    A target with several outputs has the bound alone.
    """
    match loss:
        case SoftmaxCrossEntropy(label_smoothing):
            return label_smoothing, *log_bounds(logits.dtype, xp=xp)
        case BinaryCrossEntropy(label_smoothing):
            lowest, highest = log_bounds(logits.dtype, xp=xp)
            return label_smoothing, highest - lowest
        case Gaussian():
            return (loss.largest_log_variance(logits, xp=xp),)
        case Quantile():
            return (0.0,) if loss.outputs_per_target > 1 else (loss.levels[0], 0.0)
        case Poisson():
            return 0.0, loss.largest_logit(logits, xp=xp)
        case SoftmaxFocal(gamma):
            return gamma, 0.0, 0.0
        case Huber(setting) | BinaryFocal(setting):
            return setting, 0.0
    return 0.0, 0.0


def mean_accuracy(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> Array:
    """Compute `mlp_xp.nn.losses.mean_accuracy`."""
    is_classes = type(loss) in (SoftmaxCrossEntropy, SoftmaxFocal)
    is_known = is_classes or type(loss) in (BinaryCrossEntropy, BinaryFocal)
    if not is_known or not _accepts(logits, targets, weights, labels=is_classes):
        return losses.mean_accuracy(loss, logits, targets, weights, xp=xp)
    rows, outputs = logits.shape
    n_blocks = min(blocks_for(rows, _ROWS_AT_ONCE * THREADS), _MOST_BLOCKS)
    parts = cupy.empty(n_blocks, logits.dtype)
    kinds = logits.dtype.str, targets.dtype.str, int(is_classes), int(weights is not None)
    size = np.int64(rows), np.int32(outputs)
    arguments = (logits, targets, *share_arguments(logits, weights), parts, *size)
    _correct_kernel(*kinds)((n_blocks,), (THREADS,), arguments)
    return total(parts)


def _accepts(logits: Any, targets: Any, weights: Any, *, labels: bool, n_parts: int = 1) -> bool:
    """Whether the kernels take such arrays: one model, contiguous, of dtypes that go together."""
    if logits.ndim != 2 or logits.size == 0 or not is_plain(logits.dtype, logits):
        return False
    if weights is not None and not is_plain(logits.dtype, weights):
        return False
    if labels and targets.dtype.str in _LABELS:
        fits: bool = targets.flags.c_contiguous and targets.shape == logits.shape[:1]
        return fits
    rows, outputs = logits.shape
    return is_plain(logits.dtype, targets) and targets.shape == (rows, outputs // n_parts)
