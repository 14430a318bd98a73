"""The contestants: hand-written kernels and the peers. Nothing here uses the engine."""
