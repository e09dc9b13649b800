"""The CuPy path without a GPU: CuPy imports without one, so its functions can be asked for.

A fit and a prediction run on NumPy through a namespace that records each function and its
arguments; array-api-compat's CuPy must have all of them and take such arguments.
"""

import ast
import inspect
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Protocol, get_args

import array_api_compat.numpy
import numpy as np
import pytest
from gradient import cross_entropy_of, fourth_power
from rules import RULES
from trainers import BATCH, N, byte_data, make_trainer

import mlp_xp
from mlp_xp import estimators, lab
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.backends._numpy.backend import NumpyBackend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.estimators import base, classifier, config, prediction, state, validation
from mlp_xp.estimators import regressor as regressor_module
from mlp_xp.lab import _checks, _runs, _steps
from mlp_xp.nn import losses
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.network import Network, Normalization
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.training import lbfgs
from mlp_xp.training.batches import place
from mlp_xp.training.epochs import plan_epoch
from mlp_xp.training.inference import predict


class Recorder:
    """A namespace that notes what is called, and how."""

    def __init__(self, xp):
        self._xp, self.names = xp, set()
        self.calls = {}  # By name: how many positional arguments, which keywords.

    def __getattr__(self, name):
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

    def __init__(self):
        self.xp = Recorder(array_api_compat.numpy)
        self.kernels = Kernels()

    @property
    def _key(self):
        return "recording", str(id(self)), self.kernels


def has_accuracy(loss):
    classifiers = losses.BinaryCrossEntropy | losses.BinaryFocal | losses.SoftmaxCrossEntropy
    is_class = isinstance(loss, losses.Custom) and loss.output in ("softmax", "logistic")
    return is_class or isinstance(loss, classifiers | losses.SoftmaxFocal)


def cases(labels):
    """Return each loss with targets for it, and how many outputs they take."""
    soft = np.eye(4)[labels]
    kinds = losses.REGRESSION_LOSSES.values()
    errors = [kind() for kind in kinds if issubclass(kind, losses.ErrorLoss)]
    smoothed = losses.SoftmaxCrossEntropy(label_smoothing=0.1)
    classes = [losses.SoftmaxCrossEntropy(), smoothed, losses.SoftmaxFocal()]
    ones = [losses.BinaryCrossEntropy(), losses.BinaryCrossEntropy(label_smoothing=0.1)]
    ones += [losses.BinaryFocal(), losses.Poisson(), *errors]
    ones += [losses.Gaussian(), losses.Quantile((0.2, 0.7))]
    ones += [losses.Through(loss, output) for loss in errors for output in losses.OUTPUTS]
    ones += [losses.Custom(fourth_power, output) for output in losses.OUTPUTS]
    # A function of probabilities takes targets given whole.
    whole = [*classes, losses.Custom(cross_entropy_of, "softmax")]
    hard = [(loss, labels, 4) for loss in classes] + [(loss, soft, 4) for loss in whole]
    return hard + [(loss, soft[:, :1], loss.outputs_per_target) for loss in ones]


def use(backend, network, case=None, **rules):
    """Train on resident and on streamed data, and predict."""
    x, labels = byte_data("uint8")
    loss, y, outputs = case or (losses.SoftmaxCrossEntropy(), labels, 4)
    network = replace(network, widths=(x.shape[1], *network.widths, outputs))
    rules |= {"loss": loss, "with_accuracy": has_accuracy(loss)}
    trainer = make_trainer(backend, dtype="float32", x=x, network=network, **rules)
    train(trainer, x, y if y.ndim == 1 else y.astype("float32"))
    options = {"batch_stats": trainer.state.batch_stats, "dtype": "float32"}
    for depth in (None, 1):
        given = network, loss, trainer.learned, x, trainer.scaling
        predict(backend, *given, depth=depth, **options)


