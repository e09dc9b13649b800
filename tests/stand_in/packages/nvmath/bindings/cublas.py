"""The enumerations of cuBLAS that cuBLASLt takes."""

import enum


class ComputeType(enum.IntEnum):
    """Types of the arithmetic of a product."""

    COMPUTE_32F = 68
    COMPUTE_64F = 70
    COMPUTE_32F_FAST_16F = 74
    COMPUTE_32F_FAST_16BF = 75
    COMPUTE_32F_FAST_TF32 = 77


class Status(enum.IntEnum):
    """What a call returns."""

    SUCCESS = 0
    NOT_INITIALIZED = 1
    INVALID_VALUE = 7
    NOT_SUPPORTED = 15
