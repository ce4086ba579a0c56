"""Displays of clusters of pixels and of the structure in images."""
