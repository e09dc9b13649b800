"""The folder of a run: created, read and summarized.

How a network is trained, and what is drawn of it, is in `training` and `report`.
"""
