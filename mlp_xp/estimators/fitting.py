"""How an estimator is fitted: from its settings and the data to a run of the training loop."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import _fit_context
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from mlp_xp._utils.random import RandomState
from mlp_xp._utils.sklearn_compat import CallbackSupportMixin, with_callbacks
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.estimators.held_out import Validation
from mlp_xp.estimators.learned import Learned
from mlp_xp.estimators.ported import check_overrides
from mlp_xp.estimators.running import Run
from mlp_xp.estimators.settings import LBFGS
from mlp_xp.estimators.validation import check_weights, check_x
from mlp_xp.nn.gradient_check import check_activation, check_loss
from mlp_xp.nn.hidden import Layer
from mlp_xp.nn.network import init_batch_stats, init_params
from mlp_xp.training.batches import place
from mlp_xp.training.input_scaling import find_scaling
from mlp_xp.training.rows import some_rows
from mlp_xp.training.trainer import Trainer

__all__ = ["Fitting"]


class Sample(NamedTuple):
    """Checked data: inputs where they are, or `Rows` of them; targets and weights on the host."""

    X: Any
    y: np.ndarray
    weights: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Sample":
        """Give some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Sample(some_rows(self.X, rows), self.y[rows], weights)


class Fitting(CallbackSupportMixin, Learned):  # type: ignore[misc]
    """The training half of an estimator."""

    # --- what classifier and regressor bring ----------------------------------------------------

    def _check_y(self, y: Any, n_samples: int, name: str = "y") -> np.ndarray:
        """Check targets and bring them to the host."""
        raise NotImplementedError

    def _learn_targets(self, y: np.ndarray, classes: Any) -> None:
        """Set ``n_outputs_`` and what else the targets decide, for a new network."""
        raise NotImplementedError

    def _check_known(self, y: np.ndarray) -> None:
        """Refuse targets that do not fit the network that the fit goes on from."""
        raise NotImplementedError

    def _encode(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        """Turn targets into what the loss takes, on the host."""
        raise NotImplementedError

    def _decode(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs of the network into what `predict` gives, on the host."""
        raise NotImplementedError

    def _metric(self, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
        """Give the score that early stopping goes by unless another is asked for."""
        raise NotImplementedError

    def _balance(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        """Give the sample weights that the settings ask for."""
        return weights

    # --- fitting -------------------------------------------------------------------------------

    @with_callbacks  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Fit the network.

        Ctrl-C ends the fit after the step in progress, with a warning, and keeps the network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
            float32, float64 or integers.
        y : array-like of shape (samples,) or (samples, outputs)
            Class labels, or real values for a regressor.
        sample_weight : array-like of shape (samples,), optional
            At least 0.
        X_val, y_val, sample_weight_val : as X, y and sample_weight, optional
            Data to measure loss and score on after each epoch. With ``early_stopping=True`` they
            decide, and no part of X is held out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data or settings are not as above, and nothing is changed; or if the weights have
            become infinite or NaN.
        """
        start = time.perf_counter()
        held = X_val, y_val, sample_weight_val
        with contextlib.ExitStack() as stack:
            with self._unchanged_by_errors():
                run = self._prepare(X, y, sample_weight, held, goes_on=self.warm_start)
                stack.enter_context(run.begun())
            run.fit(start)
        return self

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: Any, held: tuple[Any, Any, Any], classes: Any = None
    ) -> Any:
        with self._unchanged_by_errors():
            run = self._prepare(X, y, sample_weight, held, goes_on=True, classes=classes)
        run.partial_fit()
        return self

    def _can_partial_fit(self) -> bool:
        if self.solver == LBFGS:
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    @contextlib.contextmanager
    def _unchanged_by_errors(self) -> Iterator[None]:
        """Take back whatever was set if preparing a fit fails: bad input changes nothing."""
        before = dict(self.__dict__)
        generator = self.random_state if isinstance(self.random_state, RandomState) else None
        position: Any = None if generator is None else generator.get_state()
        try:
            yield
        except BaseException:
            # What scikit-learn has set up for its own callbacks it takes down itself.
            theirs = {name: value for name, value in vars(self).items() if "_callback" in name}
            self.__dict__.clear()
            self.__dict__.update(theirs | before)
            if generator is not None:
                generator.set_state(position)
            raise

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        held: tuple[Any, Any, Any],
        *,
        goes_on: bool,
        classes: Any = None,
    ) -> Run:
        """Check everything and bring it to the device."""
        check_overrides(self)
        self._check_settings()
        sizes = self._hidden_sizes()
        is_new = not (goes_on and hasattr(self, "coefs_"))
        if not is_new:
            self._check_fitted()
        given = X, y, sample_weight
        sample = self._check_sample(X, y, sample_weight, reset=is_new)
        validation = self._check_held_out(held)
        if is_new:
            self._learn_targets(sample.y, classes)
            self._begin(sample.X, sizes)
            self.__dict__.pop("_is_sparse_y", None)
            if sparse.issparse(y):
                self._is_sparse_y = True
        else:
            self._check_known(sample.y)
            self._go_on(sizes)
        everything = sample.X
        if self._stops_early() and validation is None:
            sample, validation = self._hold_out(sample)
        sample = sample._replace(weights=self._balance(sample.y, sample.weights))
        trainer = self._trainer_for(everything)
        targets = self._encode(sample.y)
        self._check_pullbacks(trainer, targets)
        data = place(
            trainer.backend,
            sample.X,
            targets,
            self._dtype,
            self.placement,
            multiplies_sparse=trainer.multiplies_sparse,
        )
        return Run(
            self,
            trainer,
            data,
            sample.weights,
            Validation.of(self, trainer, validation, sample.X, data),
            given=given,
            to=get_backend(X),
        )

    def _check_sample(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool, suffix: str = ""
    ) -> Sample:
        X = check_x(self, X, reset=reset)
        n_samples = X.shape[0]
        y = self._check_y(y, n_samples, f"y{suffix}")
        return Sample(X, y, check_weights(sample_weight, n_samples, name=f"sample_weight{suffix}"))

    def _check_held_out(self, held: tuple[Any, Any, Any]) -> Sample | None:
        X, y, weights = held
        if X is None and y is None:
            if weights is not None:
                raise ValueError("sample_weight_val is given without X_val and y_val.")
            return None
        if X is None or y is None:
            missing = "X_val" if X is None else "y_val"
            raise ValueError(f"X_val and y_val belong together, and {missing} is None.")
        return self._check_sample(X, y, weights, reset=False, suffix="_val")

    def _hold_out(self, sample: Sample) -> tuple[Sample, Sample]:
        """Split off a share of the samples, the same at each call on the same number of them."""
        rows = np.arange(sample.X.shape[0])
        try:
            fit, held = train_test_split(
                rows,
                test_size=self.validation_fraction,
                random_state=self._seed,
                stratify=self._strata(sample.y),
            )
        except ValueError as error:
            raise ValueError(
                f"{str(error).rstrip('.')}. early_stopping=True holds out validation_fraction="
                f"{self.validation_fraction} of {len(rows)} samples: change it, or give X_val and "
                "y_val."
            ) from error
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        parts = sample.take(fit), sample.take(held)
        for part, what in zip(parts, ("to fit on", "held out"), strict=True):
            check_weights(part.weights, len(part.y), name=f"sample_weight of the samples {what}")
        return parts

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """Give what the held-out samples must have in the same shares."""
        return None

    def _begin(self, X: Any, sizes: tuple[int | Layer, ...]) -> None:
        """Draw the weights of a new network and forget the old one."""
        backend = self._training_backend(X)
        self._dtype = self._resolve_precision(backend, X)
        self.n_layers_ = len(sizes) + 2
        self._loss = self._resolve_loss()
        self._network = self._make_network(sizes)
        # scikit-learn's numbers: the same seed starts from the same weights as there.
        generator = check_random_state(self.random_state)
        start = init_params(self._network, generator), init_batch_stats(self._network)
        self._set_learned(*map_leaves(lambda leaf: leaf.astype(self._dtype), start))
        is_seed = isinstance(self.random_state, Integral)
        self._seed = int(self.random_state if is_seed else generator.randint(2**31 - 1))
        self._scaling = None
        if self.input_scaling is not None:
            self._scaling = find_scaling(self.input_scaling, backend, X, self._dtype)
        self._scaled_by = self.input_scaling
        self.__dict__.update(self._nothing_done())

    def _go_on(self, sizes: tuple[int | Layer, ...]) -> None:
        """Take over settings that were changed since the last fit, if the network allows it."""
        kept = self._network.widths[1:-1]
        if sizes != kept:
            warnings.warn(
                f"hidden_layer_sizes is now {self.hidden_layer_sizes!r}, and the fit goes on with "
                f"the network that is there, of {list(kept)}, as in scikit-learn: fit with "
                "warm_start=False to start a new one.",
                stacklevel=6,
            )
        network = self._make_network(kept)
        names = ("widths", "normalization", "residual")
        pairs = {name: (getattr(self._network, name), getattr(network, name)) for name in names}
        if self.precision != "auto":
            pairs["precision"] = self._dtype, self._parameter_dtype()
        pairs["input_scaling"] = self._scaled_by, self.input_scaling
        for name, (old, new) in pairs.items():
            if old != new:
                raise ValueError(
                    f"The network to go on with has {name}={old!r}, and the settings now say "
                    f"{new!r}: fit with warm_start=False to start a new one."
                )
        if self._activating_loss() is not self._loss:
            raise ValueError(
                f"out_activation_ is {self.out_activation_!r}, which was assigned, and the network "
                f"was trained for {self._loss!r}: set it back to go on with this fit, or fit with "
                "output_activation and warm_start=False."
            )
        self._network = network
        self._loss = self._resolve_loss()

    def _trainer_for(self, X: Any) -> Trainer:
        """Give the trainer that goes on from `coefs_`: the last one, or a new one."""
        backend = self._training_backend(X)
        rules = self._make_rules(self._network, self._loss)
        trainer = self._trainer
        if trainer is not None and trainer.backend == backend and trainer.rules == rules:
            # Where the estimator's arrays are the trainer's own there is nothing to bring back; but
            # a compiled step takes over the memory of its state, which must then be a copy.
            mine = (self._params, self._batch_stats)
            own = _same(mine, (trainer.learned, trainer.state.batch_stats))
            # What is shown of a moving average is not where the training goes on from.
            shown = rules.ema_decay is not None and _same(mine, trainer.shown)
            if not shown and (not own or backend.donates):
                trainer.set_learned(*mine)
            return trainer
        scaling = None
        if self._scaling is not None:
            scaling = map_leaves(lambda leaf: backend.put(leaf, self._dtype), self._scaling)
        new = Trainer(
            backend,
            rules,
            params=self._params,
            batch_stats=self._batch_stats,
            dtype=self._dtype,
            scaling=scaling,
            seed=self._seed,
        )
        progress = self._progress if trainer is None else trainer.progress()
        if progress is not None:
            new.resume(progress)
        self._trainer = new
        return new

    def _check_pullbacks(self, trainer: Trainer, targets: np.ndarray) -> None:
        """Compare what a user wrote with a finite difference, once, on a few samples."""
        if trainer.n_steps:
            return
        backend, network = trainer.backend, self._network
        dtype = "float64" if backend.has_float64 else "float32"
        generator = np.random.default_rng(self._seed)
        rows = slice(0, 8)
        with backend.scope():
            settings = network.activation
            for function in settings if isinstance(settings, tuple) else (settings,):
                if callable(function):
                    x = backend.put(generator.standard_normal((8, 4)), dtype)
                    name = getattr(function, "__name__", repr(function))
                    check_activation(function, x, xp=backend.xp, name=name)
            if self._loss.is_own:
                is_real = targets.dtype.kind == "f"
                y = backend.put(targets[rows], dtype if is_real else None)
                logits = generator.standard_normal((y.shape[0], self.n_outputs_))
                check_loss(self._loss, backend.put(logits, dtype), y, xp=backend.xp)


def _same(tree: Any, other: Any) -> bool:
    """Tell whether two trees have the very same arrays."""
    mine, theirs = list(leaves(tree)), list(leaves(other))
    return len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))
