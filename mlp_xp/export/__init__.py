"""Conversion of fitted estimators to C and ONNX, and to and from PyTorch and scikit-learn.

Unsupported settings raise an error.
"""

from __future__ import annotations

from mlp_xp.export._c import to_c
from mlp_xp.export._onnx import to_onnx
from mlp_xp.export._pipelines import register_skl2onnx
from mlp_xp.export._sklearn import from_sklearn, to_sklearn
from mlp_xp.export._torch import from_torch, to_torch

__all__ = [
    "from_sklearn",
    "from_torch",
    "register_skl2onnx",
    "to_c",
    "to_onnx",
    "to_sklearn",
    "to_torch",
]
