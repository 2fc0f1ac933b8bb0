"""The command line: one module a command, nothing but options, sentences and tables."""
