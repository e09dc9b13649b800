"""The folder of a run: created, read and summarized.

Training is in `training`, plots are in `report`.
"""
