"""The HDF5 feature cache: neither torch nor a decoder is needed to read it."""
