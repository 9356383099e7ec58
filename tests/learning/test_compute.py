"""StageCompute: tasks in order, inputs of the right shape, steps like the reference's, and a state that moves whole."""

import hashlib

import pytest
import torch

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.reference import train
from pluralis_lab.parts import SGD, AdamW, Dense, DiLoCo, FullSync, Muon, Subspace

EVERYTHING = (0, 1)


def part(worker, indices, gradient):
    return tasks.Part(worker, tuple(indices), gradient)


def flat(stage, fill=0.0):
    return pack([("g", torch.full((stage.num_parameters,), fill, dtype=stage.dtype))])


# --- order -------------------------------------------------------------------------------------------------------------


def test_a_backward_without_its_forward_is_refused(make_spec, pipeline):
    head = pipeline(make_spec(boundary=Dense())).stages[0]
    gradient = pack([("g", torch.zeros(2, 12, 16, dtype=torch.float64))])
    with pytest.raises(RunError, match="micro-batch 1 of round 0 without its forward"):
        head.run(tasks.Backward(0, 1, gradient))
    head.run(tasks.Forward(0, 0, None))
    with pytest.raises(RunError, match="micro-batch 0 of round 1"):
        head.run(tasks.Backward(1, 0, gradient))


def test_a_micro_batch_cannot_be_counted_twice(make_spec, pipeline):
    here = pipeline(make_spec())
    here.micro_batch(0, 0)
    head, middle, tail = here.stages
    again = middle.run(tasks.Forward(0, 0, here.forward_payloads[0])).output
    with pytest.raises(RunError, match="counted here already"):
        tail.run(tasks.Forward(0, 0, again))
    with pytest.raises(RunError, match="counted here already"):
        middle.run(tasks.Backward(0, 0, here.backward_payloads[0]))
    with pytest.raises(RunError, match="without its forward"):
        head.run(tasks.Backward(0, 0, here.backward_payloads[1]))
    untouched = pipeline(make_spec())
    untouched.micro_batch(0, 0)
    for stage, other in zip(here.stages, untouched.stages, strict=True):
        assert stage.run(tasks.Collect(0, (0,))).gradient.digest == other.run(tasks.Collect(0, (0,))).gradient.digest


@pytest.mark.parametrize("indices", [(), (0,), (1,), (0, 1, 2)])
def test_only_the_sum_of_what_was_counted_can_be_collected(indices, make_spec, pipeline):
    here = pipeline(make_spec())
    for index in EVERYTHING:
        here.micro_batch(0, index)
    for stage in here.stages:
        with pytest.raises(RunError, match=r"\[0, 1\] were counted"):
            stage.run(tasks.Collect(0, indices))
        stage.run(tasks.Collect(0, (1, 0)))


def test_a_step_starts_the_next_round_from_nothing(make_spec, pipeline):
    here = pipeline(make_spec())
    here.step(0)
    for stage in here.stages:
        with pytest.raises(RunError, match=r"\[\] were counted"):
            stage.run(tasks.Collect(1, EVERYTHING))


# --- what comes over the wire ------------------------------------------------------------------------------------------


def ids_like(spec, fill=5, dtype=torch.uint16, shape=None):
    return torch.full(shape or (spec.micro_batch_size, spec.model.context + 1), fill, dtype=dtype)


def wire_like(spec, width, dtype=torch.float64, shape=None):
    return torch.zeros(shape or (spec.micro_batch_size, spec.model.context, width), dtype=dtype)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("boundary", [Dense(), Subspace(4, wire="same")], ids=["dense", "subspace"])
