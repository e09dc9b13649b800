"""CuPy on a CUDA GPU: few kernel launches per step, and many steps per graph launch.

This folder contains no formulas: `nn`, `optimizers` and `backends.kernels` define them.

- `backend`: arrays and transfers; `probing`: checks whether a device works
- `namespace`: the Array API without functions that wait for the device
- `kernels`: all kernels except matrix products; `rendering` lists the kernels, `fusion` and
  `elementwise` run what the compiler prints, `multi_tensor` is for trees of arrays, and `sparse` is
  for sparse rows
- `products`: dense layers with the matrix products of `cublaslt`, which a CUDA graph can capture
- `captured`: CUDA graphs in CuPy, for `mlp_xp.backends._cuda.captured`
"""
