"""Stage 1, imported as `tumorbatch.preprocess`: images to shards. Never loads TensorFlow."""
