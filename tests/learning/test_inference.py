"""Weights that texts are written with: one version for each text, and no more copies than two however many there are."""

import copy

import pytest
import torch

from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.inference import MAX_TEXTS, MAX_VERSIONS, choose
from pluralis_lab.learning.stash import WeightStash
from pluralis_lab.parts import Subspace

PROMPT = (100, 101, 102)


def infer(compute, request, ids, start=0, attempt=1):
    draw = tasks.Draw(start + len(ids), 0.0, 0)
    return compute.run(tasks.Infer(request, attempt, start, tuple(ids), None, draw))


def step(compute, round_):
    """Change the weights as a round does, but so much that other tokens are likelier."""
    drawn = torch.Generator().manual_seed(round_)
    with torch.no_grad():
        for weight in compute.parameters:
            weight.add_(torch.randn(weight.shape, generator=drawn, dtype=weight.dtype))
    compute._weights_have_changed()


def stored(tensor):
    return tensor.untyped_storage().data_ptr()


@pytest.fixture
def alone(make_spec, corpus):
    """The whole model in one stage, and the weights that it has had."""
    return StageCompute(make_spec(stages=1, boundary=Subspace(4, "same")), 0, corpus)


def test_eight_texts_hold_two_copies_and_leave_one(alone):
    names = [f"{number:016x}" for number in range(MAX_TEXTS)]
    stash, copies = alone.inference._stash, []
    for round_, name in enumerate(names):
        step(alone, round_)
        assert infer(alone, name, PROMPT).token is not None
        copies.append(stash.num_copies)
    assert MAX_VERSIONS == 2
    assert copies == [1] + [2] * 7
    assert len({id(text.version.stashed.module) for text in alone.inference._texts.values()}) == 2
    for name in names:
        alone.run(tasks.EndInference(name, 1))
        assert len(stash._free) + (stash._newest is not None) <= 1
    assert stash.num_copies == 1
    assert not alone.inference._versions
    step(alone, 99)
    infer(alone, names[0], PROMPT)
    assert stash.num_copies == 1
    assert all(map(torch.equal, alone.inference._texts[names[0]].version.stashed.weights, alone.parameters))


def test_each_text_is_of_one_version_from_its_beginning_to_its_end(alone):
    """The third begins with the second's weights, not the newest; and each goes on with its own while training does."""
    texts, masters = {name * 16: list(PROMPT) for name in "abc"}, {}
    for round_, name in enumerate(texts):
        step(alone, round_)
        masters[name] = copy.deepcopy(alone.module)
        texts[name].append(infer(alone, name, PROMPT).token)
    masters["c" * 16] = masters["b" * 16]
    for round_ in range(3, 8):
        step(alone, round_)
        for name, ids in texts.items():
            ids.append(infer(alone, name, ids[-1:], start=len(ids) - 1).token)
    for name, ids in texts.items():
        expected = list(PROMPT)
        for _ in range(6):
            with torch.no_grad():
                scores = masters[name].logits(masters[name](torch.tensor([expected]))[:, -1:])[0, 0]
            expected.append(choose(scores, tasks.Draw(len(expected), 0.0, 0)))
        assert ids == expected
    assert len({tuple(ids) for ids in texts.values()}) == 2, "the weights made no difference"


def test_who_begins_gets_the_newest_weights_as_soon_as_an_older_version_is_free(alone):
    for round_, name in enumerate("abc"):
        step(alone, round_)
        infer(alone, name * 16, PROMPT)
    alone.run(tasks.EndInference("a" * 16, 1))
    infer(alone, "d" * 16, PROMPT)
    assert all(map(torch.equal, alone.inference._texts["d" * 16].version.stashed.weights, alone.parameters))
    assert alone.inference._stash.num_copies == 2


def test_after_a_turn_of_the_subspace_nobody_begins_with_weights_from_before(alone):
    """Other stages could not read what these make; the oldest's texts are begun anew, and all others go on."""
    for round_, name in enumerate("ab"):
        step(alone, round_)
        infer(alone, name * 16, PROMPT)
    turned = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    alone.module.take_basis(turned)
    alone.codecs.turn(turned, 1)
    alone._weights_have_changed()
    infer(alone, "c" * 16, PROMPT)
    version = alone.inference._texts["c" * 16].version
    assert version.writes is alone.codecs.current
    assert torch.equal(version.stashed.module.basis, turned)
    assert infer(alone, "a" * 16, (7,), start=3).token is None, "of it nobody knows here that it has another basis"
    assert infer(alone, "b" * 16, (7,), start=3).token is not None
    infer(alone, "a" * 16, PROMPT, attempt=2)
    assert alone.inference._texts["a" * 16].version is version
    assert alone.inference._stash.num_copies == 2


def test_a_copy_shares_what_is_not_trained(alone):
    stashed = WeightStash(alone.module).take()
    assert len(list(alone.module.buffers())) > 2
    for mine, theirs in zip(stashed.module.buffers(), alone.module.buffers(), strict=True):
        assert stored(mine) == stored(theirs)
    for mine, theirs in zip(stashed.weights, alone.parameters, strict=True):
        assert stored(mine) != stored(theirs)
        assert torch.equal(mine, theirs)
