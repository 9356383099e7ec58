"""The phases of a worker, by the names that records, pictures and people use."""

HOLDING = frozenset({"warming", "active", "serving"})
"""Of a worker that has its stage's weights and takes part: before its first step with others, after it, and after the last."""
