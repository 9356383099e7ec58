"""The same model in PyTorch's own pipeline (`torch.distributed.pipelining`, 1F1B, gloo), one process and thread a stage.

``python -m benchmarks.peers.torch_pipeline SPEC_FILE ROUNDS SKIP`` prints one JSON object: the losses of all rounds, and
the seconds that the rounds after the first SKIP took.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.multiprocessing.spawn import spawn

from pluralis_lab.corpus import open_corpus
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.models.stage import build_stage
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec


class _Stage(torch.nn.Module):
    """A stage whose last one returns logits, as the schedule's loss function wants them."""

    def __init__(self, spec: RunSpec, index: int, vocab: int) -> None:
        super().__init__()
        self.stage = build_stage(spec, index, vocab)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stage(x)
        return out if self.stage.head is None else self.stage.head(out)


def _rank(rank: int, port: int, spec_file: str, rounds: int, skip: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    spec = RunSpec.from_json(Path(spec_file).read_bytes())
    assert isinstance(spec.model, GPT)
    corpus = open_corpus(spec.data, context=spec.model.context, home=Path(spec_file).parent)
    module = _Stage(spec, rank, corpus.info().vocab)
    optimizer = build_optimizer(module, spec.optimizer)
    stage = PipelineStage(module, rank, 2, torch.device("cpu"))
    scale = spec.num_micro_batches * spec.tokens_per_micro_batch

    def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / scale

    schedule = Schedule1F1B(stage, spec.num_micro_batches, loss_fn=loss_of, scale_grads=False)
    all_losses, begin = [], 0.0
    for round_ in range(rounds):
        draws = [corpus.micro_batch(spec.seed, round_, n, spec.micro_batch_size).inputs for n in range(spec.num_micro_batches)]
        ids = torch.cat([torch.as_tensor(draw).to(torch.int64) for draw in draws])
        losses: list[Tensor] = []
        if rank == 0:
            schedule.step(ids[:, :-1])
        else:
            schedule.step(target=ids[:, 1:], losses=losses)
        optimizer.lr = learning_rate(spec.optimizer, round_)
        optimizer.step()
        optimizer.zero_grad()
        all_losses.append(sum(loss.item() for loss in losses))
        if round_ == skip - 1:
            begin = time.perf_counter()
    dist.barrier()
    if rank == 1:
        print(json.dumps({"losses": all_losses, "seconds": time.perf_counter() - begin}))
    dist.destroy_process_group()


def main() -> None:
    """Start both stages and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_rank, (port, sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), nprocs=2)


if __name__ == "__main__":
    main()
