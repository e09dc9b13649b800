"""Fitting many models at once, with shared data."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import sklearn
from scipy import sparse
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import _num_samples

from mlp_xp._utils.display.progress import TaskBar
from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp._utils.threads import Worker, reporting, usable_threads
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.checks.processes import text_of
from mlp_xp.estimators.checks.validation import asks_for_table, check_x
from mlp_xp.estimators.fitting.fit import fit_requests
from mlp_xp.estimators.settings.config import (
    LBFGS,
    known_network,
    resolve_batch_size,
    resolve_layers,
    training_backend,
)
from mlp_xp.nn.hidden import Layer
from mlp_xp.training.data.rows import Rows
from mlp_xp.training.data.shared import SharedData
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.requests import Fit
from mlp_xp.training.loop.run_fit import run_fit
from mlp_xp.training.stack.run_fits import run_fits
from mlp_xp.training.stack.stacked_trainer import StackedTrainer, StackError
from mlp_xp.training.stack.workers import work_in_threads
from mlp_xp.training.step.step_settings import own_parts

# The attributes that the check of X sets, and the settings that the check depends on.
_NAMES = ("feature_names_in_", "columns_", "n_features_in_")
_TABLE_SETTINGS = ["categorical_features", "missing_values", "input_scaling", "precision"]
_TABLE_SETTINGS += ["max_one_hot", "monotonic_cst"]
# Parameters that a stack supports only if they are None.
_UNSTACKED = ("max_time", "augmentation", "distributed")
# The maximum number of models in a stack.
_MOST_MODELS = 512
# If the forward passes of a fit need fewer operations, per epoch and in total, do not use threads,
# which would slow the fit down.
_TINY_EPOCH, _TINY_FIT = 1_000_000, 100_000_000
# The fraction of free memory for the models' states, gradients and activations.
_SHARE_OF_MEMORY = 0.5

_log = logging.getLogger(__name__)

OnEpoch = Callable[[int, Record], None] | None


class FitTask(NamedTuple):
    """A model to fit, and its samples.

    ``model`` is an estimator of this package that is not used elsewhere, such as a clone. ``X``,
    ``y`` and ``sample_weight`` are passed to its `fit`. ``rows`` are the integer positions of the
    samples to use; None means all samples. ``X`` may be `Rows` of `SharedData`, which are already
    checked; ``y`` and ``sample_weight`` then have only these rows. Tasks with the identical object
    X share one copy of X on the device. ``fit_params`` are the held-out samples, as keyword
    arguments of `fit`.
    """

    model: Any
    X: Any
    y: Any
    sample_weight: Any = None
    rows: np.ndarray | None = None
    fit_params: Mapping[str, Any] = {}


class FitResult(NamedTuple):
    """The result of a fit: the task's position, the error or None, and the duration in seconds.

    If the error is None, the task's model is fitted. Models that train together have the same
    duration.
    """

    number: int
    error: Exception | None
    seconds: float


def fit_many(
    tasks: Sequence[FitTask],
    *,
    n_jobs: int | None = None,
    on_epoch: OnEpoch = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Generator[FitResult]:
    """Fit many models at once, with the same results as `fit`; yield each result when ready.

    On NumPy, each of several threads fits one model at a time. On other backends, models with the
    same training step are stacked and trained by one compiled step; a stack uses at most half of
    the device's free memory or, on the host, of scikit-learn's ``working_memory``. Other models are
    fitted one by one, and the log says why, at level INFO. An error in one fit, e.g. because it
    diverges, does not affect the others. Ctrl-C or closing the generator ends the iteration and
    leaves the remaining models unfitted, and so does ``is_over()`` once it returns True, which is
    called after each step from any thread. ``on_epoch(number, record)`` is called after each epoch
    of each task, from any thread.
    """
    data = _Data(tasks)
    groups: dict[tuple[Backend, bool], list[int]] = {}
    for number, task in enumerate(tasks):
        try:
            backend = training_backend(task.model._params(), task.X)
        except Exception:  # The fit will raise this error again, and report it for this task only.
            backend = get_backend("numpy")
        is_stack = not backend.has_workers
        if is_stack and (reason := _why_alone(task, data)) is not None:
            is_stack = False
            _log.info("Fit %d is not part of a stack: %s.", number, reason)
        groups.setdefault((backend, is_stack), []).append(number)
    for backend in {backend for backend, _ in groups if backend.has_workers}:
        _log.info("Backend %r trains fits in threads instead of stacks.", backend.name)
    n_threads = usable_threads()
    with interrupts() as is_pressed:  # Ctrl-C ends the fits of all groups.

        def is_stopped() -> bool:
            return is_pressed() or is_over()

        for (backend, is_stack), numbers in groups.items():
            fit = partial(_fit, tasks, data=data, on_epoch=on_epoch, is_stack=is_stack)
            models, n_models = (tasks[i].model for i in numbers), len(numbers)
            if is_stack:
                most = min(_most_models(backend, [tasks[i] for i in numbers], data), n_models)
                n_stacks = min(n_jobs or n_threads, n_threads) if backend.has_stack_threads else 1
                worker = Worker(max(1, n_threads // most), n_models, is_stopped)
                fits = map(fit, numbers)
                with _own_generators(models):
                    yield from run_fits(fits, most=most, worker=worker, n_stacks=n_stacks)
                continue
            # Ranks must communicate in the same order, so they fit one model at a time.
            is_distributed = any(tasks[i].model.distributed is not None for i in numbers)
            n_workers = 1
            if backend.has_workers and all(_is_tiny(tasks[i], data) for i in numbers):
                # Loading the machine code would take longer than it saves in tiny fits.
                n_models = 1
            elif backend.has_workers and not is_distributed:
                n_workers = min(n_jobs or n_threads, n_models)
            with _own_generators(models if n_workers > 1 else []):
                yield from work_in_threads(
                    lambda number, fit=fit: run_fit(fit(number)),  # type: ignore[misc]
                    numbers,
                    n_tasks=n_models,
                    n_workers=n_workers,
                    n_threads=max(1, n_threads // n_workers),
                    backend=backend,
                    is_over=is_over,
                )


@contextlib.contextmanager
def _own_generators(models: Iterable[Any]) -> Iterator[None]:
    """Replace ``random_state=None`` by a generator that NumPy's global generator seeds.

    Models that are fitted at the same time would draw from the global generator in any order, so
    `numpy.random.seed` would not determine their results.
    """
    # Models are freed once they are scored.
    seeded = [_seeded(model) for model in models if model.random_state is None]
    try:
        yield
    finally:
        for reference in seeded:
            if (model := reference()) is not None:
                model.random_state = None


def _seeded(model: Any) -> weakref.ref[Any]:
    model.random_state = np.random.RandomState(check_random_state(None).randint(2**31 - 1))
    return weakref.ref(model)


def n_threads_of(n_jobs: int | None) -> int | None:
    """Return a number of threads, counted as in scikit-learn if negative; None stays None."""
    is_count = n_jobs is None or n_jobs > 0
    return n_jobs if is_count else max(1, usable_threads() + 1 + n_jobs)  # type: ignore[operator]


def fit_all(
    tasks: Sequence[FitTask], *, n_jobs: int | None, verbose: bool | int
) -> tuple[list[int], dict[int, Exception]]:
    """Fit many models; return the positions of the fitted models, and the errors of failed fits.

    As in scikit-learn, ``n_jobs=-1`` uses all processors. ``verbose`` shows a progress bar.
    """
    finished, errors = [], {}
    n_jobs = n_threads_of(n_jobs)
    bar = TaskBar("networks", len(tasks)) if verbose else None
    try:
        for result in fit_many(tasks, n_jobs=n_jobs):
            if result.error is None:
                finished.append(result.number)
            else:
                errors[result.number] = result.error
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.stop()
    return finished, errors


def shared_samples(model: Any, X: Any) -> SharedData:
    """Return checked samples for many fits, and set what the check learns on the model, too."""
    x = check_x(model, X, reset=True)
    found = vars(model)
    return SharedData(x, {name: found[name] for name in _NAMES if name in found})


class _Data:
    """A cache of the tasks' checked data, by object identity.

    Tasks with the same table and rows share the column encoding that is learned from these rows.
    """

    def __init__(self, tasks: Sequence[FitTask]) -> None:
        self._shared: dict[Any, SharedData | None] = {}
        self._n_outputs: dict[int, int] = {}
        self._lock = fork_safe_lock()
        self._n_left = Counter(map(_key, tasks))

    def shared(self, task: FitTask) -> SharedData | None:
        """Return the checked data that fits can share; None if X is sparse or invalid."""
        if isinstance(task.X, Rows):  # The caller has checked and shares X.
            return cast(SharedData, task.X.shared)
        key = _key(task)
        with self._lock:
            if key not in self._shared:
                self._shared[key] = self._check(task)
            return self._shared[key]

    def _check(self, task: FitTask) -> SharedData | None:
        X = task.X
        # With sharded data, all ranks learn the columns of a table together, in each fit.
        is_sharded = getattr(task.model.distributed, "data", None) == "sharded"
        if sparse.issparse(X) or is_sharded:
            return None
        if task.rows is not None and asks_for_table(task.model):
            X = _safe_indexing(X, task.rows)
        try:
            return shared_samples(copy.copy(task.model), X)
        except (ValueError, TypeError):  # Ignore the error, since each fit will raise it.
            return None

    def end(self, task: FitTask) -> None:
        """Release a task's data unless a later task needs the same data."""
        key = _key(task)
        with self._lock:
            self._n_left[key] -= 1
            if not self._n_left[key]:
                self._shared.pop(key, None)

    def n_outputs(self, y: Any) -> int:
        """Return the approximate number of network outputs for targets y."""
        if id(y) not in self._n_outputs:
            host = to_numpy(y)
            is_label = host.ndim == 1 and host.dtype.kind != "f"
            n_outputs = len(np.unique(host)) if is_label else math.prod(host.shape[1:])
            self._n_outputs[id(y)] = n_outputs
        return self._n_outputs[id(y)]

    def fit(self, task: FitTask, is_stack: bool) -> Fit[None]:
        """Fit a task's model; in a stack, yield requests for its epochs."""
        X, y, weights = task.X, task.y, task.sample_weight
        # An overridden `fit` receives the original X.
        shared = self.shared(task) if type(task.model).fit is BaseMLP.fit else None
        rows = task.rows
        if rows is not None:
            y = y[rows] if type(y) is np.ndarray else _safe_indexing(y, rows)
            weights = None if weights is None else _safe_indexing(weights, rows)
        if isinstance(X, Rows):
            pass
        elif shared is not None:
            if rows is None or asks_for_table(task.model):
                rows = np.arange(shared.x.shape[0])
            X = Rows(shared.x, rows, shared)
        elif rows is not None:
            X = _safe_indexing(X, rows)
        if is_stack:
            if not sklearn.get_config()["skip_parameter_validation"]:
                task.model._validate_params()
            given, params = (X, y, weights), task.fit_params
            held_out = params.get("X_val"), params.get("y_val"), params.get("sample_weight_val")
            start = time.perf_counter()
            yield from fit_requests(task.model, start, given, held_out, trainer_type=StackedTrainer)
        else:
            task.model.fit(X, y, weights, **task.fit_params)


