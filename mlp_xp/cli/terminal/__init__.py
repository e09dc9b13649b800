"""Terminal output, Ctrl-C and error messages of the commands.

These modules import no slow libraries.
"""
