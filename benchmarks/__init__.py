"""What is promised in figures, measured beside the usual way: ``python -m benchmarks NAME|all [--json] [--quick]``."""
