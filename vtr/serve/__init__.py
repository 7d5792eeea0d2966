"""The web page: a small local server over a library, and over the results of a workspace."""
