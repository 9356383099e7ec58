"""Workers behind links that the kernel shapes, and a joiner who comes over one: other addresses than this machine's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pluralis_lab as pl
from benchmarks.shaped import shaped_network
from tests.engines.swarm.conftest import small_spec
from tests.engines.swarm.test_joining import Shell


@pytest.mark.system("netns")
def test_a_run_in_namespaces_takes_in_a_joiner_from_another(home: Path, tmp_path: Path) -> None:
    with shaped_network(5) as network:
        network.shape("20mbit")
        names = list(network.addresses)
        founders = {name: network.addresses[name] for name in names[:4]}
        run = pl.launch(small_spec(steps=3000), host=network.gateway, namespaces=founders)
        try:
            run.wait(round=3, timeout_s=120)
            assert [row["place"]["host"] for row in run.info["workers"]] == list(founders.values())
            invitation = run.invite()
            assert invitation.host == network.gateway
            inside = ("ip", "netns", "exec", names[4], sys.executable, "-m", "pluralis_lab.cli", "join", str(invitation))
            shell = Shell(home, command=inside)
            try:
                shell.wait_for("first micro-batch counted")
                (log,) = (home / "joined" / "runs" / run.id / "logs").glob("worker-4.log")
                assert "met all 4 peers" in log.read_text()
                sent = subprocess.run(
                    ["ip", "-s", "-n", names[4], "link", "show", "eth0"], capture_output=True, text=True, check=True
                ).stdout
                assert int(re.findall(r"\n\s+(\d+)\s+\d+", sent)[-1]) > 100_000, "its work went over the shaped link"
            finally:
                shell.process.terminate()  # it leaves in order
                shell.process.wait(30)
            seen = len(run.metrics())
            run.wait(round=seen + 5, timeout_s=60)
        finally:
            run.stop()
    assert run.audit().ok


def test_namespaces_and_hosts_that_cannot_be_are_refused(home: Path) -> None:
    for arguments, said in (
        ({"namespaces": ["a"]}, "give an address for each"),
        ({"namespaces": {"no-such-namespace": "10.0.0.1"}}, "no network namespace|needs Linux and root"),
        ({"host": "0.0.0.0"}, "is no address that others can reach"),
        ({"host": "example.org"}, "give an address of this machine as numbers"),
    ):
        with pytest.raises(pl.PluralisError, match=said):
            pl.launch(small_spec(), **arguments)
    assert pl.runs().empty or "starting" not in set(pl.runs()["state"])
    if os.geteuid() == 0:
        with pytest.raises(pl.PluralisError, match=r"ip netns add"):
            pl.launch(small_spec(), namespaces={"../x": "10.0.0.1"})
