"""How an estimator predicts and is evaluated."""

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer
from sklearn.utils import estimator_html_repr

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.sklearn_compat import check_same_namespace
from mlp_xp._utils.tree import leaves
from mlp_xp.augmentation import VIEWS
from mlp_xp.backends import Backend, get_backend
from mlp_xp.estimators.fitting import Fitting
from mlp_xp.estimators.learned import ARRAYS
from mlp_xp.estimators.scoring import Predictions
from mlp_xp.estimators.summary import Summary, summarize
from mlp_xp.estimators.validation import check_weights, check_x
from mlp_xp.nn.losses import mean_loss
from mlp_xp.training.divergence import is_finite
from mlp_xp.training.inference import predict

__all__ = ["AS_SET", "Prediction"]

# A call of `predict` that averages as the estimator says.
AS_SET = "estimator"

Metrics = str | Callable[..., float] | Sequence[str] | Mapping[str, str | Callable[..., float]]


class Prediction(Fitting):
    """The predicting half of an estimator."""

    _metric_name: str

    def _outputs(
        self,
        X: Any,
        method: str,
        *,
        raw: bool = False,
        depth: int | None = None,
        to: Backend | None = None,
        tta: Any = AS_SET,
    ) -> Array:
        """Run the network; the result is where X is."""
        self._check_fitted()
        caller = get_backend(X)
        check_same_namespace(X, self, attribute="_any_learned", method=method)
        X = check_x(self, X, reset=False)
        follows = self.backend is None and self.device is None
        backend = caller if follows else self._backend_for(X)
        views: tuple[Any, ...] = ()
        if depth is None:
            # A comparison with an array of a caller's would be one of each element.
            is_set = isinstance(tta, str) and tta == AS_SET
            views = self._pictures("tta", self.tta if is_set else tta, VIEWS)
        outputs = predict(
            backend,
            self._network,
            None if raw and not views else self._activating_loss(),
            self._params,
            X,
            self._scaling,
            batch_stats=self._batch_stats,
            depth=depth,
            to=to or caller,
            tta=views,
            dtype=self._dtype if backend.has_float64 else "float32",
        )
        self._check_weights(suspected=not is_finite(to or caller, outputs))
        if raw and views:
            to = to or caller
            with to.scope():
                return _before(self.out_activation_, outputs, xp=to.xp)
        return outputs

    def _check_weights(self, *, suspected: bool) -> None:
        """Raise an error if the weights are not finite; large inputs may overflow without it.

        Finite outputs prove nothing of arrays that were assigned: tanh of infinity is 1, and XLA's
        maximum of NaN and 0 is 0.
        """
        learned, known = self._learned_arrays(), self._finite
        if not suspected and len(known) == len(learned) and all(map(is_, known, learned)):
            return
        for name in ARRAYS:
            for i, entry in enumerate(getattr(self, name, ())):
                if not is_finite(get_backend(next(leaves(entry))), entry):
                    raise ValueError(
                        f"{name}[{i}] has infinity or NaN, and predictions need finite weights: "
                        "fit again, or load a model that was saved before."
                    )
        self._finite = learned

    @property
    def _any_learned(self) -> Any:
        return self.coefs_[0]

    def hidden_activations(self, X: Any, layer: int = -1) -> Array:
        """Give what a hidden layer makes of the input.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        layer : int, default=-1
            Which hidden layer, from 0; negative numbers count from the last.

        Returns
        -------
        (samples, width) array
            Behind normalisation, activation and residual connection; in the library and on the
            device of X.

        Raises
        ------
        IndexError
            If there is no such layer.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=(5, 3), max_iter=2, learning_rate="cosine")
        >>> model = model.fit([[0.0], [1.0]], [0, 1])
        >>> model.hidden_activations([[0.5]]).shape, model.hidden_activations([[0.5]], 0).shape
        ((1, 3), (1, 5))
        """
        self._check_fitted()
        n_hidden = self.n_layers_ - 2
        if not -n_hidden <= layer < n_hidden:
            raise IndexError(
                f"layer is {layer}, and there are {n_hidden} hidden layers: use 0 to "
                f"{n_hidden - 1}."
            )
        return self._outputs(X, "hidden_activations", depth=layer % n_hidden + 1)

    def evaluate(
        self, X: Any, y: Any, sample_weight: Any = None, *, metrics: Metrics | None = None
    ) -> dict[str, float]:
        """Give loss and scores in one pass over the data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (samples, features), of any library
        y : array-like of shape (samples,) or (samples, outputs)
        sample_weight : array-like of shape (samples,), optional
        metrics : str, callable, list of str, or dict of them, optional
            Names of scikit-learn's scorers, e.g. ``"roc_auc_ovr"``, or callables
            ``scorer(estimator, X, y)``; default what `score` gives.

        Returns
        -------
        dict
            From ``"loss"`` and the metrics' names to their values. The loss is without penalty;
            with `tta`, that of the averaged predictions.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlp_xp import MLPClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = MLPClassifier(max_iter=5, learning_rate="cosine").fit(X, y)
        >>> list(model.evaluate(X, y, metrics=["accuracy", "neg_log_loss"]))
        ['loss', 'accuracy', 'neg_log_loss']
        """
        named = _named(() if metrics is None else metrics)
        here = get_backend("numpy")
        logits: Any = self._outputs(X, "evaluate", raw=True, to=here)
        n_samples = logits.shape[0]
        truth = self._check_y(y, n_samples)
        weights = check_weights(sample_weight, n_samples)
        targets: Any = self._encode(truth)
        shares: Any = None if weights is None else weights.astype(logits.dtype)
        value: Any = mean_loss(self._loss, logits, targets, shares, xp=here.xp)[0]
        outputs: Any = self._activating_loss().activate(logits, xp=here.xp)
        predictions = Predictions(self, outputs)
        scores = {"loss": self._loss.reported(float(value), self.n_outputs_)}
        if metrics is None:
            return scores | {self._metric_name: self._metric(truth, predictions.predict(), weights)}
        for name, metric in named.items():
            scorer = metric if callable(metric) else get_scorer(metric)
            scores[name] = predictions.score(scorer, X, truth, weights)
        return scores

    def summary(self) -> Summary:
        """Describe the fitted network: layers, parameters, memory, work for a sample.

        Returns
        -------
        Summary
            Prints as a table, and shows as one in a notebook.

        Examples
        --------
        >>> from mlp_xp import MLPRegressor
        >>> model = MLPRegressor(hidden_layer_sizes=3, max_iter=1, learning_rate="cosine")
        >>> model.fit([[0.0], [1.0]], [0, 1]).summary()
        layer            output  parameters  flops a sample
        ---------------------------------------------------
        hidden 0: dense       3           6               6
          relu                3
        output: dense         1           4               6
        ---------------------------------------------------
        in all                           10              12
        training: 30 flops a sample, 240 B of parameters and optimizer state, 112 B kept of a batch
        """
        self._check_fitted()
        last = self.history_[-1].n_samples if self.history_ else 1
        return summarize(
            self._network,
            itemsize=np.dtype(self._dtype).itemsize,
            batch_size=min(self._most_rows(), last),
            n_copies=1 + self._make_solver().n_slots + (self.ema_decay is not None),
        )

    def _html_repr(self) -> str:
        """Show what scikit-learn shows, and the network once there is one."""
        shown = str(estimator_html_repr(self))
        return shown + self.summary()._repr_html_() if hasattr(self, "coefs_") else shown