def train(trainer, x, y):
    for placement in ("resident", "streamed"):
        data = place(trainer.backend, x, y, "float32", placement)
        trainer.run_epoch(data, plan_epoch(N, BATCH, seed=0, pad=True), n_epochs=1)


def use_everything():
    backend = RecordingBackend()
    _, labels = byte_data("uint8")
    plain = Network((5, 5))
    for activation in ACTIVATIONS:
        use(backend, replace(plain, activation=activation))
    for case in cases(labels):
        use(backend, plain, case)
    for rule in [*RULES.values(), *(kind() for kind in OPTIMIZERS.values())]:
        use(backend, plain, optimizer=rule)
        use(backend, plain, optimizer=rule, alpha=0.0, max_grad_norm=0.1, ema_decay=0.9)
    for normalization in (None, *get_args(Normalization)):
        for residual in (False, True):
            for dropout in (0.0, 0.5):
                network = Network((5, 5), "relu", normalization, dropout, dropout, residual)
                use(backend, network)
    use_augmentation(backend)
    use_lbfgs(backend)
    use_the_estimators(backend)
    use_the_lab(backend.xp)
    return backend.xp


def use_augmentation(backend):
    shape = (1, 3, 4)
    x, labels = np.ones((N, 12), dtype=np.uint8), byte_data("uint8")[1]
    geometric = Flip(shape), Shift(shape, 1, "zero")
    chosen = (*geometric, Cutout(shape, 1), ColorJitter(shape), Mixup())
    network = Network((12, 5, 4))
    trainer = make_trainer(backend, dtype="float32", x=x, network=network, augmentation=chosen)
    train(trainer, x, labels)
    loss, params = losses.SoftmaxCrossEntropy(), trainer.learned
    predict(backend, network, loss, params, x, trainer.scaling, tta=geometric, dtype="float32")


def use_lbfgs(backend):
    x, labels = byte_data("uint8")
    network = Network((x.shape[1], 5, 4), normalization="layer", residual=True)
    trainer = make_trainer(backend, dtype="float32", x=x, network=network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "BLOCK", BATCH)
        data, options = place(backend, x, labels, "float32"), {"max_iter": 2, "max_fun": 10}
        options |= {"tol": 0.0, "verbose": 0, "after_iteration": lambda params, loss: True}
        lbfgs.minimize(trainer, data, np.ones(N), **options)


def use_the_estimators(backend):
    """Fit and predict on data that count as those of a library other than NumPy."""
    x, labels = byte_data()
    everything = {"normalization": "batch", "dropout": 0.5, "input_dropout": 0.1, "solver": "muon"}
    everything |= {"max_grad_norm": 1.0, "ema_decay": 0.9, "input_scaling": "standardize"}
    everything |= {"early_stopping": True}
    with pytest.MonkeyPatch.context() as patch:
        for module in (base, classifier, config, prediction, regressor_module, state, validation):
            patch.setattr(module, "get_backend", lambda *_: backend, raising=False)
            patch.setattr(module, "namespace_backend", lambda _: "recording", raising=False)
        for extra in ({}, everything, {"solver": "lbfgs", "tol": 1e6}, {"activation": cube}):
            shared = {"max_iter": 1, "n_iter_no_change": float("inf")} | extra
            for classes in (2, 4):
                model = estimators.MLPClassifier((5,), **shared)
                model.fit(x, labels % classes)
                model.predict(x)
                model.predict_log_proba(x)
            for loss in ("squared_error", fourth_power):
                regressor = estimators.MLPRegressor(loss, (5,), **shared)
                regressor.fit(x, x[:, :2])
                regressor.predict(x)


def cube(x, *, xp):
    """Return an activation that a user might write."""
    return x**3, lambda dy: 3.0 * x**2 * dy