def test_inputs_of_a_wrong_shape_or_kind_are_refused(boundary, evaluate, make_spec, pipeline):
    spec = make_spec(boundary=boundary)
    width = 4 if isinstance(boundary, Subspace) else 16
    good = [("z", wire_like(spec, width)), ("ids", ids_like(spec))]
    bad = {
        "no ids": good[:1],
        "no activation": good[1:],
        "other width": [("z", wire_like(spec, width + 1)), good[1]],
        "two dimensions": [("z", wire_like(spec, width, shape=(2, 12))), good[1]],
        "other batch": [("z", wire_like(spec, width, shape=(3, 12, width))), good[1]],
        "both batches": [("z", wire_like(spec, width, shape=(1, 12, width))), ("ids", ids_like(spec, shape=(1, 13)))],
        "integers": [("z", wire_like(spec, width, dtype=torch.int64)), good[1]],
        "longer sequence": [("z", wire_like(spec, width, shape=(2, 13, width))), ("ids", ids_like(spec, shape=(2, 14)))],
        "flat ids": [good[0], ("ids", ids_like(spec, shape=(26,)))],
        "no sequence": [("z", wire_like(spec, width, shape=(0, 12, width))), ("ids", ids_like(spec, shape=(0, 13)))],
        "float ids": [good[0], ("ids", ids_like(spec, dtype=torch.float32))],
        "id above the vocabulary": [good[0], ("ids", ids_like(spec, fill=300))],
        "negative id": [good[0], ("ids", ids_like(spec, fill=-1, dtype=torch.int64))],
        "huge id": [good[0], ("ids", ids_like(spec, fill=2**62, dtype=torch.int64))],
    }
    middle = pipeline(spec).stages[1]
    task = tasks.Evaluate if evaluate else tasks.Forward
    for arrays in bad.values():
        with pytest.raises(WireError):
            middle.run(task(0, 0, pack(arrays)))
    assert middle.run(task(0, 0, pack(good))).output is not None


def test_classes_of_an_mlp_are_checked_too(pipeline):
    from pluralis_lab.corpus.vectors import load_digits
    from pluralis_lab.parts import MLP
    from pluralis_lab.spec import RunSpec

    spec = RunSpec(model=MLP((64, 24, 10)), data="digits", stages=2, batch_size=4, micro_batches=2)
    tail = pipeline(spec, load_digits()).stages[1]
    x = torch.zeros(2, 24)
    for labels in (torch.tensor([0, 10]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(WireError):
            tail.run(tasks.Forward(0, 0, pack([("z", x), ("ids", labels)])))
    with pytest.raises(WireError):
        tail.run(tasks.Forward(0, 0, pack([("z", torch.zeros(2, 64)), ("ids", torch.tensor([0, 1]))])))
    assert tail.run(tasks.Forward(0, 0, pack([("z", x), ("ids", torch.tensor([0, 9]))]))).loss > 0


@pytest.mark.parametrize("boundary", [Dense(), Subspace(4, wire="same")], ids=["dense", "subspace"])
def test_a_gradient_of_a_wrong_shape_is_refused_and_the_right_one_still_counts(boundary, make_spec, pipeline):
    here, other = pipeline(make_spec(boundary=boundary)), pipeline(make_spec(boundary=boundary))
    other.micro_batch(0, 0)
    head = here.stages[0]
    head.run(tasks.Forward(0, 0, None))
    width = 4 if isinstance(boundary, Subspace) else 16
    for arrays in (
        [("g", torch.zeros(2, 12, width + 1, dtype=torch.float64))],
        [("g", torch.zeros(1, 12, width, dtype=torch.float64))],
        [("g", torch.zeros(width, dtype=torch.float64))],
        [("h", torch.zeros(2, 12, width, dtype=torch.float64))],
    ):
        with pytest.raises(WireError):
            head.run(tasks.Backward(0, 0, pack(arrays)))
    head.run(tasks.Backward(0, 0, other.backward_payloads[1]))
    assert head.run(tasks.Collect(0, (0,))).gradient.digest == other.stages[0].run(tasks.Collect(0, (0,))).gradient.digest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e305])
