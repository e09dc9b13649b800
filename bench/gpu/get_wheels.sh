#!/usr/bin/env bash
# Download packages that a GPU machine without a package index may lack to wheels/ (about 40 MB).
#
#   bench/gpu/get_wheels.sh [PYTHON [CUDA]]         (default: 3.12 13)
#
# check.sh installs missing packages from wheels/, without dependencies, into wheels/installed, and trains
# on the images in wheels/data. To write these images, this machine must have CIFAR-10 or download it.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(array-api-compat array-api-extra array-api-strict nvmath-python cuda-pathfinder
  cuda-core "cuda-bindings==${2:-13}.*" pytest-benchmark py-cpuinfo)
rm -f wheels/*.whl
python -m pip download --quiet --no-deps --only-binary=:all: --dest wheels \
  --python-version "${1:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_24_x86_64 "${packages[@]}"
python -m bench.gpu.install
du -sh wheels
