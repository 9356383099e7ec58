"""One peer of data-parallel training with `hivemind.Optimizer`: ``... benchmarks.peers.hivemind_peer SPEC_FILE PEERS [ADDRESS]``.

Prints its address, then "stepped LOSS" when the peers' first common step is made, and ends when its input does.
"""

import sys
from pathlib import Path

from benchmarks.peers.hivemind_setup import data_parallel
from pluralis_lab.learning.reference import micro_batch_loss

STEPS_AT_MOST = 200


def main() -> None:
    """Train until the first step of all peers together."""
    spec, stage, corpus, dht, optimizer = data_parallel(
        Path(sys.argv[1]), "start", int(sys.argv[2]), host="127.0.0.1", entry=sys.argv[3:]
    )
    for number in range(STEPS_AT_MOST):
        loss = micro_batch_loss(spec, [stage], corpus, 0, number) / spec.tokens_per_micro_batch
        loss.backward()
        optimizer.step()
        if optimizer.local_epoch >= 1:
            print(f"stepped {loss.item()}", flush=True)
            break
        optimizer.zero_grad()
    sys.stdin.read()
    optimizer.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    main()