def _before(activation: str, y: Array, *, xp: Namespace) -> Array:
    """Give raw outputs that an output activation turns into what was averaged."""
    tiny = float(xp.finfo(y.dtype).smallest_normal)
    if activation in ("softmax", "exp"):
        return xp.log(xp.maximum(y, tiny))
    if activation == "logistic":
        return xp.log(xp.maximum(y, tiny)) - xp.log(xp.maximum(1.0 - y, tiny))
    if activation == "softplus":
        return y + xp.log(xp.maximum(-xp.expm1(-y), tiny))
    if activation == "tanh":
        return 0.5 * (xp.log(xp.maximum(1.0 + y, tiny)) - xp.log(xp.maximum(1.0 - y, tiny)))
    return y  # "identity", and "relu" of what is not negative


def _named(metrics: Metrics) -> Mapping[str, Any]:
    """Give the metrics by name, each with one of its own."""
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    else:
        if isinstance(metrics, str) or callable(metrics):
            metrics = [metrics]  # type: ignore[list-item]
        pairs = [(getattr(metric, "__name__", str(metric)), metric) for metric in metrics]
    names = ["loss", *(name for name, _ in pairs)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"metrics has {twice} more than once, or beside the loss, which is always given: name "
            "them yourself in a dict, e.g. metrics={'first': ..., 'second': ...}."
        )
    return dict(pairs)
