"""Kernel calls, the thread pool that runs them, aligned memory, and processor modes.

The machine code is in `machine_code`.
"""
