"""Each peer as its own documentation would write it, with the best options that it offers."""
