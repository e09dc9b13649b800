"""CuPy on a CUDA GPU: few launches per step, and many steps with one launch.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.

- `backend`: arrays and transfers; `probing`: whether a device works
- `namespace`: the Array API in which nothing waits for the device
- `kernels`: all replacements except `products`; `rendering` lists every kernel, `multi_tensor`
  processes trees, `sparse` has products of sparse rows
- `products`: dense layers with products by `cublaslt`, which a graph can contain
- `captured`: steps as CUDA graphs, for `mlp_xp.backends._cuda.captured`
"""
