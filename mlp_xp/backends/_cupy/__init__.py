"""CuPy on a CUDA GPU: few launches per step, and many steps with one launch.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.

- `backend`: where arrays are, and transfers; `probing`: whether a device works
- `namespace`: the Array API in which nothing waits for the device
- `kernels`: all replacements but `products`; `rendering` lists every kernel, `multi_tensor` walks
  over trees, `sparse` has products of sparse rows
- `products`: dense layers, by the products of `cublaslt`, which a graph can hold
- `captured`: steps as CUDA graphs, for `mlp_xp.backends._cuda.captured`
"""
