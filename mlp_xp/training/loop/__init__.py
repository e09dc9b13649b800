"""The loop of a fit: it asks for epochs, receives their records, and decides when to end.

What trains an epoch is the trainer, or a stack of models.
"""