def use_the_lab(xp):
    x, labels = byte_data()
    w1, b1 = np.ones((x.shape[1], 3)), np.ones((1, 3))
    weights = w1, b1, np.ones((3, 4)), np.ones((1, 4))
    with pytest.MonkeyPatch.context() as patch:
        for module in (_runs, _checks, _steps):
            patch.setattr(module, "array_namespace", lambda *_: xp)
        lab.learn_once_mse(*weights, x, np.eye(4)[labels], 0.1)
        lab.learn_once_cross_entropy(*weights, x, labels, 0.1)
        lab.train_mlp(*weights, x, labels, 0.1, 2)
        lab.test_mlp(*weights, x, labels)
        lab.run_mlp_training(x, labels, x, labels, 3, 0.1, 1)


@pytest.fixture(scope="module")
def recorder():
    return use_everything()


def misfits(namespace, recorder):
    """Name what a namespace lacks, or would not take."""
    bad = [f"{name} is missing" for name in sorted(recorder.names) if not hasattr(namespace, name)]
    for name, calls in recorder.calls.items():
        function = getattr(namespace, name, None)
        for positional, keywords in calls if function is not None else ():
            reason = takes(function, positional, keywords)
            if reason:
                bad.append(f"{name}({positional} arguments, {keywords}): {reason}")
    return bad


def takes(function, positional, keywords):
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


@pytest.mark.matrix
def test_cupy_has_every_function_that_is_called(recorder):
    pytest.importorskip("cupy")
    import array_api_compat.cupy

    used = {"exp", "take", "isfinite", "log", "count_nonzero"}
    used |= {"arange", "expm1", "sign", "pow", "sqrt", "vecdot", "full_like", "unstack"}
    assert used <= set(recorder.calls)
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


@pytest.mark.matrix
def test_cupy_arrays_have_what_the_maths_uses():
    cupy = pytest.importorskip("cupy")
    from mlp_xp._utils.array_types import Array

    class Nothing(Protocol):
        pass

    used = {name for name, v in vars(Array).items() if callable(v) or isinstance(v, property)}
    used -= set(vars(Nothing))
    assert {"T", "dtype", "__matmul__", "__getitem__"} <= used
    assert [name for name in sorted(used) if not hasattr(cupy.ndarray, name)] == []


@pytest.mark.matrix
def test_cupy_arrays_have_every_operator_that_the_maths_uses():
    cupy = pytest.importorskip("cupy")
    binary = {ast.Add: "add", ast.BitAnd: "and", ast.BitXor: "xor", ast.Div: "truediv"}
    binary |= {ast.MatMult: "matmul", ast.Mult: "mul", ast.Pow: "pow", ast.Sub: "sub"}
    binary[ast.RShift] = "rshift"
    package = Path(mlp_xp.__file__).parent
    files = [*package.glob("nn/**/*.py"), *package.glob("optimizers/*.py")]
    files.append(package / "training" / "step.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    used = {type(node.op) for node in nodes if isinstance(node, ast.AugAssign | ast.BinOp)}
    # Of dtypes and types: `|`; of Python's own integers: `<<` and `//`.
    array_operators = used - {ast.BitOr, ast.LShift, ast.FloorDiv}
    assert {ast.BitXor, ast.RShift} <= array_operators
    names = [f"__{binary[operator]}__" for operator in array_operators]
    assert [name for name in sorted(names) if not hasattr(cupy.ndarray, name)] == []


@pytest.mark.matrix
@pytest.mark.parametrize("name", [n for n, k in Kernels()._asdict().items() if callable(k)])
def test_cupy_kernels_have_the_signatures_of_the_defaults(name):
    pytest.importorskip("cupy")
    from mlp_xp.backends._cupy.kernels import KERNELS

    ours, theirs = (
        inspect.signature(getattr(kernels, name)).parameters for kernels in (KERNELS, Kernels())
    )
    assert list(ours) == list(theirs)
    assert [p.kind for p in ours.values()] == [p.kind for p in theirs.values()]


def test_kernels_are_few():
    assert sum(map(callable, Kernels())) <= 12  # The others are for ranks alone.