def test_a_gradient_that_cannot_be_computed_with_is_found_and_its_worker_named(value, make_spec, pipeline):
    stage = pipeline(make_spec()).stages[1]
    before = stage.state_digest()
    poisoned = torch.zeros(stage.num_parameters, dtype=torch.float64)
    poisoned[-1] = value
    parts = (part("worker-2", [0], flat(stage)), part("worker-3", [1], pack([("g", poisoned)])))
    found = stage.run(tasks.Inspect(7, parts))
    assert list(found.unusable) == ["worker-3"]
    assert "in what worker-3 sent in round 7" in found.unusable["worker-3"]
    assert not found.norms
    with pytest.raises(WireError, match=r"in what worker-3 sent in round 7"):  # whoever asks for it nevertheless
        stage.run(tasks.Apply(7, parts))
    assert stage.state_digest() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e305])
def test_an_own_gradient_that_nobody_could_compute_with_ends_the_run_before_it_is_sent(value, make_spec, pipeline):
    for sync in (FullSync(), FullSync(transport="butterfly"), DiLoCo(inner_steps=2)):
        boundary = Dense() if isinstance(sync, DiLoCo) else make_spec().boundary
        here = pipeline(make_spec(sync=sync, boundary=boundary))
        here.micro_batch(0, 0)
        stage = here.stages[1]
        total = stage.passes.sums[0]
        total.gradients[-1].view(-1)[-1] = value
        with pytest.raises(RunError, match=r"this worker's gradient of round 0; lower the learning rate"):
            stage.run(tasks.Collect(0, tuple(sorted(total.indices))))


def test_a_weight_gradient_of_another_size_or_dtype_is_refused(make_spec, pipeline):
    stage = pipeline(make_spec()).stages[1]
    n = stage.num_parameters
    for arrays in (
        [("g", torch.zeros(n + 1, dtype=torch.float64))],
        [("g", torch.zeros(n, 1, dtype=torch.float64))],
        [("g", torch.zeros(n, dtype=torch.float32))],
        [("x", torch.zeros(n, dtype=torch.float64))],
    ):
        parts = (part("worker-3", EVERYTHING, pack(arrays)),)
        assert list(stage.run(tasks.Inspect(0, parts)).unusable) == ["worker-3"]
        with pytest.raises(WireError, match="worker-3"):
            stage.run(tasks.Apply(0, parts))


@pytest.mark.parametrize("indices", [[(0,)], [(0, 1), (1,)], [(0,), (0,)], [(1, 2)], [(0, 0)]])
def test_a_step_from_missing_or_double_micro_batches_is_refused(indices, make_spec, pipeline):
    stage = pipeline(make_spec()).stages[1]
    before = stage.state_digest()
    parts = tuple(part(f"worker-{n}", covered, flat(stage, 1.0)) for n, covered in enumerate(indices))
    with pytest.raises(RunError, match="not each of the round's once"):
        stage.run(tasks.Apply(0, parts))
    assert stage.state_digest() == before


# --- the step ----------------------------------------------------------------------------------------------------------


def test_two_replicas_step_like_one_process_with_twice_the_batch(make_spec, pipeline, corpus):
    spec = make_spec(replicas=2, boundary=Subspace(4, wire="same"))
    one, two = pipeline(spec), pipeline(spec)
    for step in train(spec, corpus, steps=5):
        loss_one, sums_one = one.collect(step.round, [0, 3])
        loss_two, sums_two = two.collect(step.round, [1, 2])
        targets = spec.num_micro_batches * spec.tokens_per_micro_batch
        assert abs((loss_one + loss_two) / targets - step.loss) < 1e-13
        for n, (a, b) in enumerate(zip(sums_one, sums_two, strict=True)):
            whole = a.tensors()["g"] + b.tensors()["g"]
            assert (whole - step.gradients[n]).abs().max() < 1e-13
            parts = (part("worker-0", [0, 3], a), part("worker-1", [1, 2], b))
            first = one.stages[n].run(tasks.Apply(step.round, parts, wants_digest=True)).state_digest
            # The other replica got them in the other order, and holds the same weights to the bit.
            assert two.stages[n].run(tasks.Apply(step.round, parts[::-1], wants_digest=True)).state_digest == first


