"""The command line, one module for each command: options, printed sentences and tables.

Nothing here decides or computes; a command parses, calls one function, and prints its receipt.
"""
