"""Several fits at once: models trained in one compiled step, or in threads.

Each fit has its own loop, defined in `loop`.
"""
