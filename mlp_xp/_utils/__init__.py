"""What every room uses: array types, trees of arrays, random numbers, files, signals, imports.

Each module does one small thing and knows nothing of networks or training. Nothing here is public.
Anything that knows what a layer, a backend or an estimator is lives elsewhere.
"""
