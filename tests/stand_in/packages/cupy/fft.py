"""Nothing: mlp_xp has no Fourier transforms, but array-api-compat imports the module."""
