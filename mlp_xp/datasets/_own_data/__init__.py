"""The user's own data: tables and folders of images, checked and converted to arrays.

Official data sets and their cache are in the folder above.
"""
