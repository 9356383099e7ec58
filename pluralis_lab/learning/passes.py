"""A micro-batch's way through one stage replica: forward, backward, and into the round's sum of weight gradients."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pluralis_lab.errors import RunError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.payload import Payload
from pluralis_lab.learning.refresh import energy_of
from pluralis_lab.learning.refreshing import Refreshing
from pluralis_lab.learning.stage_ends import StageEnds
from pluralis_lab.learning.stash import StashedStage, WeightStash
from pluralis_lab.models.stage import Stage
from pluralis_lab.spec import RunSpec


@dataclass
class _Flight:
    """A micro-batch between its forward and its backward pass: the graph's two ends, and the weights between them.

    version : steps the weights had when it went forward
    """

    entry: Tensor | None
    exit: Tensor
    weights: Sequence[Tensor]
    version: int
    stashed: StashedStage | None = None


@dataclass
class RoundSum:
    """A round's weight gradient so far: over which indices, one array a weight, and how late each was in steps."""

    indices: set[int] = field(default_factory=set)
    gradients: list[Tensor] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    energy: Tensor | None = None
    """Of the gradients at the stage's entry, where the subspace is about to turn."""

    def add(self, index: int, gradients: list[Tensor], delay: int) -> None:
        """Add a micro-batch's weight gradient."""
        self.indices.add(index)
        self.delays.append(delay)
        if not self.gradients:
            self.gradients = gradients
        elif len(self.indices) == 2:  # the first one's arrays may be shared: autograd hands out one for both terms of a sum
            self.gradients = list(torch._foreach_add(self.gradients, gradients))
        else:
            torch._foreach_add_(self.gradients, gradients)


