"""Tracing: plain NumPy code in, program out."""
