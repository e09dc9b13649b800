"""The enumerations of cuBLAS that cuBLASLt takes."""

from __future__ import annotations

import enum


class ComputeType(enum.IntEnum):
    """Types of the arithmetic of a product."""

    COMPUTE_16F = 64
    COMPUTE_32F = 68
    COMPUTE_32F_PEDANTIC = 69
    COMPUTE_64F = 70
    COMPUTE_32F_FAST_16F = 74
    COMPUTE_32F_FAST_16BF = 75
    COMPUTE_32F_FAST_TF32 = 77


class Operation(enum.IntEnum):
    """What happens to a matrix before a product."""

    N = 0
    T = 1


class Status(enum.IntEnum):
    """What a call returns."""

    SUCCESS = 0
    NOT_INITIALIZED = 1
    ALLOC_FAILED = 3
    INVALID_VALUE = 7
    ARCH_MISMATCH = 8
    EXECUTION_FAILED = 13
    INTERNAL_ERROR = 14
    NOT_SUPPORTED = 15
