"""Data of the user: tables and folders of images, checked and made into arrays.

Official data sets and their cache are elsewhere.
"""
