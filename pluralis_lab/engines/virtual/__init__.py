"""The virtual engine: all workers of a run in one process, over virtual links, deterministic to the bit from the seed."""

from pluralis_lab.engines.virtual.moments import Attachment, Departure, Freeze, Kill
from pluralis_lab.engines.virtual.swarm import VirtualSwarm
from pluralis_lab.links import Links

__all__ = ["Attachment", "Departure", "Freeze", "Kill", "Links", "VirtualSwarm"]
