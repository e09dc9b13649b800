"""Infinity and NaN in training: detection, diagnosis, and the error that names the cause.

The guard of a fit is created in `loop`.
"""
