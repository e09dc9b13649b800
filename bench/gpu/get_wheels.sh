#!/usr/bin/env bash
# Put what a machine with a GPU and without a package index may lack into wheels/, some 35 MB.
#
#   bench/gpu/get_wheels.sh [PYTHON [CUDA]]         (default: 3.12 13)
#
# check.sh installs what is missing from there, without dependencies, into a folder of its own, and
# trains on the images of CIFAR-10 in wheels/data. They are written where this machine has CIFAR-10
# (mlp-xp data cifar10), or can fetch it.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(array-api-compat array-api-extra array-api-strict nvmath-python cuda-pathfinder
  cuda-core "cuda-bindings==${2:-13}.*" pytest-benchmark py-cpuinfo)
rm -f wheels/*.whl
python -m pip download --quiet --no-deps --only-binary=:all: --dest wheels \
  --python-version "${1:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_24_x86_64 "${packages[@]}"
python -m bench.gpu.wheels "${2:-13}"
du -sh wheels
