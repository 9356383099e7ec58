"""The GPT: causal, with relative positions, and closed under the subspace unless something breaks it."""

import pytest
import torch

from pluralis_lab.models.gpt import Block, rotary_table, rotate
from pluralis_lab.models.stage import Stage, build_stage, stream_basis
from pluralis_lab.parts import GPT, Dense, Subspace
from pluralis_lab.spec import RunSpec

VOCAB, CONTEXT = 41, 16


def gpt(**fields):
    return GPT(**{"n_layer": 4, "n_head": 2, "d_model": 24, "context": CONTEXT, **fields})


def make_spec(boundary, stages=4, **fields):
    return RunSpec(model=gpt(**fields), stages=stages, boundary=boundary, dtype="float64", seed=5)


def token_ids(batch=3):
    return torch.randint(0, VOCAB, (batch, CONTEXT), generator=torch.Generator().manual_seed(1))


def boundaries(spec, ids, *, steps=0):
    """Return the stream after each stage but the last, after `steps` optimizer steps on the whole model."""
    stages = [Stage(spec, stage, VOCAB, stream_basis(spec, VOCAB)) for stage in range(spec.stages)]
    optimizer = torch.optim.AdamW([p for stage in stages for p in stage.parameters()], lr=0.05)
    targets = token_ids()
    for _ in range(steps):
        x = ids
        for stage in stages:
            x = stage(x)
        optimizer.zero_grad()
        stages[-1].loss_sum(x, targets).backward()
        optimizer.step()
    out, x = [], ids
    with torch.no_grad():
        for stage in stages[:-1]:
            x = stage(x)
            out.append(x)
    return out


def energy_outside(spec, ids, x):
    """Return the share of the energy of ``x - fixed[ids]`` that lies outside Col(U)."""
    stream = stream_basis(spec, VOCAB)
    written = x - stream.fixed[ids]
    outside = written - written @ stream.basis @ stream.basis.T
    return (outside.square().sum() / written.square().sum()).item()


@pytest.mark.parametrize("write_norm", ["none", "frozen"])
@pytest.mark.parametrize("rank", [1, 4, 24])
def test_the_stream_stays_in_the_subspace_at_every_boundary_also_after_training(rank, write_norm):
    spec, ids = make_spec(Subspace(rank), write_norm=write_norm), token_ids()
    for x in boundaries(spec, ids, steps=5):
        assert energy_outside(spec, ids, x) < 1e-24


def break_closure(spec, **model):
    """Build the spec that RunSpec refuses, to see what it is refused for."""
    return spec.model_copy(update={"model": spec.model.model_copy(update=model)})


@pytest.mark.parametrize("broken", [{"positions": "learned"}, {"write_norm": "trainable"}])
def test_what_the_spec_refuses_really_leaves_the_subspace(broken):
    spec, ids = break_closure(make_spec(Subspace(4)), **broken), token_ids()
    for x in boundaries(spec, ids, steps=5):
        assert energy_outside(spec, ids, x) > 1e-3


def test_the_last_block_keeps_full_rank():
    spec = make_spec(Subspace(4))
    last = build_stage(spec, 3, VOCAB).blocks[0]
    assert last.attention_write.basis is None
    assert last.mlp_write.weight.shape == (4 * 24, 24)
    assert build_stage(spec, 2, VOCAB).blocks[0].mlp_write.weight.shape == (4 * 24, 4)


@pytest.mark.parametrize("boundary", [Dense(), Subspace(4)])
def test_no_token_sees_a_later_one(boundary):
    spec, ids = make_spec(boundary), token_ids()
    stages = [build_stage(spec, stage, VOCAB) for stage in range(4)]

    def logits(tokens):
        x = tokens
        for stage in stages:
            x = stage(x)
        return stages[-1].head(x)

    with torch.no_grad():
        before = logits(ids)
        for position in (1, 7, CONTEXT - 1):
            changed = ids.clone()
            changed[:, position] = (changed[:, position] + 1) % VOCAB
            after = logits(changed)
            assert torch.equal(after[:, :position], before[:, :position])
            assert (after[:, position:] - before[:, position:]).abs().amax(dim=(0, 2)).min() > 1e-6


def test_rotary_scores_depend_on_the_distance_only():
    cos, sin = rotary_table(64, 8, torch.float64)
    q, k = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same_q = rotate(q.expand(1, 1, 64, 8), cos, sin)[0, 0]
    same_k = rotate(k.expand(1, 1, 64, 8), cos, sin)[0, 0]
    scores = same_q @ same_k.T
    for distance in (-20, -1, 0, 3, 40):
        diagonal = scores.diagonal(distance)
        assert (diagonal - diagonal[0]).abs().max() < 1e-12
    assert scores[0].std() > 0.01  # and it does depend on the distance
    assert torch.allclose(same_q.norm(dim=-1), q.norm().expand(64), atol=1e-12)


def test_a_block_without_positions_in_its_input_tells_places_apart():
    block = Block(gpt(), 0, 0, None, torch.float64)
    x = torch.randn(1, CONTEXT, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    swapped = x[:, [1, 0, *range(2, CONTEXT)]]
    with torch.no_grad():
        assert (block(x)[0, -1] - block(swapped)[0, -1]).abs().max() > 1e-6


def test_a_write_norm_makes_writes_of_unit_scale():
    frozen = Block(gpt(write_norm="frozen"), 0, 0, None, torch.float64).attention_write
    y = frozen(torch.randn(2, CONTEXT, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(y.square().mean(dim=-1), torch.ones(2, CONTEXT, dtype=torch.float64), atol=1e-4)
