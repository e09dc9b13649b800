"""Kernel calls, the thread pool that runs them, and the memory and processor modes they need.

The machine code itself is in `machine_code`.
"""
