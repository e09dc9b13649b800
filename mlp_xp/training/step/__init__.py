"""One training step: its inputs, loss, gradient and update, and the scalars it needs.

These are pure functions, which a backend may compile.
"""