class Passes:
    """Runs micro-batches through a stage, and keeps what is between their two passes and what they add up to.

    Weight gradients are summed **per round**; a micro-batch that was computed twice (its route changed) is never added twice,
    because the worker asks for the sum of exactly the indices it counted and this class refuses any other set.

    Under ``schedule="async"`` a step can fall between a micro-batch's forward and its backward pass. With stashing it comes
    back through a copy of the weights that it went forward with. Without, it comes back through the weights as they are by
    then: what autograd kept of them is looked at anew.

    Parameters
    ----------
    spec : the run's spec
    module : the stage, whose weights the steps change in place
    ends : where micro-batches come in and go out
    refreshing : what travels along when the subspace turns
    """

    def __init__(self, spec: RunSpec, module: Stage, *, ends: StageEnds, refreshing: Refreshing) -> None:
        self.spec, self.module, self.ends, self.refreshing = spec, module, ends, refreshing
        self.parameters = list(module.parameters())
        self.stash = WeightStash(module) if spec.is_async and spec.stashing and not module.is_last else None
        self.version = 0
        """Steps that the weights have made."""
        self.sums: dict[int, RoundSum] = {}
        self._flights: dict[tuple[int, int], _Flight] = {}

    def forward(self, task: tasks.Forward) -> tasks.ForwardDone:
        """Send a micro-batch through the stage; on the last one back as well. Raises WireError for inputs of a wrong shape."""
        is_own = task.inputs is None and self.ends.source.is_own(task)
        entered = self.ends.draw(task) if task.inputs is None else self.ends.receive(task.inputs)
        self._drop((task.round, task.index))
        x = entered.x if task.inputs is None else entered.x.requires_grad_(True)
        stashed = None if self.stash is None else self.stash.take()
        module, weights = (self.module, self.parameters) if stashed is None else (stashed.module, stashed.weights)
        with _looked_at_anew() if self.spec.is_async and not self.spec.stashing else nullcontext():
            out = module(x)
        flight = _Flight(None if task.inputs is None else x, out, weights, self.version, stashed)
        if not self.module.is_last:
            self._flights[task.round, task.index] = flight
            return tasks.ForwardDone(output=self.ends.send(out.detach(), entered), own=is_own)
        loss = self.module.loss_sum(out, self.ends.targets(entered.labels))
        # Every target of the round weighs the same, so each micro-batch's sum is divided by the round's count, not its own.
        share = loss / (self.spec.num_micro_batches * self.spec.tokens_per_micro_batch)
        try:
            gradient = self._differentiate(task, flight, share, None)
        except RunError:
            if not math.isfinite(loss.item()):
                return tasks.ForwardDone(loss=loss.item())  # which says more of what happened than its gradient
            raise
        return tasks.ForwardDone(loss=loss.item(), gradient=gradient)

    def backward(self, task: tasks.Backward) -> tasks.BackwardDone:
        """Bring a micro-batch back. Raises WireError for a gradient of a wrong shape, RunError where it never went forward."""
        flight = self._flights.get((task.round, task.index))
        if flight is None:
            raise RunError(
                f"backward of micro-batch {task.index} of round {task.round} without its forward; report this as a bug"
            )
        gradient, beside = self.ends.receive_gradient(task.gradient, tuple(flight.exit.shape))
        self.refreshing.hear(task.round, beside)
        del self._flights[task.round, task.index]
        return tasks.BackwardDone(gradient=self._differentiate(task, flight, flight.exit, gradient))

    def _differentiate(
        self, task: tasks.Forward | tasks.Backward, flight: _Flight, end: Tensor, gradient: Tensor | None
    ) -> Payload | None:
        """Go backward from `end`: add to the round's sum of weight gradients, and return the gradient of what came in."""
        entry = [] if flight.entry is None else [flight.entry]
        weights = flight.weights if task.counts else []
        total = self._sum(task.round) if task.counts else None
        if total is not None and task.index in total.indices:
            raise RunError(f"micro-batch {task.index} of round {task.round} was counted here already; report this as a bug")
        found = torch.autograd.grad(end, [*entry, *weights], gradient, materialize_grads=True) if entry or weights else ()
        if total is not None:
            total.add(task.index, list(found[len(entry) :]), task.round - flight.version)
            if self.refreshing.wants_energy(task.round):
                energy = energy_of(found[0])
                total.energy = energy if total.energy is None else total.energy + energy
        if self.stash is not None and flight.stashed is not None:
            self.stash.give_back(flight.stashed)
        return self.ends.send_gradient(found[0], self.refreshing.beside_gradient(task.round)) if entry else None

    def _sum(self, round_: int) -> RoundSum:
        return self.sums.setdefault(round_, RoundSum())

    def sum_over(self, round_: int, indices: Sequence[int]) -> tuple[Tensor, RoundSum]:
        """Return the round's weight gradient, flat and on the host, and what is known of it.

        Raises RunError where other micro-batches than `indices` were counted.
        """
        total = self._sum(round_)
        if set(indices) != total.indices:
            raise RunError(f"round {round_}: asked for the sum over {sorted(indices)}, but {sorted(total.indices)} were counted")
        return self.ends.transfers.to_host(torch.cat([array.flatten() for array in total.gradients])), total

    def forget_before(self, version: int) -> None:
        """Note that the weights have made `version` steps, and drop what nobody waits for any more of the rounds before."""
        self.version = version
        # Under `async` the stage before may be so many rounds behind and still wait for a gradient of this stage's input; one
        # more, as that gradient may have come just before the step.
        kept = self.spec.window + 2 if self.spec.is_async else 0
        for key in [key for key in self._flights if key[0] < version - kept]:
            self._drop(key)
        for round_ in [number for number in self.sums if number < version]:
            del self.sums[round_]

    def weights_have_changed(self) -> None:
        """Let no micro-batch go forward through a copy of the weights from before."""
        if self.stash is not None:
            self.stash.forget_newest()

    def _drop(self, key: tuple[int, int]) -> None:
        """Forget a micro-batch that is under way, if it is: nobody waits for it any more."""
        flight = self._flights.pop(key, None)
        if flight is not None and self.stash is not None and flight.stashed is not None:
            self.stash.give_back(flight.stashed)


@contextmanager
def _looked_at_anew() -> Iterator[None]:
    """Let autograd keep views instead of snapshots: a weight that a step changes meanwhile is then used as it is by then."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.detach(), lambda kept: kept):
        yield
