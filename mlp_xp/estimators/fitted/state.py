"""The fitted state of an estimator, and the fitted attributes that expose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend, get_backend, to_numpy
from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.estimators.fitted.calibration import Calibration, divided
from mlp_xp.estimators.fitted.device_cache import DeviceCopies, are_same
from mlp_xp.estimators.settings.config import resolve_config
from mlp_xp.nn.entries import entries
from mlp_xp.nn.layers import BatchStats, Dense, Norm
from mlp_xp.nn.losses import ErrorLoss, Loss, SoftmaxCrossEntropy, SquaredError, Through
from mlp_xp.nn.network import Network, Params, with_layers
from mlp_xp.recipes.parameters import TABLE_SCALINGS
from mlp_xp.training.data.input_scaling import Whiten
from mlp_xp.training.divergence.finite import is_finite
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.loop_settings import LoopPosition
from mlp_xp.training.loop.records import ResumeState

if TYPE_CHECKING:
    from mlp_xp.estimators.tables.columns import TableColumns

# The attributes with weights: lists of arrays, or of NamedTuples of arrays.
_ARRAYS = ("coefs_", "intercepts_", "norms_", "other_weights_", "moments_")
# Parameters that do not work with assigned weights, and the values that they must have.
_UNASSIGNED = dict.fromkeys(
    ("input_scaling", "target_scaling", "normalization", "numeric_embedding")
) | {"parametric_activation": False, "n_members": 1}
# Fields to reset if weights change.
_UNCALIBRATED: dict[str, Any] = {"calibration": None, "coverage_by": None, "temperature": None}


@dataclass(frozen=True, eq=False)
class FittedState:
    """Everything that predictions and a later fit need; pickled, moved and saved as one object.

    ``n_features`` is the number of columns of the encoded inputs; the network has fewer inputs if
    whitening drops some. ``scaling`` has the values computed for ``input_scaling``. If the trainer
    is gone, a later fit continues from ``progress``, the optimizer state in NumPy arrays, and
    ``position``, the position in the schedule. If ``is_checked`` is true, all weights are known to
    be finite. ``calibration`` corrects quantiles, separately for each value of the column at the
    position ``coverage_by``; predictions divide raw outputs by ``temperature``. ``copies`` caches
    arrays on devices.
    """

    network: Network
    loss: Loss
    output: str
    targets: Any
    n_features: int
    input_scaling: str | Whiten | None
    dtype: str
    seed: int
    params: Params = ()
    batch_stats: tuple[BatchStats, ...] = ()
    scaling: Scaling | Whitening | None = None
    position: LoopPosition = LoopPosition()
    progress: ResumeState | None = None
    is_checked: bool = False
    columns: TableColumns | None = None
    calibration: Calibration | None = None
    coverage_by: int | None = None
    temperature: float | None = None
    copies: DeviceCopies = field(default_factory=DeviceCopies, repr=False)

    @cached_property
    def arrays(self) -> dict[str, list[Any]]:
        """The nonempty lists of arrays that are published as attributes, by name."""
        # If the network is flat, its parameters are already a sequence of layers.
        found = self.params if self.network.is_flat else entries(self.params)
        layers = [entry for entry in found if type(entry) is Dense]
        published: dict[str, list[Any]] = {
            "coefs_": [layer.W for layer in layers],
            "intercepts_": [layer.b for layer in layers],
            "norms_": [entry for entry in found if type(entry) is Norm],
            "other_weights_": [entry for entry in found if type(entry) not in (Dense, Norm)],
            "moments_": list(self.batch_stats),
        }
        return {name: arrays for name, arrays in published.items() if arrays}

    @cached_property
    def _entries(self) -> tuple[Any, ...]:
        return tuple(chain(*self.arrays.values()))

    @property
    def n_columns(self) -> int:
        """The number of columns of X, before a table is encoded."""
        return self.n_features if self.columns is None else len(self.columns.columns)

    @property
    def step_scaling(self) -> str | Whiten | None:
        """The input scaling to apply in each step; None if a table's columns are already scaled."""
        is_done = self.columns is not None and self.input_scaling in TABLE_SCALINGS
        return None if is_done else self.input_scaling

    @property
    def target_scaling(self) -> str | None:
        """The parameter `target_scaling` of the fit."""
        return None if getattr(self.targets, "scaling", None) is None else "standardize"

    @property
    def clips_predictions(self) -> bool:
        """Whether predictions are clipped to the range of the training targets."""
        return getattr(self.targets, "limits", None) is not None

    @property
    def activating_loss(self) -> Loss:
        """The loss, or a different loss if the user has assigned `out_activation_`."""
        output = self.output
        if self.loss.output == output:
            return self.loss
        if output == "softmax":
            return SoftmaxCrossEntropy()
        loss = self.loss.loss if isinstance(self.loss, Through) else self.loss
        return Through(loss if isinstance(loss, ErrorLoss) else SquaredError(), output)

    def with_arrays(self, attributes: Mapping[str, Any]) -> FittedState:
        """Return the state with the arrays in fitted attributes, which a user may have replaced."""
        given = tuple(e for name in _ARRAYS for e in attributes.get(name, ()))
        if are_same(given, self._entries):
            return self
        weights = _weights(self.network, attributes)
        return replace(self, **weights, is_checked=False, **_UNCALIBRATED)

    def with_output(self, output: str) -> FittedState:
        """Return the state with the output activation that a user has assigned."""
        return self if output == self.output else replace(self, output=output, **_UNCALIBRATED)

    def with_classes(self, classes: Any) -> FittedState:
        """Return the state with the class labels that a user has assigned."""
        return replace(self, targets=self.targets.with_classes(classes))

    def with_activation(self, activation: Any) -> FittedState:
        """Return the state with the current value of the parameter `activation`."""
        activation = tuple(activation) if isinstance(activation, list) else activation
        if activation == self.network.activation:
            return self
        network = replace(self.network, activation=activation)
        return replace(self, network=network, **_UNCALIBRATED)

    def with_weights(
        self, params: Params, batch_stats: tuple[BatchStats, ...], **others: Any
    ) -> FittedState:
        """Return the state with new weights, whose arrays must not be used elsewhere."""
        weights: dict[str, Any] = {"params": params, "batch_stats": batch_stats}
        state = replace(self, **weights, copies=DeviceCopies(), **others)
        are_same = map(is_, state._entries, self._entries)
        state.copies.is_shared = self.copies.is_shared and any(are_same)
        return state

    def clipping(self, y: np.ndarray, *, clips: bool) -> FittedState:
        """Return the state, with predictions clipped to the range of y if ``clips``."""
        if clips == self.clips_predictions:
            return self
        return replace(self, targets=self.targets.limited(y if clips else None))

    def learning_from(
        self, y: np.ndarray, weights: np.ndarray | None, target_scaling: str | None
    ) -> FittedState:
        """Return a new state with values computed from the training targets.

        These are the mean and standard deviation if targets are standardized, and for some losses
        the initial biases of the output layer.
        """
        targets, params = self.targets, self.params
        if target_scaling is not None:
            targets = targets.standardized(y, weights, self.dtype)
        if targets.classes is None:
            given: Any = targets.encode(y, "float64"), weights
            biases = self.loss.initial_biases(*given, xp=get_backend("numpy").xp)
            if biases is not None:
                last: Any = params[-1]
                params = (*params[:-1], last._replace(b=to_numpy(biases).astype(self.dtype)))
        return replace(self, targets=targets, params=params)

    def on(
        self, backend: Backend, dtype: str
    ) -> tuple[Params, tuple[BatchStats, ...], Scaling | Whitening | None]:
        """Return weights, batch statistics and scaling for a prediction on a backend.

        Copies on a device are cached for the next prediction.
        """
        weights = self.params, self.batch_stats, self.scaling
        # On the host, cache copies only for XLA, where converting an array takes time.
        if not backend.shares_host_memory or backend.fixed_shapes:
            weights = cast(Any, self.copies.on(backend, dtype, weights))
        return divided(weights[0], self.temperature), *weights[1:]

    @property
    def calibrated(self) -> FittedState:
        """The state with the division by the temperature folded into the weights."""
        if self.temperature is None:
            return self
        return replace(self, params=divided(self.params, self.temperature), temperature=None)

    def checked(self) -> FittedState:
        """Return the state, marked as checked; raise ValueError if an array is not finite."""
        for name, arrays in self.arrays.items():
            for i, entry in enumerate(arrays):
                if not is_finite(get_backend(leaves(entry)[0]), entry):
                    raise ValueError(
                        f"{name}[{i}] has infinity or NaN, but predictions require finite weights: "
                        "fit again, or load a model saved earlier."
                    )
        return replace(self, is_checked=True)

    def to_host(self, progress: ResumeState | None) -> FittedState:
        """Return a copy in NumPy arrays that can be pickled, with the training's progress."""
        return replace(
            self,
            params=map_leaves(_numpy_copy, self.params),
            batch_stats=map_leaves(_numpy_copy, self.batch_stats),
            scaling=None if self.scaling is None else map_leaves(to_numpy, self.scaling),
            progress=progress,
            is_checked=False,
            copies=DeviceCopies(),
        )

    def to(self, backend: Backend) -> FittedState:
        """Return the state with the weights in arrays of a backend."""
        return self.with_weights(*map_leaves(backend.put, (self.params, self.batch_stats)))


