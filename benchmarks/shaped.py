"""Network namespaces of this machine, joined by a bridge, each with a link that the kernel shapes (token bucket, both ways)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BURST = "32kb"
QUEUE = "200ms"
"""How much the bucket may owe: a home router keeps about as much."""


@dataclass(frozen=True)
class ShapedNetwork:
    """Namespaces by name with their addresses; `gateway` is this machine's own address on the bridge."""

    gateway: str
    addresses: dict[str, str]
    _links: dict[str, str] = field(repr=False)

    def shape(self, rate: str | None) -> None:
        """Give every link `rate` ("10mbit") each way, at once; None: as fast as the machine."""
        for name, link in self._links.items():
            for prefix, device in (((), link), (("ip", "netns", "exec", name), "eth0")):
                if rate is None:
                    subprocess.run([*prefix, "tc", "qdisc", "del", "dev", device, "root"], check=False, capture_output=True)
                else:
                    do(
                        *prefix,
                        "tc",
                        "qdisc",
                        "replace",
                        "dev",
                        device,
                        "root",
                        "tbf",
                        "rate",
                        rate,
                        "burst",
                        BURST,
                        "latency",
                        QUEUE,
                    )


def why_not() -> str | None:
    """Return what is missing to make namespaces here, None when nothing is."""
    if os.geteuid() != 0:
        return "this benchmark makes network namespaces: run it as root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "this benchmark needs `ip` and `tc`: apt-get install iproute2"
    return None


@contextmanager
def shaped_network(count: int) -> Iterator[ShapedNetwork]:
    """Make `count` namespaces and remove them afterwards. Raises RuntimeError with the remedy where that cannot be."""
    if (why := why_not()) is not None:
        raise RuntimeError(why)
    mark = f"{os.getpid() % 0xFFFF:04x}"
    bridge, subnet = f"plb{mark}", f"10.{77 + os.getpid() % 100}.0"
    names = [f"pl{mark}-{number}" for number in range(count)]
    links = {name: f"plv{mark}{number}" for number, name in enumerate(names)}
    addresses = {name: f"{subnet}.{10 + number}" for number, name in enumerate(names)}
    try:
        do("ip", "link", "add", bridge, "type", "bridge")
        do("ip", "addr", "add", f"{subnet}.1/24", "dev", bridge)
        do("ip", "link", "set", bridge, "up")
        for name in names:
            do("ip", "netns", "add", name)
            do("ip", "link", "add", links[name], "type", "veth", "peer", "name", "eth0", "netns", name)
            do("ip", "link", "set", links[name], "master", bridge, "up")
            inside = ("ip", "netns", "exec", name, "ip")
            do(*inside, "addr", "add", f"{addresses[name]}/24", "dev", "eth0")
            do(*inside, "link", "set", "eth0", "up")
            do(*inside, "link", "set", "lo", "up")
        yield ShapedNetwork(f"{subnet}.1", addresses, links)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)


def do(*command: str) -> None:
    """Run a command. Raises RuntimeError with what it said when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