def test_the_step_is_adamws_with_the_rounds_rate(make_spec, pipeline):
    stage = pipeline(make_spec()).stages[1]
    spec, before = stage.spec, torch.cat([p.detach().flatten() for p in stage.parameters])
    gradient = torch.linspace(-1, 1, stage.num_parameters, dtype=torch.float64)
    stage.run(tasks.Apply(3, (part("worker-1", EVERYTHING, pack([("g", gradient)])),)))
    after = torch.cat([p.detach().flatten() for p in stage.parameters])
    rate = spec.optimizer.lr * 4 / 11  # the fourth of a warm-up over 10 rounds; AdamW's first step is rate * sign
    assert torch.allclose(before - after, rate * gradient / (gradient.abs() + 1e-8), atol=1e-12)


def test_inspect_measures_without_changing_anything(make_spec, pipeline):
    stage = pipeline(make_spec()).stages[1]
    before = stage.state_digest()
    done = stage.run(tasks.Inspect(0, (part("a", [0], flat(stage, 2.0)), part("b", [1], flat(stage, -1.0)))))
    size = stage.num_parameters**0.5
    assert done.norms == pytest.approx({"a": 2 * size, "b": size})
    assert done.agreements == pytest.approx({"a": -1.0, "b": -1.0})
    assert stage.run(tasks.Inspect(0, (part("a", EVERYTHING, flat(stage, 2.0)),))).agreements == {"a": None}
    assert stage.state_digest() == before


def test_validation_gives_the_loss_without_leaving_a_gradient(make_spec, pipeline, corpus):
    here = pipeline(make_spec(boundary=Subspace(4, wire="same")))
    wire, keeps_graphs = None, []
    for stage in here.stages:
        stage.module.register_forward_hook(lambda *_: keeps_graphs.append(torch.is_grad_enabled()))
    for stage in here.stages[:-1]:
        wire = stage.run(tasks.Evaluate(0, 0, wire)).output
    done = here.stages[-1].run(tasks.Evaluate(0, 0, wire))
    assert done.tokens == here.spec.tokens_per_micro_batch
    assert keeps_graphs == [False] * 3
    assert 4.5 < done.loss / done.tokens < 6.5  # ln 256 = 5.55
    with pytest.raises(RunError, match=r"\[\] were counted"):
        here.stages[-1].run(tasks.Collect(0, (0,)))
    assert all(parameter.grad is None for stage in here.stages for parameter in stage.parameters)
    whole = StageCompute(here.spec.replace(stages=1), 0, corpus)
    assert whole.run(tasks.Evaluate(0, 0, None)).loss == pytest.approx(done.loss, rel=1e-12)


# --- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [AdamW(), SGD(), Muon()], ids=lambda part: part.kind)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_restored_stage_goes_on_to_the_bit(dtype, optimizer, make_spec, pipeline):
    here, there = (pipeline(make_spec(dtype=dtype, optimizer=optimizer)) for _ in range(2))
    for round_ in range(3):
        here.step(round_)
    states = [stage.run(tasks.Snapshot(3)) for stage in here.stages]
    there.step(0)  # it had weights, gradients and optimizer state of its own
    there.micro_batch(1, 0)
    for stage, state in zip(there.stages, states, strict=True):
        assert stage.run(tasks.Restore(3, state.state, state.digest)).version == 3
    assert there.digests() == here.digests()
    for round_ in range(3, 6):
        (loss, gradients), (again, gradients_again) = here.step(round_), there.step(round_)
        assert loss == again
        assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_again, strict=True))
        assert there.digests() == here.digests()
    for ours, theirs in zip(here.stages, there.stages, strict=True):
        assert ours.run(tasks.Snapshot(6)).digest == theirs.run(tasks.Snapshot(6)).digest


def test_a_state_before_the_first_step_can_be_restored(make_spec, pipeline):
    here, there = pipeline(make_spec()), pipeline(make_spec())
    first = here.stages[1].run(tasks.Snapshot(0))
    there.step(0)
    there.stages[1].run(tasks.Restore(0, first.state, first.digest))
    assert there.stages[1].state_digest() == here.stages[1].state_digest()
    assert not there.stages[1].optimizer.state


