"""The same model in one process and a plain PyTorch loop: ``python -m benchmarks.peers.bare_loop SPEC_FILE THREADS ROUNDS SKIP``.

Prints one JSON object: the losses of all rounds, and the seconds that the rounds after the first SKIP took.
"""

import json
import sys
import time
from pathlib import Path

import torch

from pluralis_lab.corpus import open_corpus
from pluralis_lab.learning.reference import train
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec


def main() -> None:
    """Train and print."""
    spec = RunSpec.from_json(Path(sys.argv[1]).read_bytes())
    threads, rounds, skip = (int(argument) for argument in sys.argv[2:5])
    home = Path(sys.argv[1]).parent
    torch.set_num_threads(threads)
    context = spec.model.context if isinstance(spec.model, GPT) else None
    corpus = open_corpus(spec.data, context=context, home=home)
    losses, begin = [], 0.0
    for step in train(spec, corpus, steps=rounds, keeps_gradients=False):
        losses.append(step.loss)
        if step.round == skip - 1:
            begin = time.perf_counter()
    print(json.dumps({"losses": losses, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main()
