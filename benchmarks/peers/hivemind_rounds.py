"""One peer of data-parallel training with `hivemind.Optimizer`.

``... hivemind_rounds SPEC PEERS ROUNDS SETTINGS HOST [ADDRESS]``: SPEC is a file, SETTINGS a JSON object of options of the
optimizer, HOST where it listens. Prints its address and waits for a line of input; then trains, and when its ROUNDS are made
prints one JSON object: seconds and steps a round after the first few, the losses of its batches, the norm of its weights, and of
each averaging that came about how many peers it had. Ends when its input does.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind.averaging.averager import DecentralizedAverager
from hivemind.averaging.control import StepControl

from pluralis_lab.corpus import open_corpus
from pluralis_lab.learning.reference import micro_batch_loss
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec

SKIP = 3


def main() -> None:
    """Train until the rounds are made."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    spec = RunSpec.from_json(Path(sys.argv[1]).read_bytes())
    count, rounds, settings = int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
    assert isinstance(spec.model, GPT)
    dht = hivemind.DHT(initial_peers=sys.argv[6:], host_maddrs=[f"/ip4/{sys.argv[5]}/tcp/0"], start=True)
    corpus = open_corpus(spec.data, context=spec.model.context, home=Path(sys.argv[1]).parent)
    stage = build_stage(spec, 0, corpus.info().vocab)
    exchanges = noted_exchanges()
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="rounds",
        batch_size_per_step=spec.batch_size,
        target_batch_size=spec.batch_size * count,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        params=stage.parameters(),
        averaging_timeout=30.0,
        **settings,
    )
    print(dht.get_visible_maddrs()[0], flush=True)
    sys.stdin.readline()
    losses, number, begin, first, first_step = [], 0, 0.0, 0, 0
    while optimizer.local_epoch < rounds:
        loss = sum(
            micro_batch_loss(spec, [stage], corpus, number, index) / spec.tokens_per_micro_batch / spec.micro_batches
            for index in range(spec.micro_batches)
        )
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        number += 1
        if optimizer.local_epoch >= SKIP and not begin:
            begin, first, first_step = time.perf_counter(), optimizer.local_epoch, number
    measured = max(optimizer.local_epoch - first, 1)
    seconds, steps_a_round = (time.perf_counter() - begin) / measured, (number - first_step) / measured
    met = [len(one.result()) for one in exchanges if one.done() and not one.cancelled() and one.exception() is None]
    norm = torch.cat([parameter.flatten() for parameter in stage.parameters()]).norm().item()
    told = {"seconds": seconds, "steps_a_round": steps_a_round, "losses": losses, "norm": norm, "met": met}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    optimizer.shutdown()
    dht.shutdown()


def noted_exchanges() -> list[StepControl]:
    """Return a list to which every averaging that is begun from now on is added."""
    begun: list[StepControl] = []
    step = DecentralizedAverager.step

    def noted(averager: DecentralizedAverager, *arguments: Any, **options: Any) -> Any:
        made = step(averager, *arguments, **options)
        if isinstance(made, StepControl):
            begun.append(made)
        return made

    DecentralizedAverager.step = noted
    return begun


if __name__ == "__main__":
    main()
