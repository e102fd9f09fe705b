"""Closed forms on plain numbers and arrays: SI in, SI out; no schema, no YAML, no I/O.

Every function broadcasts its arguments. Units stand in brackets in the docstrings.
"""
