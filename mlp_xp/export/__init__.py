"""Ways out and in: fitted estimators as ONNX models, PyTorch modules and scikit-learn's MLPs.

What cannot be expressed there is refused.
"""

from __future__ import annotations

from mlp_xp.export._onnx import to_onnx
from mlp_xp.export._pipelines import register_skl2onnx
from mlp_xp.export._sklearn import from_sklearn, to_sklearn
from mlp_xp.export._torch import from_torch, to_torch

__all__ = ["from_sklearn", "from_torch", "register_skl2onnx", "to_onnx", "to_sklearn", "to_torch"]
