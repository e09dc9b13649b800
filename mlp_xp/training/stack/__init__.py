"""Many fits at once: models that train in one compiled step, or in threads.

Each has its own loop, from `loop`.
"""
