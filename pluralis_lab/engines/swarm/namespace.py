"""Workers in network namespaces of this machine, each with links of its own that the kernel can shape (Linux, as root).

So a run is measured on slow links without slow links: ``ip netns add`` makes a namespace, ``tc qdisc ... tbf`` shapes its link.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pluralis_lab.engines.invitation import check_host
from pluralis_lab.errors import RunError

FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def check_namespaces(namespaces: object) -> dict[str, str]:
    """Return the addresses by namespace, if workers can be put there. Raises RunError that says what is missing."""
    if not isinstance(namespaces, Mapping) or not all(isinstance(name, str) for name in namespaces):
        raise RunError(f"namespaces={namespaces!r}; give an address for each, e.g. {{'slow-0': '10.77.0.10'}}")
    if namespaces and (sys.platform != "linux" or os.geteuid() != 0):
        raise RunError("namespaces= needs Linux and root; simulate(spec, links=pl.Links(...)) needs neither")
    for name in namespaces:
        if "/" in name or not (FOLDER / name).exists():
            raise RunError(f"there is no network namespace {name!r}; make it with: ip netns add {name}")
    return {name: check_host(host) for name, host in namespaces.items()}


def enter_namespace(name: str) -> None:
    """Put this process, which must have one thread, into the network namespace `name`. Raises OSError when that cannot be."""
    descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name}")
    finally:
        os.close(descriptor)
