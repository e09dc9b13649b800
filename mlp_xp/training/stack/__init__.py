"""Many fits at once: models that train as one program, or in threads.

Their loops are those of `loop`.
"""
