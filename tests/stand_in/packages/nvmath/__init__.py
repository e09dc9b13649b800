"""The part of nvmath that the library uses: products by cuBLASLt on the stand-in for CuPy."""

import enum

__all__ = ["CudaDataType", "bindings"]


class CudaDataType(enum.IntEnum):
    CUDA_R_16F = 2
    CUDA_R_32F = 0
    CUDA_R_64F = 1


from nvmath import bindings  # noqa: E402 - as the real package does
