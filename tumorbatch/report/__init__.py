"""How reports look: one HTML page, charts, one style."""