def _numpy_copy(array: Any) -> np.ndarray:
    return np.array(to_numpy(array))


def _weights(network: Network, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights and batch statistics in fitted attributes, as fields of a state."""
    for name in ("coefs_", "intercepts_"):
        for i, array in enumerate(attributes[name]):
            if array is None:
                raise ValueError(
                    f"`{name}[{i}]` must be an array, got None: use zeros for no effect."
                )
    layers = list(map(Dense, attributes["coefs_"], attributes["intercepts_"]))
    others = attributes.get("norms_", []), attributes.get("other_weights_", [])
    return {
        "params": tuple(layers)
        if network.is_flat
        else with_layers(network, chain(layers, *others)),
        "batch_stats": tuple(attributes.get("moments_", ())),
    }


def _state_of_weights(
    attributes: Mapping[str, Any], params: Mapping[str, Any], targets_type: Any
) -> FittedState:
    """Return the state for weights that were assigned to an unfitted estimator."""
    coefs, intercepts = attributes["coefs_"], attributes["intercepts_"]
    sizes = [coefs[0].shape[0], *(b.shape[0] for b in intercepts)]
    for i, W in enumerate(coefs):
        if tuple(W.shape) != tuple(sizes[i : i + 2]):
            raise ValueError(
                f"coefs_[{i}] must have shape {tuple(sizes[i : i + 2])} to match intercepts_, got "
                f"{tuple(W.shape)}."
            )
    for name, off in _UNASSIGNED.items():
        if params.get(name, off) != off:
            raise ValueError(
                f"{name} must be {off} with assigned coefs_ and intercepts_, got {params[name]!r}: "
                f"fit the estimator, or set {name}={off}."
            )
    targets = targets_type.of_weights(attributes, sizes[-1], params)
    config = resolve_config(params, sizes[0], targets, tuple(sizes[1:-1]))
    network = config.rules.network
    is_single = all(str(W.dtype).endswith("float32") for W in coefs)
    return FittedState(
        network,
        config.rules.loss,
        attributes.get("out_activation_", config.output),
        targets,
        n_features=sizes[0],
        input_scaling=None,
        dtype="float32" if is_single else "float64",
        seed=params["random_state"] if isinstance(params["random_state"], int) else 0,
        **_weights(network, attributes),
    )


def fitted_state(estimator: Any) -> FittedState:
    """Return the state of an estimator, with the arrays in the lists that users can change."""
    attributes = vars(estimator)
    known = attributes.get("_state")
    if known is not None:
        state: FittedState = known
        if known.copies.is_shared:
            deleted = {*known.arrays, "out_activation_"} - attributes.keys()
            if deleted:
                raise AttributeError(f"{min(deleted)} was deleted: assign it, or fit again.")
            state = known.with_arrays(attributes)
        state = state.with_activation(estimator.activation)
        if state is not known:
            attributes["_state"] = state
        return state
    if "coefs_" not in attributes:
        check_is_fitted(estimator)
    state = _state_of_weights(attributes, estimator._params(), estimator._targets_type)
    state.copies.is_shared = True
    publish(estimator, state, History.read(attributes))
    return state


def set_weights(
    estimator: Any, coefs: Sequence[Any], intercepts: Sequence[Any], classes: Any = None
) -> Any:
    """Set the weights, and thereby the layer widths, of an unfitted estimator, and return it."""
    if len(coefs) != len(intercepts) or not coefs:
        raise ValueError(
            "`coefs` and `intercepts` must have one array for each layer, the output layer last, "
            f"got {len(coefs)} and {len(intercepts)}."
        )
    estimator.set_params(hidden_layer_sizes=tuple(int(b.shape[0]) for b in intercepts[:-1]))
    known = {}
    if classes is not None:
        is_several = np.ndim(classes[0]) > 0
        known["classes_"] = [*map(np.asarray, classes)] if is_several else np.asarray(classes)
    vars(estimator).update(known, coefs_=list(coefs), intercepts_=list(intercepts))
    state, n_outputs = fitted_state(estimator), int(intercepts[-1].shape[0])
    if classes is not None and state.targets.n_outputs != n_outputs:
        raise ValueError(
            f"The last layer must have {state.targets.n_outputs} outputs for "
            f"{len(estimator.classes_)} classes, got {n_outputs}."
        )
    return estimator


def publish(estimator: Any, state: FittedState, history: History | None = None) -> None:
    """Set the fitted attributes of an estimator."""
    attributes = vars(estimator)
    for name in _ARRAYS:
        attributes.pop(name, None)
    attributes.pop("columns_", None)
    if state.columns is not None:
        attributes["columns_"] = state.columns
    # Create new lists, since users may assign to their entries.
    attributes.update({name: list(arrays) for name, arrays in state.arrays.items()})
    attributes.update(
        _state=state,
        n_features_in_=state.n_columns,
        n_layers_=len(state.network.widths),
        n_outputs_=state.network.sizes[-1],
        out_activation_=state.output,
    )
    if state.targets.classes is not None:
        attributes["classes_"] = state.targets.classes
    if history is not None:
        attributes.update(history.attributes())


def host_copy(estimator: Any) -> Any:
    """Return a copy in NumPy arrays that a fit in progress does not change.

    Unlike a pickle, the copy has no optimizer state for the next fit, and no scikit-learn
    callbacks.
    """
    copied: Any = object.__new__(type(estimator))
    attributes = vars(estimator).items()
    # Copy the lists, since a fit appends to them.
    vars(copied).update({k: list(v) if isinstance(v, list) else v for k, v in attributes})
    # Leave out the trainer, and scikit-learn's callbacks and references to them.
    for name in ("_training", "_skl_callbacks", "_callback_fit_ctx", "_skl_callbacks_to_teardown"):
        vars(copied).pop(name, None)
    publish(copied, fitted_state(estimator).to_host(None))
    return copied
