"""The reference run: what engines are compared with must itself learn, and twice the same."""

import torch

from pluralis_lab.corpus.vectors import load_digits
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.reference import train
from pluralis_lab.parts import MLP, AdamW
from pluralis_lab.spec import RunSpec

DIGITS = RunSpec(model=MLP((64, 48, 10)), data="digits", stages=2, batch_size=64, optimizer=AdamW(lr=1e-2))


def test_an_mlp_learns_the_digits():
    digits = load_digits()
    steps = list(train(DIGITS, digits, steps=80))
    assert steps[0].loss > 2.0  # ln 10 = 2.30 before anything is learned
    assert sum(step.loss for step in steps[-5:]) / 5 < 0.25

    whole = StageCompute(DIGITS.replace(stages=1), 0, digits)
    for step in steps:  # the same gradients through the workers' Apply: the model that the reference trained
        part = tasks.Part("worker-0", (0, 1, 2, 3), pack([("g", torch.cat(step.gradients))]))
        whole.run(tasks.Apply(step.round, (part,)))
    held_out = digits.validation_batch(0, digits.info().validation_tokens)
    with torch.no_grad():
        guesses = whole.module(torch.as_tensor(held_out.inputs)).argmax(dim=1)
    assert (guesses == torch.as_tensor(held_out.targets)).float().mean() > 0.9


def test_the_reference_repeats_to_the_bit_and_the_seed_changes_it(make_spec, corpus):
    spec = make_spec()
    first, again = list(train(spec, corpus, steps=3)), list(train(spec, corpus, steps=3))
    assert [step.loss for step in first] == [step.loss for step in again]
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x.gradients, y.gradients, strict=True)
    )
    assert next(train(spec.replace(seed=9), corpus, steps=1)).loss != first[0].loss


def test_a_gpt_learns_its_text(make_spec, corpus):
    spec = make_spec(dtype="float32", batch_size=8, optimizer=AdamW(lr=1e-2))
    losses = [step.loss for step in train(spec, corpus, steps=60)]
    assert losses[0] > 5.0  # ln 256 = 5.55
    assert sum(losses[-5:]) / 5 < losses[0] - 2.0
