"""Inverse problems that are ready to run: simulations from `models`, solved by `inverse`."""
