"""Inverse problems that are ready to be solved: variables, misfit, fields of the result."""
