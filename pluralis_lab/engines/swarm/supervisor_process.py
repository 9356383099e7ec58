"""The supervisor's process: ``python -m pluralis_lab.engines.swarm.supervisor_process``; `engines.handover` gives it its run.

Apart from the supervisor's code, which takes half a second to load: the fork server, which takes two, loads its own meanwhile.
"""

import asyncio
import logging
import os
import sys

from pluralis_lab.engines.handover import take_run
from pluralis_lab.engines.swarm.forkclient import ForkServer


def main() -> int:
    """Start from the command line."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = ForkServer.launch()  # which ends with this process, whatever becomes of that

    from pluralis_lab.engines.swarm.supervisor import Supervisor

    handed = take_run()
    if handed is None:
        return 0

    async def start() -> int:
        return await Supervisor(handed.run, version=handed.version, granted=handed.granted, server=server).main()

    return asyncio.run(start())


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stderr.flush()
    # The interpreter's own end takes a part of a second, which whoever stops a run would wait for.
    os._exit(status)
