"""Look at a folder of images before anything is made of it."""
