"""Protocols, one file each: which queries are asked of which videos, and what counts as right.

A protocol is a module in this folder with `PROTOCOL: Protocol`; the file name is the option name,
with `_` shown as `-`. It declares the dataset and the splits, the counts that the field's numbers
rest on and the sha256 of its sorted video ids, one a line; all are checked whenever it is loaded.
"""
