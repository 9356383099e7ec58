"""The turn of a subspace: its mathematics, what it costs, what is refused, and texts that are under way meanwhile."""

import pytest
import torch

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.payload import joined, pack
from pluralis_lab.learning.reference import train
from pluralis_lab.learning.refresh import check_basis, energy_of, turned
from pluralis_lab.learning.refreshing import VERSION
from pluralis_lab.models.seeded import generator, orthonormal
from pluralis_lab.models.stage import stream_basis
from pluralis_lab.parts import SGD, AdamW, Subspace

WIDTH, RANK = 16, 4


@pytest.fixture
def make_turning(make_spec):
    def make(*, step=0.5, every=2, **fields):
        boundary = Subspace(RANK, wire="same", refresh_every=every, refresh_step=step)
        return make_spec(**{"boundary": boundary, "steps": 20, **fields})

    return make


def basis_and_energy(seed=0):
    rows = torch.from_numpy(generator(seed, "rows").standard_normal((3, 40, WIDTH)) * [2.0 ** (-k) for k in range(WIDTH)])
    return torch.from_numpy(orthonormal(seed, "basis", WIDTH, RANK)), energy_of(rows)


def share_inside(basis, energy):
    return ((basis.T @ energy @ basis).trace() / energy.trace()).item()


# --- mathematics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_each_turn_takes_in_more_of_the_energy_and_stays_orthonormal(seed, step):
    basis, energy = basis_and_energy(seed)
    shares = [share_inside(basis, energy)]
    for _ in range(30):
        basis = turned(basis, energy, step)
        assert (basis.T @ basis - torch.eye(RANK, dtype=torch.float64)).abs().max() < 1e-14
        shares.append(share_inside(basis, energy))
    assert shares == sorted(shares)
    best = torch.linalg.eigvalsh(energy)[-RANK:].sum() / energy.trace()
    assert shares[-1] > 0.9 * best or step < 0.5


def test_a_small_step_turns_little_and_no_energy_does_not_turn_at_all():
    basis, energy = basis_and_energy()
    moved = turned(basis, energy, 1e-6)
    assert 0 < (moved - basis).abs().max() < 1e-6  # and no column has changed its sign
    assert torch.equal(turned(basis, torch.zeros_like(energy), 0.5), basis)
    assert torch.equal(turned(basis, energy * 1e-30, 0.5), turned(basis, energy, 0.5)) or torch.allclose(
        turned(basis, energy * 1e-30, 0.5), turned(basis, energy, 0.5), atol=1e-12
    )


def test_the_energy_is_the_sum_over_tokens():
    gradient = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    expected = sum(torch.outer(g, g) for g in gradient.flatten(0, 1))
    assert torch.allclose(energy_of(gradient), expected, atol=1e-12)


# --- exactness ---------------------------------------------------------------------------------------------------------


def test_boundaries_are_exact_before_and_after_each_turn(make_turning, pipeline, corpus):
    spec = make_turning()
    here = pipeline(spec)
    drawn, bases = stream_basis(spec, corpus.info().vocab), []
    for expected in train(spec, corpus, steps=9):
        loss, gradients = here.step(expected.round)
        assert abs(loss - expected.loss) < 1e-12
        for gradient, other in zip(gradients, expected.gradients, strict=True):
            assert (gradient[: len(other)] - other).abs().max() < 1e-12
        head, basis = here.stages[0], here.stages[0].refreshing.basis
        assert all(torch.equal(stage.refreshing.basis, basis) for stage in here.stages)
        ids = head.ends.draw(tasks.Forward(expected.round + 1, 0, None)).ids
        with torch.no_grad():
            written = head.module(ids) - drawn.fixed[ids]
        assert (written - written @ basis @ basis.T).square().sum() < 1e-28 * written.square().sum()
        if not bases or not torch.equal(basis, bases[-1]):
            bases.append(basis)
    assert len(bases) == 5  # as drawn, and after rounds 2, 4, 6 and 8
    assert (written - written @ drawn.basis @ drawn.basis.T).norm() > 1e-2 * written.norm()


