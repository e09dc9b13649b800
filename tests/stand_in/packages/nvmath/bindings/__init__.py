"""The libraries of the stand-in."""

from nvmath.bindings import cublas, cublasLt

__all__ = ["cublas", "cublasLt"]
