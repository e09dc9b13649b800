#!/usr/bin/env bash
# Run the tests and the benchmarks on every installed GPU backend, and write the results into one JSON
# and one Markdown file with a dated name.
#
#   bench/gpu_check.sh [FOLDER]          (default: bench/history)
#
# Needs a CUDA GPU; no network. Takes at most nine minutes. Ends with an error
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

# JAX would take most of the memory, which the backends share.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

usable=$("$python" bench/gpu_summary.py usable "$wanted") || exit 1

# At the time limit pytest is interrupted, so that it still writes its results.
limit() { timeout --signal=INT --kill-after=10 "$@"; }

echo "Tests on $usable"
# Only tests that take a backend. JAX, which compiles most, comes last: pytest runs one backend after
# the other, and the time limit cuts the last.
mapfile -t files < <(grep -rlE --include="test_*.py" "^def test_.*\bbackend\b" tests | sort)
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
