#!/usr/bin/env bash
# Test and measure every GPU library on this machine, in one call of at most nine minutes.
#
#   bench/gpu/check.sh [FOLDER]          (default: bench/history)
#
# It installs what is missing from wheels/ (bench/gpu/get_wheels.sh fills it) or the package index, where pip
# reaches one, and says first what works and what stays missing.
# JSON and Markdown are written anew every five seconds, so a run that is cut keeps what it has.
# PYTHON names the interpreter, MLP_XP_CHECK_SECONDS the time (default 530). A trial without a GPU, with
# small networks, here with the tests' stand-in for CuPy:
#
#   PYTHONPATH=tests/stand_in/packages MLP_XP_CHECK=cupy,torch:cpu MLP_XP_CHECK_TINY=1 bench/gpu/check.sh /tmp/check
set -uo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/../history}")
cd "$(dirname "$0")/../.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m bench.gpu.check "$folder"
