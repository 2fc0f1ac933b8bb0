"""Several stages in a row: what commands like `compare` and `experiment` do."""
