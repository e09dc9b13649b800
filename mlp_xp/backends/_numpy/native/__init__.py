"""Calls of machine code, the thread pool that runs them, memory, and processor modes.

The machine code is in `machine_code`.
"""
