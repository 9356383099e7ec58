"""Contributions: who did which work, who says so, what it is worth, and how anyone checks it.

The path of a piece of work, one module a step:
`keys` and `receipts` (signed by the worker and by its neighbour), `authorisations` and `admission` (which signatures
count), `policies` and `tally` (units an epoch), `shares` and `merkle` (who is paid what), `attestation` and `closing`
(a quorum signs the root), `audit` (an observer recomputes all of it). `agreement` is the live picture of gradients.

Nothing here reads a clock, a network or a file, except `HotKey.save` and `HotKey.load` their own key file. Import the
modules by name: the package itself loads none of them.
"""