def test_what_a_turn_costs_is_bounded_by_its_step(make_turning, pipeline):
    """The loss of the round after a turn, over that of the same run without one."""
    jumps = []
    for step in (0.05, 0.2, 1.0):
        turning, still = pipeline(make_turning(step=step)), pipeline(make_turning(every=100))
        losses = [[here.step(round_)[0] for round_ in range(4)] for here in (turning, still)]
        assert losses[0][:3] == losses[1][:3]
        jumps.append(abs(losses[0][3] - losses[1][3]))
    assert 0 < jumps[0] < jumps[1] < jumps[2] < 0.5


@pytest.mark.parametrize("optimizer", [AdamW(), SGD(momentum=0.9)], ids=lambda part: part.kind)
def test_moments_turn_with_the_weights(optimizer, make_turning, pipeline):
    here, still = pipeline(make_turning(optimizer=optimizer)), pipeline(make_turning(optimizer=optimizer, every=100))
    old = here.stages[0].refreshing.basis
    for round_ in range(3):
        here.step(round_)
        still.step(round_)
    turn = old.T @ here.stages[0].refreshing.basis
    assert (turn - torch.eye(RANK, dtype=torch.float64)).abs().max() > 1e-4
    weight, other = here.stages[0].module.embedding.table, still.stages[0].module.embedding.table
    assert torch.allclose(weight, other @ turn, atol=1e-14)
    mine, theirs = here.stages[0].optimizer.state[weight], still.stages[0].optimizer.state[other]
    for key in ("exp_avg", "momentum_buffer"):
        if key in mine:
            assert torch.allclose(mine[key], theirs[key] @ turn, atol=1e-16)
    if "exp_avg_sq" in mine:
        assert torch.allclose(mine["exp_avg_sq"], theirs["exp_avg_sq"] @ turn.square(), atol=1e-18)
        assert (mine["exp_avg_sq"] >= 0).all()
        assert torch.equal(mine["step"], theirs["step"])
    free, other = here.stages[0].module.blocks[0].qkv, still.stages[0].module.blocks[0].qkv
    assert torch.equal(free, other)


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_a_gradient_must_bring_the_next_basis_when_the_subspace_turns(make_turning, pipeline):
    here = pipeline(make_turning())
    for round_ in range(2):
        here.step(round_)
    here.micro_batch(2, 0)
    middle, good = here.stages[1], here.backward_payloads[-2]
    assert [name for name, _, _ in good.layout] == ["g", "u"]
    middle.run(tasks.Forward(2, 1, here.forward_payloads[-2]))
    arrays = good.tensors()
    bad = {
        "without": [],
        "another width": [("u", arrays["u"][:-1])],
        "another format": [("u", arrays["u"].float())],
        "too long": [("u", arrays["u"] * 1.001)],
        "NaN": [("u", arrays["u"] * float("nan"))],
    }
    for beside in bad.values():
        with pytest.raises(WireError, match=r"basis|the new one"):
            middle.run(tasks.Backward(2, 1, pack([("g", arrays["g"]), *beside])))
    middle.run(tasks.Backward(2, 1, good))


def test_a_contribution_must_carry_what_belongs_to_its_round(make_turning, pipeline):
    here = pipeline(make_turning())
    here.step(0)
    _, gradients = here.collect(1, [0, 1])
    tail, good = here.stages[-1], gradients[-1]
    assert [name for name, _, _ in good.layout] == ["g", "s"]
    energy = good.tensors()["s"]
    for beside in ([], [("s", energy[:-1])], [("s", energy * float("inf"))], [("s", energy), ("u", energy)]):
        part = tasks.Part("worker-1", (0, 1), joined(good.first(1), beside))
        assert "the gradient of worker-1" in tail.run(tasks.Inspect(1, (part,))).unusable["worker-1"]
    middle = here.stages[1]
    part = tasks.Part("worker-1", (0, 1), joined(gradients[1], [("s", energy)]))
    assert "beside its gradient" in middle.run(tasks.Inspect(1, (part,))).unusable["worker-1"]


