"""A fit in progress: epochs, early stopping, callbacks."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp._utils.signals import interrupts
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import Backend
from mlp_xp.estimators.held_out import Validation
from mlp_xp.estimators.settings import LBFGS
from mlp_xp.nn.network import Params
from mlp_xp.training.batches import Data, plan_epoch
from mlp_xp.training.divergence import NonFiniteError, explain_minimum, is_finite
from mlp_xp.training.early_stopping import Plateau
from mlp_xp.training.inference import hand_over
from mlp_xp.training.lbfgs import BLOCK, minimize
from mlp_xp.training.time_budget import Budget
from mlp_xp.training.trainer import Record, Trainer

__all__ = ["Run"]

_COMPILES_WITHIN = 10.0  # seconds
_MIN_RATE = 1e-6  # Where scikit-learn's "adaptive" gives up.


class Run:
    """One fit of an estimator.

    Parameters
    ----------
    model : estimator
        Prepared; its learned attributes are set as the fit goes.
    trainer : Trainer
    data : Data
    weights : (samples,) array or None
    validation : Validation or None
    given : tuple
        X, y and sample_weight as the caller gave them, for scikit-learn's callbacks.
    to : Backend
        Where the caller's data are.
    """

    def __init__(
        self,
        model: Any,
        trainer: Trainer,
        data: Data,
        weights: np.ndarray | None,
        validation: Validation | None,
        *,
        given: tuple[Any, Any, Any],
        to: Backend,
    ) -> None:
        self.model = model
        self.trainer = trainer
        self.data = data
        self.weights = weights
        self.validation = validation
        self.given = given
        self.to = to
        self.callbacks = list(model.callbacks or ())
        self._best: tuple[Params, Any] | None = None
        self._stopped = False
        self._budget: Budget | None = None
        trainer.with_accuracy = any(
            getattr(callback, "wants_accuracy", False) for callback in self.callbacks
        )
        if validation is not None:  # Each may have been set by hand.
            for name in ("validation_scores_", "validation_loss_curve_"):
                if getattr(model, name) is None:
                    setattr(model, name, [])
            if model.best_validation_score_ is None:
                model.best_validation_score_ = -np.inf
        self.goes_by_score = model._stops_early()
        if self.goes_by_score:
            model.best_loss_ = None
        elif model.best_loss_ is None:
            model.best_loss_ = np.float64(np.inf)
        best = -model.best_validation_score_ if self.goes_by_score else model.best_loss_
        self.plateau = Plateau(model.tol, model.n_iter_no_change, best)
        n_samples = data.n_samples
        self.batch_size = model._most_rows()
        if self.batch_size > n_samples and model.batch_size != "auto":
            warnings.warn(
                f"Got `batch_size` {self.batch_size} larger than the sample size {n_samples}. It "
                "is going to be clipped.",
                stacklevel=5,
            )

    # --- the two ways to train -----------------------------------------------------------------

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Give the context of `fit`: the callbacks hear that it begins, and then that it ends.

        An error before `fit` leaves the trainer as it was.
        """
        model = self.model
        model.n_iter_ = 0
        if self.goes_by_score and model.history_:
            self._start_from_best()
        if self.to == self.trainer.backend and not self.trainer.backend.donates:
            self.show()  # The trainer's own arrays, so that there are no two copies of the weights.
        self._context = model._init_callback_context(max_subtasks=model.max_iter)
        self._context.call_on_fit_task_begin(estimator=model, **self._facts())
        with interrupts() as self._pressed, contextlib.ExitStack() as stack:
            for callback in self.callbacks:
                if hasattr(callback, "on_fit_end"):
                    stack.callback(callback.on_fit_end, model)
                if hasattr(callback, "on_fit_begin"):
                    callback.on_fit_begin(model)
            yield

    def fit(self, start: float) -> None:
        """Train until something ends it; the time that there is for it began at ``start``."""
        model, trainer = self.model, self.trainer
        trainer.first_epoch = trainer.n_epochs
        trainer.rate_factor = 1.0
        try:
            # In less time than this, what compiles the first time would take most of it.
            trainer.may_compile = (model.max_time or np.inf) >= _COMPILES_WITHIN
            if model.max_time is not None:
                self._budget = self._begin_budget(start)
            if model.solver == LBFGS:
                self._minimize()
            else:
                self._descend()
            trainer.guard.check(trainer)
        except NonFiniteError as error:
            if self._best is None:
                raise
            self._keep_best(error)
        finally:
            if self._best is not None:
                trainer.set_learned(*self._best)
            # What `partial_fit` adds goes through a schedule of its own.
            trainer.first_epoch = trainer.n_epochs
            trainer.stale_epochs = 0
            trainer.guard.release()
            if not model.warm_start:  # Else the next fit goes on with the same compiled step.
                trainer.rest()
            self.show()
        if self._pressed():
            warnings.warn("Training interrupted by user.", stacklevel=3)
        self._context.call_on_fit_task_end(
            estimator=model,
            reconstruction_attributes=self._learned_attributes,
            **self._facts(),
        )

    def partial_fit(self) -> None:
        """Train for one epoch; what the schedule and the epochs count goes on.

        Callbacks are left out: they belong to a whole fit, which here only the caller oversees.
        """
        self.callbacks = []
        self.plateau.count = self.trainer.stale_epochs
        with interrupts() as self._pressed:
            try:
                if self._after_epoch(self._epoch()) and self.model._is_adaptive():
                    self._lower_rate()
                self.trainer.guard.check(self.trainer)
            finally:
                self.trainer.guard.release()
                self.trainer.stale_epochs = self.plateau.count
                self.show()
            if self._pressed():  # The caller's loop is what is to end.
                raise KeyboardInterrupt

    def _keep_best(self, error: NonFiniteError) -> None:
        """End with the best weights so far, as scikit-learn does; record the epoch with NaN."""
        warnings.warn(f"{error} The best weights so far are kept.", RuntimeWarning, stacklevel=4)
        model = self.model
        if model.history_ and model.history_[-1].epoch >= error.epoch:
            return  # Only its last update is not finite.
        model.loss_ = np.float64(np.nan)
        model.loss_curve_.append(model.loss_)
        model.validation_scores_.append(np.nan)
        model.validation_loss_curve_.append(np.nan)
        model.history_.append(Record(error.epoch, np.nan, None, np.nan, 0, 0.0, np.nan, np.nan))
        model.n_iter_ += 1

    def _begin_budget(self, start: float) -> Budget:
        """Give the time that there is, and keep some for what follows each epoch."""
        budget = Budget(self.model.max_time, start)
        # An iteration of "lbfgs" is measured with its validation in it.
        if self.validation is not None and self.model.solver != LBFGS:
            budget.mark()
            self.validation.measure()
            budget.between()
        return budget

    def _start_from_best(self) -> None:
        """Take the network that a warm start goes on from as the best so far."""
        assert self.validation is not None
        _, score = self.validation.measure()
        score = score if np.isfinite(score) else -np.inf
        self.model.best_validation_score_ = score
        self.plateau.best = -score
        self._best = self._copy()

    def _descend(self) -> None:
        model = self.model
        for _ in range(model.max_iter):
            with _task(self._context, model, self._facts, self._learned_attributes) as task:
                plateau = self._after_epoch(self._epoch())
            if plateau and not self._lower_rate():
                return
            if task.stopped or self._stopped or self._pressed() or self._is_over():
                return
        # A schedule that ends at max_iter was meant to.
        if model._has_no_horizon():
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _is_over(self) -> bool:
        """Note that an epoch is done; tell whether there is no time for a step of another."""
        if self._budget is None:
            return False
        self._budget.between()
        return self._budget.next_steps(1) == 0

    def _epoch(self) -> Record:
        model, trainer = self.model, self.trainer
        plan = plan_epoch(
            self.data.n_samples,
            self.batch_size,
            seed=model._seed if model.shuffle else None,
            epoch=trainer.n_epochs,
            weights=self.weights,
            pad=trainer.pads,
        )
        steps = [c.on_step_end for c in self.callbacks if hasattr(c, "on_step_end")]

        def after_step(done: int, n_steps: int) -> bool:
            # Every callback hears of every step, also when an earlier one has asked to stop.
            asked = [step for step in steps if step(model, done, n_steps)]
            if asked or self._pressed():
                self._stopped = True
            return self._stopped

        return trainer.run_epoch(
            self.data,
            plan,
            n_epochs=model.max_iter,
            after_step=after_step,
            step_by_step=bool(steps),
            budget=self._budget,
        )

    def _minimize(self) -> None:
        model = self.model
        start = time.perf_counter()
        learned = self.trainer.learned
        # Weights are taken out of SciPy's vector only where somebody looks at them.
        has_audience = bool(
            self.validation is not None or self.callbacks or getattr(model, "_skl_callbacks", None)
        )

        def finite() -> Params:
            return learned

        def after_iteration(params: Callable[[], Params], loss: float) -> bool:
            nonlocal start, finite
            if not np.isfinite(loss):
                raise self._not_finite(finite())
            if has_audience:
                self.trainer.set_learned(params(), ())
            finite = params
            with _task(self._context, model, self._facts, self._learned_attributes) as task:
                now = time.perf_counter()
                n_samples = self.data.n_samples
                epoch = len(model.loss_curve_) + 1
                record = Record(epoch, loss, None, np.nan, n_samples, now - start)
                start = now
                self._after_epoch(record)
            if self._budget is not None:
                self._budget.count(1)
                self._stopped = self._stopped or self._budget.next_steps(1) == 0
            self._stopped = self._stopped or self._pressed()
            return task.stopped or self._stopped

        result = minimize(
            self.trainer,
            self.data,
            self.weights,
            max_iter=model.max_iter,
            max_fun=model.max_fun,
            tol=model.tol,
            verbose=model.verbose,
            after_iteration=after_iteration,
        )
        n_iter, loss = result
        if not (np.isfinite(loss) and is_finite(self.trainer.backend, self.trainer.learned)):
            raise self._not_finite(finite())
        model.n_iter_, model.loss_ = n_iter, np.float64(loss)

    def _not_finite(self, finite: Params) -> NonFiniteError:
        """Go back to finite weights, and return the error of the iteration after them."""
        trainer = self.trainer
        trainer.set_learned(finite, ())
        plan = plan_epoch(self.data.n_samples, BLOCK, weights=self.weights, pad=trainer.pads)
        return explain_minimum(trainer, self.data, plan, len(self.model.loss_curve_) + 1)

    # --- after each epoch ----------------------------------------------------------------------

    def _after_epoch(self, record: Record) -> bool:
        """Note what an epoch did; tell whether nothing has improved for too long."""
        model = self.model
        score: float | None = None
        if self.validation is not None:
            value, score = self.validation.measure()
            record = record._replace(validation_loss=value, validation_score=score)
            model.validation_scores_.append(score)
            model.validation_loss_curve_.append(value)
            if score > model.best_validation_score_:
                model.best_validation_score_ = score
                if self.goes_by_score:
                    self._best = self._copy()
        model.loss_ = np.float64(record.loss)  # As scikit-learn's; it prints alike.
        model.loss_curve_.append(model.loss_)
        model.history_.append(record)
        if not self.goes_by_score:
            model.best_loss_ = min(model.best_loss_, model.loss_)
        model.n_iter_ += 1
        if model.solver != LBFGS:
            model.t_ += record.n_samples
            if model.verbose:
                print(f"Iteration {model.n_iter_}, loss = {record.loss:.8f}")
        if model.verbose and score is not None:
            print(f"Validation score: {score:f}")
        if self.callbacks or getattr(model, "_skl_callbacks", None):
            self.trainer.guard.check(self.trainer)  # No callback saves what is not finite.
            self.show()
        asked = [
            bool(callback.on_epoch_end(model, record))
            for callback in self.callbacks
            if hasattr(callback, "on_epoch_end")
        ]
        self._stopped = self._stopped or any(asked)
        watched = -score if self.goes_by_score and score is not None else record.loss
        return self.plateau.reached(watched)

    def _lower_rate(self) -> bool:
        """Lower the learning rate at a plateau, if it is "adaptive" and not too low already."""
        model, trainer = self.model, self.trainer
        what = "Validation score" if self.goes_by_score else "Training loss"
        message = (
            f"{what} did not improve more than tol={model.tol:f} for {model.n_iter_no_change} "
            "consecutive epochs."
        )
        rate = model.learning_rate_init * trainer.rate_factor
        is_adaptive = model._is_adaptive()
        lowers = is_adaptive and rate > _MIN_RATE
        if lowers:
            trainer.rate_factor /= 5.0
            self.plateau.count = 0
            message += f" Setting learning rate to {rate / 5.0:f}"
        else:
            message += " Learning rate too small. Stopping." if is_adaptive else " Stopping."
        if model.verbose:
            print(message)
        return lowers

    def _copy(self) -> tuple[Params, Any]:
        xp = self.trainer.backend.xp
        with self.trainer.backend.scope():
            return map_leaves(
                lambda leaf: xp.asarray(leaf, copy=True),
                (self.trainer.learned, self.trainer.state.batch_stats),
            )

    # --- what the caller sees ------------------------------------------------------------------

    def show(self) -> None:
        """Show what was learned where the caller's data are."""
        trainer = self.trainer
        learned = trainer.learned, trainer.state.batch_stats
        if trainer.backend.donates:  # The next step takes over the memory of its state.
            learned = self._copy()
        trainer.shown = map_leaves(lambda leaf: hand_over(leaf, self.to), learned)
        self.model._set_learned(*trainer.shown)

    def _facts(self) -> dict[str, Any]:
        X, y, weights = self.given
        return {"X": X, "y": y, "metadata": {"sample_weight": weights}}

    def _learned_attributes(self) -> dict[str, Any]:
        """Give what makes a new estimator as fitted as this one is at present."""
        settings = self.model.get_params(deep=False)
        mine = vars(self.model).items()
        return {k: v for k, v in mine if k not in settings and "callback" not in k} | {
            "_trainer": None
        }


class _task:  # noqa: N801
    """An epoch as scikit-learn's callbacks see it."""

    def __init__(self, context: Any, model: Any, facts: Any, learned: Any) -> None:
        self._task = context.subcontext(task_name="epoch")
        self._model = model
        self._facts = facts
        self._learned = learned
        self.stopped = False

    def __enter__(self) -> _task:
        self._task.call_on_fit_task_begin(estimator=self._model, **self._facts())
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is None:
            self.stopped = bool(
                self._task.call_on_fit_task_end(
                    estimator=self._model,
                    reconstruction_attributes=self._learned,
                    **self._facts(),
                )
            )
