"""How the replicas' gradients become one: the aggregators that a spec can name."""

from pluralis_lab.parts import Mean

__all__ = ["Mean"]
