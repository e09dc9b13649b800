"""Run folders: creating, reading and summarizing them."""
