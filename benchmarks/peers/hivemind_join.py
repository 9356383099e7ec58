"""One peer of data-parallel training with `hivemind.Optimizer` that goes on until its input ends.

``... benchmarks.peers.hivemind_join SPEC_FILE HOST [ADDRESS]`` prints its address, then "stepped LOSS EPOCH" after each step that
it made with the others, from the state that they hold: a later one loads that first.
"""

import sys
import threading
from pathlib import Path

from benchmarks.peers.hivemind_setup import data_parallel
from pluralis_lab.learning.reference import micro_batch_loss

FOUNDERS = 2


def main() -> None:
    """Train until the input ends."""
    spec, stage, corpus, dht, optimizer = data_parallel(Path(sys.argv[1]), "join", FOUNDERS, host=sys.argv[2], entry=sys.argv[3:])
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    if len(sys.argv) > 3 and optimizer.tracker.global_epoch > optimizer.local_epoch:
        optimizer.load_state_from_peers()
    number = 0
    while not ended.is_set():
        before = optimizer.local_epoch
        loss = micro_batch_loss(spec, [stage], corpus, 0, number) / spec.tokens_per_micro_batch
        loss.backward()
        optimizer.step()
        number += 1
        if optimizer.local_epoch > before:
            print(f"stepped {loss.item()} {optimizer.local_epoch}", flush=True)
        optimizer.zero_grad()
    optimizer.shutdown()
    dht.shutdown()


if __name__ == "__main__":
    main()
