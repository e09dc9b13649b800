"""Terminal output, Ctrl-C and error messages of the commands; imports nothing slow."""
