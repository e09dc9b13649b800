"""The enumerations of cuBLAS that cuBLASLt takes."""

import enum
from typing import Any


def _numbered(name: str, table: str, module: str) -> Any:
    pairs = (entry.split("=") for entry in table.split())
    return enum.IntEnum(name, {key: int(number) for key, number in pairs}, module=module)


ComputeType = _numbered(
    "ComputeType",
    "COMPUTE_32F=68 COMPUTE_64F=70 COMPUTE_32F_FAST_16F=74 COMPUTE_32F_FAST_16BF=75"
    " COMPUTE_32F_FAST_TF32=77",
    __name__,
)
Status = _numbered(
    "Status", "SUCCESS=0 NOT_INITIALIZED=1 INVALID_VALUE=7 NOT_SUPPORTED=15", __name__
)
