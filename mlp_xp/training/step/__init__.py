"""One training step: its inputs, loss, gradient and update, and the numbers it needs.

Pure functions, which a backend may compile.
"""
