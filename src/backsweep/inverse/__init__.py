"""Inversion: misfits, unknowns, regularisation, optimisers."""
