#!/usr/bin/env bash
# Run the tests and the benchmarks on every GPU backend that is installed here, and write down what
# came of it: one JSON and one Markdown file, with a dated name.
#
#   bench/gpu_check.sh [FOLDER]          (default: bench/history)
#
# Needs a CUDA GPU and what is installed; no network. Takes at most nine minutes. Ends with an error
# if no GPU backend ran or anything failed. PYTHON names the interpreter. A trial run without a GPU:
#
#   MLP_XP_CHECK=torch:cpu MLP_XP_CHECK_IMAGES=256 bench/gpu_check.sh /tmp/check
set -uo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/history}")
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
wanted=${MLP_XP_CHECK:-cupy,torch:cuda,jax:cuda}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# JAX would take most of the memory, which the three have to share.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

usable=$("$python" bench/gpu_summary.py usable "$wanted") || exit 1

# Out of time, pytest is interrupted, so that it still writes what it has.
limit() { timeout --signal=INT --kill-after=10 "$@"; }

echo "Tests on $usable"
# What takes no backend has been tested elsewhere. JAX, which compiles most, is named last: pytest
# goes through a backend after the other, and what time is too short for is missing there.
mapfile -t files < <(grep -lE "^def test_.*\bbackend\b" tests/test_*.py)
limit 330 "$python" -m pytest "${files[@]}" -q -p no:cacheprovider \
    --backends="$usable" --junitxml="$scratch/tests.xml"
tests=$?

echo "Benchmarks on $usable"
limit 170 "$python" -m pytest bench -q -p no:cacheprovider --benchmark-enable \
    --bench-backends="$usable" --bench-images="${MLP_XP_CHECK_IMAGES:-50000}" --bench-rounds=5 \
    --benchmark-columns=median,iqr --benchmark-json="$scratch/bench.json" \
    --junitxml="$scratch/bench.xml"
bench=$?

"$python" bench/gpu_summary.py write "$scratch" "$folder" \
    --wanted "$wanted" --statuses "$tests" "$bench"
