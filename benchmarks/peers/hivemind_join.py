"""One peer of data-parallel training with `hivemind.Optimizer` that goes on until its input ends.

``... benchmarks.peers.hivemind_join SPEC_FILE HOST [ADDRESS]`` prints its address, then "stepped LOSS EPOCH" after each step that
it made with the others, from the state that they hold: a later one loads that first.
"""

import logging
import sys
import threading
from pathlib import Path

import hivemind
import torch

from pluralis_lab.corpus import open_corpus
from pluralis_lab.learning.reference import micro_batch_loss
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec

FOUNDERS = 2


def main() -> None:
    """Train until the input ends."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    spec, host = RunSpec.from_json(Path(sys.argv[1]).read_bytes()), sys.argv[2]
    assert isinstance(spec.model, GPT)
    dht = hivemind.DHT(initial_peers=sys.argv[3:], host_maddrs=[f"/ip4/{host}/tcp/0"], start=True)
    print(dht.get_visible_maddrs()[0], flush=True)
    corpus = open_corpus(spec.data, context=spec.model.context, home=Path(sys.argv[1]).parent)
    stage = build_stage(spec, 0, corpus.info().vocab)
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="join",
        batch_size_per_step=spec.batch_size,
        target_batch_size=spec.batch_size * FOUNDERS,
        optimizer=torch.optim.AdamW(stage.parameters(), lr=1e-3),
        use_local_updates=False,
        matchmaking_time=1.5,
        averaging_timeout=30.0,
    )
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
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