def test_a_basis_that_nobody_told_is_a_bug_and_a_state_without_one_is_refused(make_turning, make_spec, pipeline):
    here = pipeline(make_turning())
    for stage in here.stages:
        stage._forget_before(2)
    with pytest.raises(RunError, match="another subspace that nobody told"):
        here.micro_batch(2, 0)
    other = pipeline(make_spec(boundary=Subspace(RANK, wire="same"))).stages[0].run(tasks.Snapshot(0))
    with pytest.raises(WireError, match="subspace/basis"):
        here.stages[0].run(tasks.Restore(0, other.state, other.digest))


def test_a_basis_must_be_orthonormal_to_the_precision_of_the_run(make_turning):
    basis, _ = basis_and_energy()
    assert check_basis({"u": basis}, make_turning()) is basis
    with pytest.raises(WireError, match="not orthonormal"):
        check_basis({"u": basis + 1e-6}, make_turning())
    assert check_basis({"u": basis.float()}, make_turning(dtype="float32")) is not None


# --- texts and held-out losses meanwhile -------------------------------------------------------------------------------


def say(stage, start, ids, wire):
    return stage.run(tasks.Infer("ab", 0, start, tuple(ids), wire, tasks.Draw(start + len(ids), 0.0, 0)))


def test_a_text_goes_on_in_the_subspace_that_it_was_begun_in(make_turning, pipeline):
    here, still = pipeline(make_turning()), pipeline(make_turning())
    for round_ in range(2):
        here.step(round_)
        still.step(round_)
    said = []
    for pipe in (here, still):
        head, middle, tail = pipe.stages
        first = say(tail, 0, (), say(middle, 0, (), say(head, 0, (5, 6, 7), None).output).output)
        if pipe is here:
            pipe.step(2)  # and the subspace turns
        said.append((first.token, say(tail, 3, (), say(middle, 3, (), say(head, 3, (8,), None).output).output).token))
    assert said[0] == said[1]
    head, middle, _ = here.stages
    assert say(head, 0, (5, 6, 7), None).output.tensors()[VERSION].tolist() == [1]


def test_stages_that_are_a_turn_apart_understand_each_other(make_turning, pipeline):
    here, behind = pipeline(make_turning()), pipeline(make_turning())
    for round_ in range(2):
        here.step(round_)
        behind.step(round_)
    early = here.stages[0].run(tasks.Probe("ask", 0, None)).output
    here.step(2)
    late = here.stages[0].run(tasks.Probe("ask", 0, None)).output
    assert (early.tensors()[VERSION].item(), late.tensors()[VERSION].item()) == (0, 1)
    before, after = behind.stages[1], here.stages[1]
    _, gradients = behind.collect(2, [0, 1])
    before.run(tasks.Inspect(2, (tasks.Part("worker-0", (0, 1), gradients[1]),)))  # all it has done when the head has turned
    drawn = here.stages[0].ends.draw_validation(0).ids
    stream = here.stages[0].module(drawn).detach()
    for stage in (before, after):
        assert (stage.ends.receive(late, may_be_apart=True).x - stream).abs().max() < 1e-14
        stage.run(tasks.Probe("ask", 0, late))
        stage.run(tasks.Probe("ask", 0, early))
    with pytest.raises(WireError, match="subspace"):
        after.run(tasks.Forward(3, 0, early))  # training is never apart
    unknown = pack(
        [*((name, array) for name, array in late.tensors().items() if name != VERSION), (VERSION, torch.tensor([7]).int())]
    )
    after.run(tasks.Probe("ask", 0, unknown))
    with pytest.raises(WireError, match="does not say in which subspace"):
        after.run(tasks.Probe("ask", 0, pack([(name, late.tensors()[name]) for name in ("z", "ids")])))
