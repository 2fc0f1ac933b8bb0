"""TensorFlow set up before any test module imports it."""

from tumorbatch.runtime import load_tensorflow

load_tensorflow()
