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

_TEXTS = """
1 cudaErrorInvalidValue: invalid argument
101 cudaErrorInvalidDevice: invalid device ordinal
700 cudaErrorIllegalAddress: an illegal memory access was encountered
900 cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing
901 cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture
902 cudaErrorStreamCaptureMerge: operation would result in a merge of separate capture sequences
903 cudaErrorStreamCaptureUnmatched: capture was not initiated in this stream
904 cudaErrorStreamCaptureUnjoined: capturing stream has unjoined work
905 cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream
906 cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on a capturing\
 blocking stream
907 cudaErrorCapturedEvent: operation not permitted on an event last recorded in a capturing stream
"""


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        texts = dict(line.split(" ", 1) for line in _TEXTS.strip().splitlines())
        super().__init__(texts[str(status)])


class RaceError(RuntimeError):
    """Two accesses to the same memory that nothing orders; CUDA would not notice."""
