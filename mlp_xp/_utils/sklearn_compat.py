"""Features that scikit-learn has had since version 1.9, with no-ops for earlier versions."""

from __future__ import annotations

import sys
import warnings
from contextvars import Context, ContextVar, copy_context
from types import FrameType
from typing import Any

from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

__all__ = [
    "CallbackSupportMixin",
    "as_sparse",
    "caller_frame",
    "check_same_namespace",
    "copy_context_for_thread",
    "warn_caller",
    "warn_unconverged",
    "with_callbacks",
]

_THEIRS = "sklearn.neural_network._multilayer_perceptron"
_BETWEEN = {"concurrent", "contextlib", "joblib", "mlp_xp", "sklearn", "threading"}
_CALLER: ContextVar[FrameType] = ContextVar("caller")  # The frame that started this thread.


def caller_frame() -> FrameType:
    """Return the nearest calling frame outside this package and scikit-learn."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        if frame.f_back is None:
            return _CALLER.get(frame)
        frame = frame.f_back
    return frame


def copy_context_for_thread() -> Context:
    """Return the context for a new thread, so that its warnings name this thread's caller."""
    context = copy_context()
    context.run(_CALLER.set, caller_frame())
    return context


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, with the caller's line as the location."""
    frame = caller_frame()
    file, line, names = frame.f_code.co_filename, frame.f_lineno, frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, file, line, names.get("__name__"), registry)


def warn_unconverged(message: str) -> None:
    """Warn at the caller's line under scikit-learn's module name, so that users' filters match.

    Every fit warns, as in scikit-learn.
    """
    frame = caller_frame()
    file, line = frame.f_code.co_filename, frame.f_lineno
    warnings.warn_explicit(message, ConvergenceWarning, file, line, module=_THEIRS)


try:
    from sklearn.utils import _align_api_if_sparse
except ImportError:

    def _align_api_if_sparse(array: Any) -> Any:
        return sparse.csr_matrix(array)


def as_sparse(array: Any) -> Any:
    """Convert an array to the CSR type that scikit-learn uses for predictions."""
    return _align_api_if_sparse(sparse.csr_array(array))


try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
    from sklearn.utils._array_api import check_same_namespace
except ImportError:

    class _Context:
        """A callback context that does nothing."""

        def subcontext(self, **settings: Any) -> _Context:
            return self

        def call_on_fit_task_begin(self, **details: Any) -> None:
            pass

        def call_on_fit_task_end(self, **details: Any) -> bool:
            return False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An estimator that does not support scikit-learn's callbacks."""

        def _init_callback_context(self, **settings: Any) -> _Context:
            return _Context()

    def with_callbacks(method: Any) -> Any:
        """Return the method unchanged."""
        return method

    def check_same_namespace(X: Any, estimator: Any, *, attribute: str, method: str) -> None:
        """Skip the check."""
