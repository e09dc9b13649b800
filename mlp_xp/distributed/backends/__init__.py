"""What each library does where ranks share a step: how it sums, compiles and shares memory.

A file has a backend of `mlp_xp.backends` with these parts replaced; other libraries sum in the
host's memory.
"""
