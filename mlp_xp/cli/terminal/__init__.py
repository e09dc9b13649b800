"""Terminal output, Ctrl-C and error messages of the commands; no module imports slow libraries."""
