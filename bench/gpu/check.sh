#!/usr/bin/env bash
# Test and measure every GPU library on this machine, in one call of at most nine minutes.
#
#   bench/gpu/check.sh [FOLDER]          (default: bench/history)
#
# It installs missing packages from wheels/ (see get_wheels.sh) or from a package index, and prints first
# which libraries work and which packages remain missing. Results are written every five seconds, so they
# are kept if the run is killed. PYTHON is the interpreter, and MLP_XP_CHECK_SECONDS the time limit
# (default: 530). For a trial with small networks and without a GPU, use the tests' stand-in for CuPy:
#
#   PYTHONPATH=tests/stand_in/packages MLP_XP_CHECK=cupy,torch:cpu MLP_XP_CHECK_TINY=1 bench/gpu/check.sh /tmp/check
set -uo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/../history}")
cd "$(dirname "$0")/../.." || exit 2
# This clone comes first on the path. All paths are absolute, because some tests run in other folders.
IFS=: read -ra paths <<<"$PWD${PYTHONPATH:+:$PYTHONPATH}:$PWD/wheels/installed"
PYTHONPATH=$(realpath -mq "${paths[@]}" | paste -sd:)
# JAX leaves GPU memory to other libraries.
export PYTHONPATH PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false MPLBACKEND=agg
exec "${PYTHON:-python3}" -m bench.gpu.check "$folder"
