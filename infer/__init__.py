"""Stage 3, imported as `tumorbatch.infer`: a folder and a model bundle to a table of predictions."""
