"""Kernels under the sanitizers of addresses and of undefined behavior, in other processes."""

import os
import subprocess
import sys

import pytest

# A kernel that writes past the end of 4 numbers, or computes one too large, by its argument.
RUN = """
import sys, cupy, numpy as np
n = np.int32(sys.argv[1])
code = 'extern "C" __global__ void f(int* x, int n) { x[n - 4] = n * 1000; }'
cupy.RawKernel(code, "f")((1,), (1,), (cupy.zeros(4, np.int32), n))
"""


def sanitized(*command: str) -> subprocess.CompletedProcess:
    find = ["c++", "-print-file-name=libasan.so"]
    library = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    more = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "STAND_IN_SANITIZE": "1"}
    command = (sys.executable, *command)
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | more)


@pytest.mark.parametrize(
    ("n", "message"), [(7, ""), (8, "use-after-poison"), (3_000_000, "signed integer overflow")]
)
def test_sanitizers_detect_out_of_bounds_access_and_overflow(n, message) -> None:
    done = sanitized("-c", RUN, str(n))
    assert (done.returncode == 0) == (not message), done.stderr
    assert message in done.stderr


def test_kernels_pass_the_sanitizers(backend_spec) -> None:
    which = "float32" if backend_spec.endswith("0") else "not float32"
    options = ("-q", "-n", "0", "-m", "", "--grid=values", "--only-backends")
    where = (f"--backends={backend_spec}", "-p", "no:cacheprovider", "-k", which)
    done = sanitized("-m", "pytest", *options, *where, "tests/backends/test_kernels.py")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
