"""Codecs: exact where they say so, and exactly as many bytes as the spec predicts."""

import dataclasses

import numpy as np
import pytest
import torch

from pluralis_lab.corpus.batches import MicroBatch
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.reference import train
from pluralis_lab.learning.wire_cost import codec_bytes_per_token
from pluralis_lab.models.stage import build_stage, stream_basis
from pluralis_lab.parts import MLP, Dense, Int8, Subspace, TopK
from pluralis_lab.spec import RunSpec

EXACT = [Dense(), Subspace(4, wire="same"), Subspace(1, wire="same"), Subspace(16, wire="same")]


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("boundary", EXACT, ids=lambda b: f"{b.kind}-{getattr(b, 'rank', '')}")
def test_training_through_the_wire_equals_one_process(boundary, stages, make_spec, pipeline, corpus):
    spec = make_spec(boundary=boundary, stages=stages)
    here = pipeline(spec)
    for step in train(spec, corpus, steps=6):
        loss, gradients = here.step(step.round)
        assert abs(loss - step.loss) < 1e-14 * max(1.0, step.loss)
        for ours, theirs in zip(gradients, step.gradients, strict=True):
            assert (ours - theirs).abs().max() < 1e-13


def test_a_frozen_write_norm_is_exact_too(make_spec, pipeline, corpus):
    spec = make_spec(boundary=Subspace(4, wire="same"), model={"write_norm": "frozen"})
    here = pipeline(spec)
    for step in train(spec, corpus, steps=3):
        loss, gradients = here.step(step.round)
        assert abs(loss - step.loss) < 1e-14 * max(1.0, step.loss)
        assert max((a - b).abs().max() for a, b in zip(gradients, step.gradients, strict=True)) < 1e-13


def test_the_cut_does_not_change_what_is_learned(make_spec, corpus):
    boundary = Subspace(4, wire="same")
    one = list(train(make_spec(boundary=boundary, stages=1), corpus, steps=4))
    four = list(train(make_spec(boundary=boundary, stages=4), corpus, steps=4))
    assert [step.loss for step in one] == pytest.approx([step.loss for step in four], rel=1e-14)


@pytest.mark.parametrize("boundary", [Dense(wire="bfloat16"), Subspace(4), Subspace(16)])
def test_bfloat16_rounds_but_still_follows_the_exact_run(boundary, make_spec, pipeline, corpus):
    spec = make_spec(boundary=boundary)
    here = pipeline(spec)
    for step in train(spec, corpus, steps=4):
        loss, _ = here.step(step.round)
        assert loss != step.loss
        assert abs(loss - step.loss) / step.loss < 5e-3


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize(
    "boundary",
    [Subspace(4), Subspace(16), Subspace(4, wire="same"), Dense(), Dense(wire="bfloat16"), Int8(), TopK(3)],
    ids=str,
)
def test_the_bytes_are_those_that_the_spec_predicts(boundary, stages, make_spec, pipeline):
    spec = make_spec(boundary=boundary, stages=stages, dtype="float32")
    here = pipeline(spec)
    here.micro_batch(0, 1)
    forward, backward = codec_bytes_per_token(spec, 256)
    tokens = spec.tokens_per_micro_batch
    assert [len(payload.data) for payload in here.forward_payloads] == [round(forward * tokens)] * (stages - 1)
    assert [len(payload.data) for payload in here.backward_payloads] == [round(backward * tokens)] * (stages - 1)


def test_a_subspace_in_bfloat16_costs_2k_plus_2_forward_and_2k_back(make_spec):
    spec = make_spec(boundary=Subspace(5))
    sequences, context = spec.micro_batch_size, spec.model.context
    forward, backward = codec_bytes_per_token(spec, 65_536)
    assert backward == 2 * 5
    assert forward * sequences * context == pytest.approx(sequences * (context * (2 * 5 + 2) + 2))  # and one target id a sequence
    forward, _ = codec_bytes_per_token(spec, 65_537)
    assert forward * sequences * context == pytest.approx(sequences * (context * (2 * 5 + 4) + 4))


@dataclasses.dataclass
class LargeVocabulary:
    """A corpus of ids above 65,535."""

    corpus: object

    def info(self):
        return dataclasses.replace(self.corpus.info(), vocab=70_000)

    def micro_batch(self, seed, round, index, size):
        return MicroBatch(self.corpus.micro_batch(seed, round, index, size).inputs.astype(np.int32) + 69_000, None)


def test_ids_of_a_large_vocabulary_travel_whole(make_spec, corpus):
    spec = make_spec(boundary=Subspace(2), stages=2, model={"d_model": 4, "n_head": 1, "n_layer": 2})
    large = LargeVocabulary(corpus)
    payload = StageCompute(spec, 0, large).run(tasks.Forward(0, 0, None)).output
    ids = payload.tensors()["ids"]
    assert ids.dtype == torch.int32
    assert np.array_equal(ids.numpy(), large.micro_batch(spec.seed, 0, 0, 2).inputs)
    assert len(payload.data) == round(codec_bytes_per_token(spec, 70_000)[0] * spec.tokens_per_micro_batch)


def test_encoding_a_stage_output_loses_nothing_and_a_foreign_stream_does(make_spec, corpus):
    spec = make_spec(boundary=Subspace(4, wire="same"))
    codec = StageCompute(spec, 0, corpus).codecs.current
    ids = torch.as_tensor(corpus.micro_batch(0, 0, 0, 2).inputs).to(torch.int64)[:, :-1]
    with torch.no_grad():
        x = build_stage(spec, 0, 256)(ids)
    assert (codec.decode(codec.encode(x, ids), ids, 16) - x).abs().max() < 1e-14
    foreign = torch.randn_like(x)
    assert (codec.decode(codec.encode(foreign, ids), ids, 16) - foreign).abs().max() > 0.1
    gradient = torch.randn_like(x)
    basis = stream_basis(spec, 256).basis
    assert torch.allclose(codec.decode_gradient(codec.encode_gradient(gradient), 16), gradient @ basis @ basis.T, atol=1e-14)


def test_an_mlp_crosses_its_boundaries_exactly(pipeline):
    from pluralis_lab.corpus.vectors import load_digits

    spec = RunSpec(model=MLP((64, 24, 12, 10)), data="digits", stages=3, batch_size=8, micro_batches=2, dtype="float64")
    digits = load_digits()
    here = pipeline(spec, digits)
    for step in train(spec, digits, steps=3):
        loss, gradients = here.step(step.round)
        assert abs(loss - step.loss) < 1e-14 * max(1.0, step.loss)
        assert max((a - b).abs().max() for a, b in zip(gradients, step.gradients, strict=True)) < 1e-13
    widest = codec_bytes_per_token(spec, 10)
    assert len(here.forward_payloads[0].data) == widest[0] * spec.micro_batch_size
