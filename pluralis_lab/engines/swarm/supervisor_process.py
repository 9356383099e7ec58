"""The supervisor's process: ``python -m pluralis_lab.engines.swarm.supervisor_process RUN_DIRECTORY [VERSION]``.

Apart from the supervisor's code, which takes a second to load: the fork server, which takes two, loads its own meanwhile.
"""

import asyncio
import logging
import os
import sys

from pluralis_lab.engines import control
from pluralis_lab.engines.swarm.forkclient import FORK_LOG, ForkServer
from pluralis_lab.store import RunDirectory


def main() -> int:
    """Start from the command line."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run = RunDirectory(sys.argv[1])
    control.own(run)
    version = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = ForkServer.launch(run.path / "logs" / FORK_LOG)  # which ends with this process, whatever becomes of that

    from pluralis_lab.engines.signers import granted_on_stdin
    from pluralis_lab.engines.swarm.supervisor import Supervisor

    granted = granted_on_stdin()

    async def start() -> int:
        return await Supervisor(run, version=version, granted=granted, server=server).main()

    return asyncio.run(start())


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stderr.flush()
    # The interpreter's own end, with torch loaded, takes most of a second, which whoever stops a run would wait for.
    os._exit(status)
