"""Stages: each is built alone, from the seed, and equals that part of the whole model to the bit."""

import pytest
import torch

import pluralis_lab.models.gpt as gpt_module
from pluralis_lab.learning.reference import whole_model
from pluralis_lab.models.stage import build_stage, num_parameters, stream_basis
from pluralis_lab.parts import GPT, MLP, Dense, Subspace
from pluralis_lab.spec import RunSpec

VOCAB = 41
SPECS = {
    "dense": RunSpec(model=GPT(n_layer=5, n_head=2, d_model=16, context=8), stages=3, boundary=Dense()),
    "subspace": RunSpec(model=GPT(n_layer=5, n_head=2, d_model=16, context=8), stages=3, boundary=Subspace(4)),
    "mlp": RunSpec(model=MLP((64, 20, 30, 10)), data="digits", stages=3),
}


def weights(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("name", SPECS)
def test_a_stage_built_alone_is_the_wholes_to_the_bit_in_any_order(name):
    spec = SPECS[name]
    alone = {stage: weights(build_stage(spec, stage, VOCAB)) for stage in (2, 0, 1)}
    for stage, module in enumerate(whole_model(spec, VOCAB)):
        assert alone[stage].keys() == dict(module.named_parameters()).keys()
        for key, parameter in module.named_parameters():
            assert torch.equal(alone[stage][key], parameter), key


@pytest.mark.parametrize("boundary", [Dense(), Subspace(4)])
def test_the_cut_does_not_change_the_weights(boundary):
    whole = RunSpec(model=SPECS["dense"].model, stages=1, boundary=boundary)
    one = list(build_stage(whole, 0, VOCAB).parameters())
    many = [p for stage in range(3) for p in build_stage(whole.replace(stages=3), stage, VOCAB).parameters()]
    assert sorted(p.numel() for p in one) == sorted(p.numel() for p in many)
    assert sum(p.double().sum().item() for p in one) == pytest.approx(sum(p.double().sum().item() for p in many), abs=1e-9)
    blocks = build_stage(whole.replace(stages=5), 3, VOCAB).blocks
    assert torch.equal(blocks[0].qkv, build_stage(whole, 0, VOCAB).blocks[3].qkv)


def test_building_a_stage_draws_no_other_stages_weights(monkeypatch):
    drawn = []
    real = gpt_module.normal
    monkeypatch.setattr(gpt_module, "normal", lambda seed, name, *rest: drawn.append(name) or real(seed, name, *rest))
    build_stage(SPECS["subspace"], 1, VOCAB)
    assert {name.split("/")[0] + "/" + name.split("/")[1] for name in drawn} == {"stream/fixed", "blocks/2", "blocks/3"}


def test_only_the_ends_hold_embedding_and_head_and_no_stage_holds_the_model():
    spec = SPECS["subspace"]
    stages = [build_stage(spec, stage, VOCAB) for stage in range(3)]
    assert [stage.embedding is not None for stage in stages] == [True, False, False]
    assert [stage.head is not None for stage in stages] == [False, False, True]
    total = sum(map(num_parameters, stages))
    assert all(num_parameters(stage) < total / 2 for stage in stages)


def test_all_stages_share_one_basis_and_the_seed_decides_it():
    spec = SPECS["subspace"]
    one, two = stream_basis(spec, VOCAB), stream_basis(spec, VOCAB)
    assert torch.equal(one.basis, two.basis)
    assert torch.equal(one.fixed, two.fixed)
    assert not torch.equal(one.basis, stream_basis(spec.replace(seed=1), VOCAB).basis)
    assert stream_basis(SPECS["dense"], VOCAB) is None


def test_the_frozen_embedding_is_of_full_rank_and_is_not_trained():
    spec = SPECS["subspace"]
    assert torch.linalg.matrix_rank(stream_basis(spec, VOCAB).fixed) == 16
    module = build_stage(spec, 0, VOCAB)
    assert {name for name, _ in module.named_parameters() if "embedding" in name} == {"embedding.table"}
    assert module.embedding.table.shape == (VOCAB, 4)


def test_the_dtype_of_the_spec_is_that_of_all_weights():
    for dtype, wanted in (("float32", torch.float32), ("float64", torch.float64)):
        module = build_stage(SPECS["subspace"].replace(dtype=dtype), 0, VOCAB)
        assert {p.dtype for p in module.parameters()} == {wanted}
        assert {b.dtype for b in module.buffers()} == {wanted}


def test_an_mlp_has_a_ramp_after_every_layer_but_the_last():
    spec = SPECS["mlp"]
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = build_stage(spec, 0, 10)(x)
        second = build_stage(spec, 1, 10)(first)
        third = build_stage(spec, 2, 10)(second)
    assert first.min() == 0
    assert second.min() == 0
    assert third.min() < 0
    assert third.shape == (50, 10)


@pytest.mark.parametrize("name", SPECS)
def test_a_stage_moves_to_another_device_whole(name):
    spec = SPECS[name]
    for stage in range(3):
        module = build_stage(spec, stage, VOCAB).to("meta")  # a tensor that stays behind meets the others in `forward`
        x = torch.empty(2, 8, dtype=torch.int64) if stage == 0 else torch.empty(2, 8, 16)
        if name == "mlp":
            x = torch.empty(2, (64, 20, 30)[stage])
        assert module(x.to("meta")).device.type == "meta"
        own = [value for part in module.modules() for value in vars(part).values()]
        assert not [value for value in own if isinstance(value, torch.Tensor | gpt_module.StreamBasis)]
