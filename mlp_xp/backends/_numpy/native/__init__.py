"""Calls of machine code, the thread pool that runs them, and memory and processor modes.

The machine code is in `machine_code`.
"""
