"""Transformations of functions: thin layers over passes and runtime."""
