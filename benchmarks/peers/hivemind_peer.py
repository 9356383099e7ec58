"""One peer of data-parallel training with `hivemind.Optimizer`: ``... benchmarks.peers.hivemind_peer SPEC_FILE PEERS [ADDRESS]``.

Prints its address, then "stepped LOSS" when the peers' first common step is made, and ends when its input does.
"""

import logging
import sys
from pathlib import Path

import hivemind
import torch

from pluralis_lab.corpus import open_corpus
from pluralis_lab.learning.reference import micro_batch_loss
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec

STEPS_AT_MOST = 200


def main() -> None:
    """Train until the first step of all peers together."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    spec, count = RunSpec.from_json(Path(sys.argv[1]).read_bytes()), int(sys.argv[2])
    assert isinstance(spec.model, GPT)
    dht = hivemind.DHT(initial_peers=sys.argv[3:], host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    print(dht.get_visible_maddrs()[0], flush=True)
    corpus = open_corpus(spec.data, context=spec.model.context, home=Path(sys.argv[1]).parent)
    stage = build_stage(spec, 0, corpus.info().vocab)
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="start",
        batch_size_per_step=spec.batch_size,
        target_batch_size=spec.batch_size * count,
        optimizer=torch.optim.AdamW(stage.parameters(), lr=1e-3),
        use_local_updates=False,
        matchmaking_time=1.5,
        averaging_timeout=30.0,
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
