#!/usr/bin/env bash
# Put the runtime that docs/_static/browser/index.html names into the cache, for test_browser.py.
set -euo pipefail
page=$(dirname "$0")/../../docs/_static/browser/index.html
version=$(sed -nE 's|.*npm/onnxruntime-web@([0-9.]+)/dist.*|\1|p' "$page")
folder=${MLP_XP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mlp-xp}/onnxruntime-web-$version
[ -d "$folder" ] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "onnxruntime-web@$version"
mkdir "$work/parts"
tar -xzf "$work"/*.tgz -C "$work/parts" --strip-components=2 \
    package/dist/ort.wasm.min.mjs package/dist/ort-wasm-simd-threaded.{mjs,wasm}
mkdir -p "$(dirname "$folder")"
mv "$work/parts" "$folder"
