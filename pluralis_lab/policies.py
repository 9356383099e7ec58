"""How contributions become shares: the policies that a spec can name."""

from pluralis_lab.parts import Work

__all__ = ["Work"]
