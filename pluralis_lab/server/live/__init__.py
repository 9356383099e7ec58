"""Live runs: one tail a run, its picture's JSON made once, shared by all viewers."""