def damaged(state, kind, other_stage):
    from safetensors.torch import load, save

    tensors = load(state)
    name = min(key for key in tensors if key.startswith("weight/"))
    moment = min(key for key in tensors if key.endswith("/exp_avg"))
    if kind == "cut":
        return state[:-3]
    if kind == "no safetensors":
        return b"\x80\x04not a state"
    if kind == "another stage":
        return other_stage
    if kind == "a weight missing":
        del tensors[name]
    elif kind == "another shape":
        tensors[max(key for key in tensors if key.startswith("weight/"))] = torch.zeros(3, 3, dtype=torch.float64)
    elif kind == "a step that is no number":
        tensors[moment.removesuffix("exp_avg") + "step"] = torch.zeros(3)
    elif kind == "another dtype":
        tensors[name] = tensors[name].float()
    elif kind == "a moment missing":
        del tensors[moment]
    elif kind == "a moment of another shape":
        tensors[moment] = tensors[moment].flatten()[:1]
    elif kind == "an unknown moment":
        tensors[moment + "_x"] = tensors[moment].clone()
    return save(tensors)


KINDS = [
    "cut",
    "no safetensors",
    "another stage",
    "a weight missing",
    "another shape",
    "another dtype",
    "a moment missing",
    "a moment of another shape",
    "an unknown moment",
    "a step that is no number",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_state_is_refused_and_changes_nothing(kind, make_spec, pipeline):
    here = pipeline(make_spec())
    here.step(0)
    stage = here.stages[1]
    state = stage.run(tasks.Snapshot(1))
    here.step(1)
    before = stage.run(tasks.Snapshot(2)).digest
    bad = damaged(state.state, kind, here.stages[0].run(tasks.Snapshot(1)).state)
    with pytest.raises(WireError):
        stage.run(tasks.Restore(1, bad, hashlib.sha256(bad).hexdigest()))
    assert stage.run(tasks.Snapshot(2)).digest == before


def test_a_state_with_another_digest_is_refused(make_spec, pipeline):
    stage = pipeline(make_spec()).stages[0]
    done = stage.run(tasks.Snapshot(0))
    for position in (0, len(done.state) // 2, len(done.state) - 1):
        flipped = bytearray(done.state)
        flipped[position] ^= 1
        with pytest.raises(WireError, match=r"not the announced"):
            stage.run(tasks.Restore(0, bytes(flipped), done.digest))


def test_the_state_digest_is_that_of_the_weights_alone(make_spec, pipeline):
    one, two = pipeline(make_spec()), pipeline(make_spec())
    assert one.digests() == two.digests()
    assert len(set(one.digests())) == 3
    one.micro_batch(0, 0)
    assert one.digests() == two.digests()
    with torch.no_grad():
        one.stages[0].parameters[-1].view(-1)[0] += 1e-12
    assert one.digests()[0] != two.digests()[0]
    assert one.digests()[1:] == two.digests()[1:]


@pytest.mark.gpu
@pytest.mark.parametrize("boundary", [Dense(), Subspace(4, wire="same")], ids=["dense", "subspace"])
def test_a_gpu_computes_what_a_cpu_does_and_a_state_moves_between_them(boundary, make_spec, pipeline, corpus):
    spec = make_spec(boundary=boundary)
    here, there = pipeline(spec), pipeline(spec)
    there.stages = [StageCompute(spec, stage, corpus, device="cuda:0") for stage in range(spec.stages)]
    for round_ in range(3):
        (loss, gradients), (other, other_gradients) = here.step(round_), there.step(round_)
        assert abs(loss - other) < 1e-12
        assert max((a - b).abs().max() for a, b in zip(gradients, other_gradients, strict=True)) < 1e-11
    for stage, other in zip(here.stages, there.stages, strict=True):
        state = stage.run(tasks.Snapshot(3))
        other.run(tasks.Restore(3, state.state, state.digest))
        assert other.state_digest() == stage.state_digest()
    assert abs(here.step(3)[0] - there.step(3)[0]) < 1e-12
