#!/usr/bin/env bash
# Download what a machine with a GPU and without a package index may lack into wheels/, under 16 MB.
#
#   bench/get_wheels.sh [PYTHON]         (default: 3.12)
#
# gpu_check.sh installs what is missing from there, without dependencies, into a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(array-api-compat array-api-extra array-api-strict nvmath-python cuda-pathfinder
  cuda-core cuda-bindings pytest-benchmark py-cpuinfo)
python -m pip download --quiet --no-deps --only-binary=:all: --dest wheels \
  --python-version "${1:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_24_x86_64 "${packages[@]}"
du -sh wheels
