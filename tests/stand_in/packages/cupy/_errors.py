"""Errors of the CUDA runtime, with the numbers and texts of CUDA 12."""

INVALID_VALUE = 1
INVALID_DEVICE = 101
ILLEGAL_ADDRESS = 700
CAPTURE_UNSUPPORTED = 900
CAPTURE_INVALIDATED = 901
CAPTURE_MERGE = 902
CAPTURE_UNMATCHED = 903
CAPTURE_UNJOINED = 904
CAPTURE_ISOLATION = 905
CAPTURE_IMPLICIT = 906
CAPTURED_EVENT = 907

_TEXTS = {
    INVALID_VALUE: ("cudaErrorInvalidValue", "invalid argument"),
    INVALID_DEVICE: ("cudaErrorInvalidDevice", "invalid device ordinal"),
    ILLEGAL_ADDRESS: ("cudaErrorIllegalAddress", "an illegal memory access was encountered"),
    CAPTURE_UNSUPPORTED: (
        "cudaErrorStreamCaptureUnsupported",
        "operation not permitted when stream is capturing",
    ),
    CAPTURE_INVALIDATED: (
        "cudaErrorStreamCaptureInvalidated",
        "operation failed due to a previous error during capture",
    ),
    CAPTURE_MERGE: (
        "cudaErrorStreamCaptureMerge",
        "operation would result in a merge of separate capture sequences",
    ),
    CAPTURE_UNMATCHED: (
        "cudaErrorStreamCaptureUnmatched",
        "capture was not initiated in this stream",
    ),
    CAPTURE_UNJOINED: ("cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"),
    CAPTURE_ISOLATION: (
        "cudaErrorStreamCaptureIsolation",
        "dependency created on uncaptured work in another stream",
    ),
    CAPTURE_IMPLICIT: (
        "cudaErrorStreamCaptureImplicit",
        "operation would make the legacy stream depend on a capturing blocking stream",
    ),
    CAPTURED_EVENT: (
        "cudaErrorCapturedEvent",
        "operation not permitted on an event last recorded in a capturing stream",
    ),
}


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__("{}: {}".format(*_TEXTS[status]))


class RaceError(RuntimeError):
    """Two accesses to the same memory that nothing orders; CUDA would not notice."""
