"""The model card of a run: numbers measured on its test rows, as Markdown and HTML."""
