"""The virtual engine: all workers of a run in one process, over virtual links, deterministic to the bit from the seed."""

from pluralis_lab.links import Links
from pluralis_lab.engines.virtual.swarm import Kill, VirtualSwarm

__all__ = ["Kill", "Links", "VirtualSwarm"]
