"""One training step: its inputs, loss, gradient and update, and the table of its numbers.

Pure functions, which a backend may compile.
"""
