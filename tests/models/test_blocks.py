"""Models of the user's own: what is measured, what is refused and why, and what each stage builds."""

import json
import subprocess
import sys

import pytest
import torch

import pluralis_lab as pl
from pluralis_lab.errors import CorpusError, RunSpecError
from pluralis_lab.learning.reference import whole_model
from pluralis_lab.learning.wire_cost import codec_bytes_per_token, entry_shapes
from pluralis_lab.models.cost import stage_flops_per_token, stage_parameters
from pluralis_lab.models.factory import blocks_of
from pluralis_lab.models.stage import build_stage, num_parameters

HOME = "tests.models.own_blocks"


def mixed(**options):
    return pl.Blocks(f"{HOME}:mixed", context=8, options=options)


def test_the_blocks_are_measured():
    facts = mixed(width=12).blocks
    assert [block.name for block in facts] == ["Embedding", "CausalConv", "CausalConv", "CausalConv", "Recurrent", "Linear"]
    assert [block.shape for block in facts] == [(8, 12)] * 5 + [(8, 256)]
    assert facts[0].parameters == 256 * 12
    assert facts[1].parameters == 2 * 12 + 4 * 12 * 12 + 12
    assert facts[-1].parameters == 12 * 256 + 256
    assert facts[-1].flops == 2 * 8 * 12 * 256
    assert facts[1].flops == 2 * 8 * 4 * 12 * 12


@pytest.mark.parametrize("stages", [1, 2, 4, 6])
def test_costs_and_shapes_are_those_of_the_built_stages(stages):
    spec = pl.RunSpec(model=mixed(), stages=stages, batch_size=6, micro_batches=2)
    x = torch.zeros(3, 8, dtype=torch.int64)
    for stage, module in enumerate(whole_model(spec, 256)):
        if stage:
            assert entry_shapes(spec, stage) == ((3, 9), tuple(x.shape))
        assert num_parameters(module) == stage_parameters(spec, stage, 256)
        x = module(x)
    assert x.shape == (3, 8, 256)
    total = sum(stage_flops_per_token(spec, stage, 256) for stage in range(stages))
    assert total == sum(block.flops for block in spec.model.blocks) // 8
    if stages > 1:
        assert codec_bytes_per_token(spec, 256) == (4 * 16 + 2 * 9 / 8, 4 * 16)