def _key(task: FitTask) -> Any:
    """Return the key under which a task's encoded matrix is cached."""
    if not asks_for_table(task.model):
        return id(task.X)
    params = task.model._params()
    settings = tuple(text_of(params[name]) for name in _TABLE_SETTINGS)
    return id(task.X), None if task.rows is None else task.rows.tobytes(), settings


def _why_alone(task: FitTask, data: _Data) -> str | None:
    """Return why a stack cannot train a task's model, or None."""
    model, params = task.model, task.model._params()
    layers = own_parts(params["hidden_layer_sizes"])
    reasons = {
        "X is sparse, sharded or invalid": data.shared(task) is None,
        "its class overrides fit": type(model).fit is not BaseMLP.fit,
        "it has callbacks": params["callbacks"] or getattr(model, "_skl_callbacks", None),
        "warm_start is True": params["warm_start"],
        "solver is 'lbfgs'": params["solver"] == LBFGS,
        "placement is 'streamed'": params["placement"] == "streamed",
        "precision is 'float16'": params["precision"] == "float16",
        # A stack adds an axis to all weights, which the user's layers may not support.
        "it has layers of your own": any(isinstance(own, Layer) for own in layers),
        **{f"{name} is set": params[name] is not None for name in _UNSTACKED},
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _most_models(backend: Backend, tasks: Sequence[FitTask], data: _Data) -> int:
    free = backend.free_memory() or sklearn.get_config()["working_memory"] * 2**20
    largest = 1
    for task in tasks:
        weights, neurons, batch, _ = _size(task, data)
        # For each weight, a step needs three state arrays before and after the step, a gradient and
        # a temporary array. For each neuron, it needs activations, their gradients and a mask.
        largest = max(largest, 8 * weights + 4 * batch * neurons)
    return max(1, min(int(_SHARE_OF_MEMORY * free) // (8 * largest), _MOST_MODELS))


def _is_tiny(task: FitTask, data: _Data) -> bool:
    """Whether the fit is too small to benefit from threads."""
    n_samples = _num_samples(task.X) if task.rows is None else len(task.rows)
    weights, _, _, max_iter = _size(task, data)
    work = n_samples * weights
    return work < _TINY_EPOCH and work * max_iter < _TINY_FIT


def _size(task: FitTask, data: _Data) -> tuple[int, int, int, int]:
    """Return the number of weights, neurons, samples per batch and epochs; 0 if unknown."""
    params = task.model._params()
    try:
        layers = resolve_layers(params["hidden_layer_sizes"])
        network = known_network((task.X.shape[1], *layers, data.n_outputs(task.y)))
        batch = resolve_batch_size(params["batch_size"])
        max_iter = int(params["max_iter"])
    except (ValueError, TypeError, AttributeError):  # Ignore the error: the fit will raise it.
        return 0, 0, 0, 0
    weights = sum(block.n_parameters for blocks in network.blocks for block in blocks)
    return weights, sum(network.sizes), batch, max_iter


def _fit(
    tasks: Sequence[FitTask], number: int, *, data: _Data, on_epoch: OnEpoch, is_stack: bool
) -> Fit[FitResult]:
    """Fit a model; if it diverges in a stack, fit it again alone."""
    start = time.perf_counter()
    report = None if on_epoch is None else partial(on_epoch, number)
    task = tasks[number]
    model = task.model
    error: Exception | None = None
    untouched = copy.deepcopy(model.random_state)
    try:
        with reporting(report):
            yield from data.fit(task, is_stack)
        if is_stack:
            # Replace the trainer with the optimizer state for a later fit, as pickling does.
            model._state = replace(model._state, progress=model._training.progress())
            model._training = None
    except Exception as raised:
        error = raised
    # Fit again outside the handler, so that a second error does not show the first as its context.
    if is_stack and isinstance(error, StackError | NonFiniteError):
        _log.info("Fit %d is repeated outside of its stack: %s", number, error)
        model.random_state = untouched
        try:
            error = run_fit(data.fit(task, is_stack=False))
        except Exception as raised:
            error = raised
    data.end(task)
    return FitResult(number, error, time.perf_counter() - start)
