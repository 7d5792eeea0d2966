"""One file per group of commands; heavy imports live inside the functions."""
