"""Videos in, cached features out."""
