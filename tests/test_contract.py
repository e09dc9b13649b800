"""The CuPy path without a GPU: CuPy imports without one, so its functions can be asked for.

A fit and a prediction run on NumPy through a namespace that records each function and its
arguments; array-api-compat's CuPy must have all of them and take such arguments.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Protocol

import array_api_compat.numpy
import numpy as np
import pytest
from test_training import BATCH, N, problem

from mlp_xp import estimators, fitting, lab, validation
from mlp_xp.backends._numpy import NumpyBackend
from mlp_xp.batches import place, plan_epoch
from mlp_xp.inference import predict
from mlp_xp.lab import _checks
from mlp_xp.layers import ACTIVATIONS
from mlp_xp.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from mlp_xp.network import Network, init_params
from mlp_xp.optimizers import OPTIMIZERS, SGD
from mlp_xp.scaling import standardization
from mlp_xp.schedules import Constant
from mlp_xp.step import Kernels
from mlp_xp.training import Trainer

Call = tuple[int, tuple[str, ...]]  # how many positional arguments, which keywords


class Recorder:
    """A namespace that notes what is called, and how."""

    def __init__(self, xp: ModuleType) -> None:
        self._xp = xp
        self.calls: dict[str, set[Call]] = {}
        self.names: set[str] = set()

    def __getattr__(self, name: str):
        found = getattr(self._xp, name)
        self.names.add(name)
        if not callable(found) or isinstance(found, type):
            return found

        def recorded(*args, **kwargs):
            self.calls.setdefault(name, set()).add((len(args), tuple(sorted(kwargs))))
            return found(*args, **kwargs)

        return recorded


class RecordingBackend(NumpyBackend):
    fixed_shapes = True  # Padded batches are weighted ones: the longer way through the losses.
    shares_host_memory = False

    def __init__(self) -> None:
        self.xp = Recorder(array_api_compat.numpy)
        self.kernels = Kernels()

    @property
    def _key(self):
        return "recording", str(id(self)), self.kernels


def use_everything() -> Recorder:
    backend = RecordingBackend()
    x, labels = problem("uint8")
    soft = np.eye(4)[labels]
    binary = soft[:, :1]
    cases = [
        (SoftmaxCrossEntropy(label_smoothing=0.1), labels, 4),
        (SoftmaxCrossEntropy(), soft, 4),
        (BinaryCrossEntropy(), binary, 1),
        (SquaredError(), binary, 1),
    ]
    scaling = standardization(backend, x, "float32")
    rules = [SGD(momentum=0.0), *(kind() for kind in OPTIMIZERS.values())]
    for activation in ACTIVATIONS:
        for loss, targets, outputs in cases:
            for rule in rules:
                network = Network((x.shape[1], 5, outputs), activation)
                trainer = Trainer(
                    backend,
                    network,
                    loss,
                    rule,
                    Constant(),
                    params=init_params(network, 0),
                    dtype="float32",
                    learning_rate=0.01,
                    alpha=0.1,
                    scaling=scaling,
                    with_accuracy=not isinstance(loss, SquaredError),
                )
                y = targets if targets is labels else targets.astype("float32")
                for placement in ("resident", "streamed"):
                    data = place(backend, x, y, "float32", placement)
                    plan = plan_epoch(N, BATCH, seed=0, pad=True)
                    trainer.run_epoch(data, plan, n_epochs=1)
                predict(backend, network, loss, trainer.state.params, x, scaling, dtype="float32")
    use_the_estimator(backend)
    use_the_lab(backend.xp)
    return backend.xp


def use_the_estimator(backend: RecordingBackend) -> None:
    """Fit and predict on data that count as those of a library other than NumPy."""
    x, labels = problem()
    with pytest.MonkeyPatch.context() as patch:
        for module in (estimators, fitting, validation):
            patch.setattr(module, "get_backend", lambda *_: backend)
            patch.setattr(module, "namespace_backend", lambda _: "recording", raising=False)
        for classes in (2, 4):
            model = estimators.MLPClassifier((5,), max_iter=1, n_iter_no_change=float("inf"))
            model.fit(x, labels % classes)
            model.predict(x)
            model.predict_log_proba(x)


def use_the_lab(xp: Recorder) -> None:
    x, labels = problem()
    w1, b1 = np.ones((x.shape[1], 3)), np.ones((1, 3))
    weights = w1, b1, np.ones((3, 4)), np.ones((1, 4))
    with pytest.MonkeyPatch.context() as patch:
        for module in (lab, _checks):
            patch.setattr(module, "array_namespace", lambda *_: xp)
        lab.learn_once_mse(*weights, x, np.eye(4)[labels], 0.1)
        lab.learn_once_cross_entropy(*weights, x, labels, 0.1)
        lab.train_mlp(*weights, x, labels, 0.1, 2)
        lab.test_mlp(*weights, x, labels)
        lab.run_mlp_training(x, labels, x, labels, 3, 0.1, 1)


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return use_everything()


def misfits(namespace: ModuleType, recorder: Recorder) -> list[str]:
    """Name what a namespace lacks, or would not take."""
    bad = [f"{name} is missing" for name in sorted(recorder.names) if not hasattr(namespace, name)]
    for name, calls in recorder.calls.items():
        function = getattr(namespace, name, None)
        for positional, keywords in calls if function is not None else ():
            reason = takes(function, positional, keywords)
            if reason:
                bad.append(f"{name}({positional} arguments, {keywords}): {reason}")
    return bad


def takes(function, positional: int, keywords: tuple[str, ...]) -> str:
    """Say why a function would not take such arguments; nothing if it would."""
    if hasattr(function, "nin"):  # A ufunc takes its inputs, and no keyword that we use.
        fits = positional == function.nin and not keywords
        return "" if fits else f"a ufunc of {function.nin} inputs"
    try:
        signature = inspect.signature(function)
    except ValueError:
        return "has no signature to check"
    try:
        signature.bind(*range(positional), **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return ""


def test_cupy_has_every_function_that_is_called(recorder):
    pytest.importorskip("cupy")
    import array_api_compat.cupy

    assert {"exp", "take", "isfinite", "log", "count_nonzero"} <= set(recorder.calls)
    assert misfits(array_api_compat.cupy, recorder) == []


def test_the_standard_has_every_function_that_is_called(recorder):
    import array_api_strict

    assert misfits(array_api_strict, recorder) == []


def test_the_check_finds_what_it_looks_for():
    namespace = ModuleType("namespace")
    namespace.exp = lambda x: x
    namespace.sum = lambda x, axis: x
    recorder = Recorder(namespace)
    recorder.calls = {"exp": {(2, ())}, "sum": {(1, ("keepdims",))}, "log": {(1, ())}}
    recorder.names = {"exp", "sum", "log"}
    found = misfits(namespace, recorder)
    assert found[0] == "log is missing"
    assert len(found) == 3


def test_cupy_arrays_have_what_the_maths_uses():
    cupy = pytest.importorskip("cupy")
    from mlp_xp._typing import Array

    def members(kind: type) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value)} | {
            name for name, value in vars(kind).items() if isinstance(value, property)
        }

    class Nothing(Protocol):
        pass

    used = members(Array) - members(Nothing)
    assert {"T", "dtype", "__matmul__", "__getitem__"} <= used
    assert [name for name in sorted(used) if not hasattr(cupy.ndarray, name)] == []


def test_cupy_kernels_have_the_signatures_of_the_defaults():
    pytest.importorskip("cupy")
    from mlp_xp.backends import _cupy

    for kernel, default in (
        (_cupy._gather, Kernels().gather),
        (_cupy._update_tree, Kernels().update),
    ):
        ours, theirs = (inspect.signature(f).parameters for f in (kernel, default))
        assert list(ours) == list(theirs)
        assert [p.kind for p in ours.values()] == [p.kind for p in theirs.values()]


def test_kernels_are_few():
    assert len(Kernels._fields) <= 5
