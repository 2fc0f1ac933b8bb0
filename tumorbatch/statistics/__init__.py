"""Intervals, tests and figures of a binary classifier; imports no stage."""
