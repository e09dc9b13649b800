"""The processes of a fit, and the settings that must be the same in all processes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from mlp_xp._utils.optional import install_command
from mlp_xp.backends import Backend, to_numpy
from mlp_xp.estimators.checks.keywords import check_fit_keywords
from mlp_xp.recipes.parameters import CLASSIFIER
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess

_Method = TypeVar("_Method", bound=Callable[..., Any])

# Parameters that may differ between processes: each process may use its own device, and only one
# process prints and runs callbacks.
_OWN = {name for name, row in CLASSIFIER.items() if row.own_per_rank}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def processes_of(setting: Any) -> SingleProcess:
    """Return the processes that the parameter `distributed` specifies."""
    if setting is None:
        return SINGLE_PROCESS
    from mlp_xp.distributed import join_ranks

    return join_ranks(setting)


def validating(fit: _Method) -> _Method:
    """Wrap a fit method so that all processes raise an error if one has an invalid parameter."""

    @functools.wraps(fit)
    def method(self: Any, *arguments: Any, **settings: Any) -> Any:
        if settings:
            check_fit_keywords(fit, self, settings)
        if self.distributed is not None:
            from mlp_xp.distributed import Distributed

            if isinstance(self.distributed, str | Distributed):
                with processes_of(self.distributed).sharing_errors():
                    self._validate_params()
        return fit(self, *arguments, **settings)

    return cast(_Method, method)


def describe_fit(
    params: Mapping[str, Any], kept: Any, resume: Any, *samples: Any
) -> dict[str, str]:
    """Return the parameters and other arguments of a fit as text, by name.

    ``kept`` is a model whose training may continue; ``samples`` are sample_weight, X_val, y_val and
    sample_weight_val.
    """
    texts = {name: text_of(value) for name, value in params.items() if name not in _OWN}
    state = None if kept is None else vars(kept).get("_state")
    texts["a fit to resume"] = str(resume is not None)
    texts["a network to continue with"] = str(state is not None)
    if state is not None:
        texts["its biases"] = str(float(np.sum(to_numpy(state.arrays["intercepts_"][-1]))))
    names = "sample_weight", "X_val", "y_val", "sample_weight_val"
    pairs = zip(names, samples, strict=True)
    return texts | {name: "None" if array is None else "given" for name, array in pairs}


def text_of(value: Any) -> str:
    """Return a parameter as text that is the same in every process."""
    if isinstance(value, np.random.RandomState):
        return "a RandomState"  # Do not compare its state, since a snapshot has the seed it drew.
    if hasattr(value, "tolist"):  # NumPy would abbreviate a long array.
        value = value.tolist()
    return _ADDRESS.sub("", repr(value))


def describe_backend(backend: Backend) -> dict[str, str]:
    """Return the backend's properties that must be the same in all processes, as text by name."""
    return {"the backend": backend.name, "machine code": str(backend.has_machine_code)}


def advise_numba() -> str:
    """Return advice on what to install if the processes have different backends."""
    return f", e.g. numba on each ({install_command('fast')})"
