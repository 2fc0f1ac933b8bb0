"""Read TIFF files: directories, compressed strips and tiles, and their pixels.

Other formats are decoded by modules next to this package.
"""
