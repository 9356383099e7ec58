"""The usual ways that the benchmarks compare with, each a process of its own."""
