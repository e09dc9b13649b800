"""What a command shares with its terminal: lines, output, Ctrl-C and errors.

Nothing here is slow to import, or knows what is trained.
"""
