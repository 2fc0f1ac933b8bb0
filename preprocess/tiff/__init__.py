"""TIFF: directories, compressed strips and tiles, and their pixels."""
