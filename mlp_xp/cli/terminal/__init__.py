"""A command's terminal: lines, output, Ctrl-C and errors.

Nothing here is slow to import or depends on the model.
"""
