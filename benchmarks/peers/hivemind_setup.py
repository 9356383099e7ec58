"""The model, data and optimizer of a peer that trains data-parallel with `hivemind.Optimizer`, each peer with the whole model."""

import logging
from pathlib import Path

import hivemind
import torch

from pluralis_lab.corpus import Corpus, open_corpus
from pluralis_lab.models.stage import Stage, build_stage
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec


def data_parallel(
    file: Path, run_id: str, peers: int, *, host: str, entry: list[str]
) -> tuple[RunSpec, Stage, Corpus, hivemind.DHT, hivemind.Optimizer]:
    """Enter the DHT through `entry`, print the own address, and return what training takes, for the spec in `file`."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    spec = RunSpec.from_json(file.read_bytes())
    assert isinstance(spec.model, GPT)
    dht = hivemind.DHT(initial_peers=entry, host_maddrs=[f"/ip4/{host}/tcp/0"], start=True)
    print(dht.get_visible_maddrs()[0], flush=True)
    corpus = open_corpus(spec.data, context=spec.model.context, home=file.parent)
    stage = build_stage(spec, 0, corpus.info().vocab)
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id=run_id,
        batch_size_per_step=spec.batch_size,
        target_batch_size=spec.batch_size * peers,
        optimizer=torch.optim.AdamW(stage.parameters(), lr=1e-3),
        use_local_updates=False,
        matchmaking_time=1.5,
        averaging_timeout=30.0,
    )
    return spec, stage, corpus, dht, optimizer