def test_the_weights_follow_from_the_seed_and_the_cut_does_not_change_them():
    spec = pl.RunSpec(model=mixed(), stages=3, seed=5)
    before = torch.get_rng_state()
    one, many = build_stage(spec.replace(stages=1), 0, 256), [build_stage(spec, stage, 256) for stage in (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    flat = torch.cat([parameter.flatten() for stage in many for parameter in stage.parameters()])
    other = torch.cat([p.flatten() for p in build_stage(spec.replace(seed=6), 1, 256).parameters()])
    assert sorted(flat.tolist()) == sorted(torch.cat([p.flatten() for p in one.parameters()]).tolist())
    assert not torch.equal(other, torch.cat([p.flatten() for p in many[1].parameters()]))
    assert many[1].blocks[0].conv.weight.std() > 0
    assert not torch.equal(many[1].blocks[0].conv.weight, many[0].blocks[0].conv.weight)


def test_a_factory_that_yields_never_has_two_blocks_held_for_it():
    import weakref

    kept = []
    for block in blocks_of(mixed(), seed=0):
        assert sum(reference() is not None for reference in kept) <= 1
        kept.append(weakref.ref(block))


def test_a_spec_keeps_its_hash_through_json_and_reading_runs_no_code():
    spec = pl.RunSpec(model=mixed(width=8), stages=2)
    assert pl.RunSpec.from_json(spec.to_json()) == spec
    fields = json.loads(spec.to_json())
    fields["model"]["factory"] = "no.such.module:factory"
    assert pl.RunSpec.from_json(json.dumps(fields)).num_blocks == 6
    fields["model"]["blocks"] = []
    with pytest.raises(RunSpecError, match="no measured blocks"):
        pl.RunSpec.from_json(json.dumps(fields))
    code = f"import sys, pluralis_lab as pl; pl.RunSpec.from_json({spec.to_json()!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_block_that_is_no_longer_the_measured_one_is_named():
    fields = json.loads(pl.RunSpec(model=mixed(), stages=2).to_json())
    fields["model"]["blocks"][4]["parameters"] += 1
    spec = pl.RunSpec.from_json(json.dumps(fields))
    build_stage(spec, 0, 256)
    with pytest.raises(
        RunSpecError, match=r"block 4 of .* is a Recurrent of 1632 weights here, but the spec says a Recurrent of 1633"
    ):
        build_stage(spec, 1, 256)
    fields["model"]["blocks"][4]["parameters"] -= 1
    fields["model"]["blocks"].append(fields["model"]["blocks"][-1])
    with pytest.raises(RunSpecError, match="gives fewer than the 7 blocks"):
        build_stage(pl.RunSpec.from_json(json.dumps(fields)), 1, 256)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ahead", r"'blocks.1' \(LooksAhead\) .* looks at later tokens"),
        ("dropout", r"'blocks.1' \(Dropout\) .* another output each time"),
        ("batch norm", r"'blocks.1' \(BatchNorm1d\) .* changes its buffer 'running_mean'"),
        ("mixes", r"'blocks.1' \(MixesSamples\) .* mixes the samples"),
        ("tuple", r"'blocks.1' \(Tuple\) .* gave tuple"),
        ("frozen", r"'blocks.1' \(Linear\) .* 'weight' that is not trained"),
        ("shape", r"'blocks.1' \(Linear\) .* failed on an input of \(3, 8, 16\)"),
        ("no module", r"gave 7 as block 1"),
        (
            "plain tensor",
            r"'blocks.1' \(PlainMask\) .* has a tensor of \(16,\) in its plain attribute 'mask', .* to a GPU; register it as a "
            r"buffer, e.g. self.register_buffer\('mask', ..., persistent=False\)",
        ),
        ("plain list", r"'blocks.1' \(PlainMask\) .* plain attribute 'mask', .* as a buffer, each of them"),
        ("plain tuple", r"'blocks.1' \(PlainMask\) .* plain attribute 'mask'"),
        ("plain dict", r"'blocks.1' \(PlainMask\) .* plain attribute 'inner.mask'"),
        ("tied", r"'blocks.2' \(Linear\) .* shares its weight 'weight'"),
    ],
)
def test_what_cannot_be_trained_in_pieces_is_refused_naming_the_layer(kind, message):
    with pytest.raises(RunSpecError, match=message):
        pl.Blocks(f"{HOME}:with_middle", context=8, options={"kind": kind})


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_in_a_list_and_those_that_a_hook_makes_are_no_plain_tensors():
    assert [block.name for block in pl.Blocks(f"{HOME}:holding", context=8).blocks] == ["Embedding", "HoldsItsWeights", "Linear"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factory": f"{HOME}:fails", "context": 8}, "failed with ZeroDivisionError: no such width"),
        ({"factory": f"{HOME}:unseeded", "context": 8}, "begins with another 'weight' each time"),
        ({"factory": f"{HOME}:nothing", "context": 8}, "gave no block"),
        ({"factory": f"{HOME}:classes_of_the_wrong_shape", "context": 8}, r"its scores must be \[batch, context, vocab\]"),
        ({"factory": f"{HOME}:absent", "context": 8}, "has no function absent"),
        ({"factory": "no.such:thing", "context": 8}, "importing no.such failed with ModuleNotFoundError"),
        ({"factory": "__main__:thing", "context": 8}, "use pl.Blocks.from_source"),
        ({"factory": "thing", "context": 8}, "not of the form"),
        ({"factory": f"{HOME}:mixed"}, "give one, context=64 for a model of tokens"),
        ({"factory": f"{HOME}:mixed", "context": 8, "features": 8}, "give one, context=64 for a model of tokens"),
        ({"factory": f"{HOME}:mixed", "context": 8, "options": {"depth": 1}}, "failed with TypeError"),
        ({"factory": "made", "context": 8, "source": "made = 1 / 0"}, "fails alone with ZeroDivisionError"),
    ],
)
def test_a_factory_that_does_not_do_is_refused_with_the_remedy(fields, message):
    with pytest.raises(RunSpecError, match=message):
        pl.Blocks(**fields)


def test_combinations_that_cannot_work_are_refused():
    with pytest.raises(RunSpecError, match=r"layer 'blocks.0' \(Embedding\) of .* writes outside of any subspace"):
        pl.RunSpec(model=mixed(), stages=2, boundary=pl.Subspace(4))
    with pytest.raises(RunSpecError, match="stages=7, but the model has 6 blocks"):
        pl.RunSpec(model=mixed(), stages=7)
    with pytest.raises(RunSpecError, match=r"stages=4: stage 0 would be blocks 0 to 0 of .*:images, which have no weights"):
        pl.RunSpec(model=pl.Blocks(f"{HOME}:images", features=64), data="digits", stages=4)
    with pytest.raises(RunSpecError, match=r"use model=pl\.Blocks"):
        pl.RunSpec(model=mixed(), data="digits")
    with pytest.raises(RunSpecError, match="boundary of width 16"):
        pl.RunSpec(model=mixed(), stages=2, boundary=pl.TopK(17))


def test_fewer_scores_than_the_corpus_has_tokens_is_refused_before_anything_starts(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(32 + number % 90) for number in range(20_000)))
    model = pl.Blocks(factory="small", context=8, source="from torch import nn\ndef small():\n    return [nn.Embedding(9, 9)]")
    with pytest.raises(CorpusError, match="but the model has 9; use at least"):
        pl.simulate(pl.RunSpec(model=model, data=f"path:{path}"), home=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_blocks_shows_itself_and_its_repr_makes_it_again():
    model = mixed(width=8)
    assert eval(repr(model), {"Blocks": pl.Blocks}) == model
    html = model._repr_html_()
    assert "CausalConv" in html
    assert "8 × 8" in html
