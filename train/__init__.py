"""Stage 2, imported as `tumorbatch.train`: shards to a model bundle."""
