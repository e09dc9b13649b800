"""CuPy on a CUDA GPU: few launches per step, and many steps with one launch.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.

- `backend`: where arrays are, transfers, batches that are copied during the computation
- `kernels`: one launch for a gather, one for an update; `rendering` lists every kernel
- `products`: dense layers, by the products of `cublaslt`, which may be captured
- `captured`: steps as CUDA graphs
"""
