"""From a program on global arrays to what one rank of a decomposition computes of it.

Nothing but index ranges changes: each rank computes the values of its own block, and as much
around it as those need, by the same expressions in the same order as one process would. Values
are therefore the same bits for any number of ranks; only sums over the grid are added up by ranks.
"""

from backsweep.passes.partition.outer import Local, partition

__all__ = ["Local", "partition"]
