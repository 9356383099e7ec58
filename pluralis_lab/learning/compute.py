"""One stage replica's arithmetic: weights, optimizer, and the tasks that a worker asks for."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from pluralis_lab.contributions.agreement import gradient_norm, measure
from pluralis_lab.corpus.batches import Corpus
from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning import snapshots, tasks
from pluralis_lab.learning.chunks import ChunkedSums
from pluralis_lab.learning.delays import delay_factor, stage_rule
from pluralis_lab.learning.drawing import Drawing
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.inference import StageInference
from pluralis_lab.learning.local_sync import LocalSync
from pluralis_lab.learning.optimizers import build_optimizer, learning_rate
from pluralis_lab.learning.passes import Passes
from pluralis_lab.learning.payload import joined, pack
from pluralis_lab.learning.refreshing import Codecs, Refreshing
from pluralis_lab.learning.round_gradients import RoundGradients
from pluralis_lab.learning.stage_ends import StageEnds
from pluralis_lab.learning.sync_mark import read_mark, write_mark
from pluralis_lab.learning.usable import check_own, largest_gradient, unusable
from pluralis_lab.models.arithmetic import missing_compiler
from pluralis_lab.models.stage import Stage, build_stage, num_parameters, torch_dtype
from pluralis_lab.parts import GPT
from pluralis_lab.spec import RunSpec


class StageCompute:
    """Executes tasks for one replica of one stage. Not thread-safe: one caller at a time.

    Micro-batches go through the stage in `Passes`; what their gradients become, the step and the exchange, is here.

    Parameters
    ----------
    spec : the run's spec
    stage : the stage to hold; only its weights are built
    corpus : where the head draws micro-batches from; other stages need none if they are told the `vocab`
    vocab : token ids or classes of the corpus, which shape embedding and head; None: as the corpus says
    device : "cpu" or "cuda:N"
    own : another corpus of this worker alone, which the head draws `RunSpec.own_data` of its micro-batches from
    gradients : where the replicas' gradients are read; None: this replica's own

    Raises RunError where the machine has no such device, or no compiler though the spec wants compiled blocks.
    """

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        corpus: Corpus | None,
        *,
        vocab: int | None = None,
        device: str = "cpu",
        own: Corpus | None = None,
        gradients: RoundGradients | None = None,
    ) -> None:
        if corpus is None and (stage == 0 or vocab is None):
            raise RunError(f"stage {stage} was given no corpus; the head draws from one, and other stages must be told its vocab")
        self.spec, self.index, self.corpus, self.device = spec, stage, corpus, torch.device(device)
        if self.device.type == "cuda" and (self.device.index or 0) >= torch.cuda.device_count():
            raise RunError(f"stage {stage} is to be on {device!r}, but torch finds {torch.cuda.device_count()} CUDA devices here")
        self.dtype = torch_dtype(spec)
        self.vocab = corpus.info().vocab if corpus is not None else vocab or 0
        self.module: Stage = build_stage(spec, stage, self.vocab).to(self.device)
        self.codecs = Codecs(spec, self.vocab, self.device)
        source = Drawing(spec, corpus, own, vocab=self.vocab)
        self.ends = StageEnds(spec, stage, source=source, vocab=self.vocab, codecs=self.codecs, device=self.device)
        self.update_rule = stage_rule(spec, stage)
        self.optimizer = build_optimizer(self.module, self.update_rule)
        self.refreshing = Refreshing(spec, self.module, self.optimizer, self.codecs, stage=stage)
        self.passes = Passes(spec, self.module, ends=self.ends, refreshing=self.refreshing)
        self.parameters = self.passes.parameters
        self.num_parameters = num_parameters(self.module)
        self.format = FlatFormat(spec.sync.payload, self.dtype)
        self.format.self_test()
        self.local_sync = None if spec.sync_every is None else LocalSync(spec, stage, self.parameters)
        self.chunked = ChunkedSums(self.format, self.num_parameters) if spec.is_butterfly else None
        self._displaced_at = -1
        self.inference: StageInference | None = None
        if isinstance(spec.model, GPT):
            shape = {"context": spec.model.context, "width": spec.model.d_model, "vocab": self.vocab}
            self.inference = StageInference(self.module, self.codecs, **shape, device=self.device)
        self._gradients = gradients or RoundGradients(self.format, self.num_parameters)
        self._own: dict[str, Tensor] = {}
        """Where replicas train locally, this one's sums by what stands for them."""
        self._checked: set[str] = set()
        """Contributions to the round, by digest, that carry along what belongs there."""
        if spec.compile:
            if missing := missing_compiler(self.device.type):
                raise RunError(f"compile=True on {device}: {missing}")
            self._compile()
        self._handlers: dict[type, Callable[..., tasks.Result]] = {
            tasks.Forward: self.passes.forward,
            tasks.Backward: self.passes.backward,
            tasks.Collect: self._collect,
            tasks.Reduce: self._reduce,
            tasks.Inspect: self._inspect,
            tasks.Apply: self._apply,
            tasks.LocalStep: self._local_step,
            tasks.Displace: self._displace,
            tasks.Measure: self._measure,
            tasks.Merge: self._merge,
            tasks.Evaluate: self._evaluate,
            tasks.Probe: self._evaluate,
            tasks.Infer: self._infer,
            tasks.EndInference: self._end_inference,
            tasks.Snapshot: self._snapshot,
            tasks.Restore: self._restore,
        }

    def run(self, task: tasks.Task, upcoming: tasks.Task | None = None) -> tasks.Result:
        """Execute `task`. Raises WireError for inputs of a wrong shape, RunError for a task out of order.

        upcoming : the task after it, if there is one already, whose inputs travel to the device meanwhile
        """
        if upcoming is not None:
            self.ends.expect(upcoming)
        return self._handlers[type(task)](task)

    def _compile(self) -> None:
        """Have the blocks compiled for a micro-batch's shape: now, while no peer waits for this stage."""
        x = self.ends.example()
        with torch.no_grad():
            self.module(x)
        entry = [] if self.index == 0 else [x.requires_grad_(True)]
        out = self.module(x)
        torch.autograd.grad(out, [*entry, *self.parameters], torch.zeros_like(out), allow_unused=True)

    def _collect(self, task: tasks.Collect) -> tasks.Result:
        gradient, total = self.passes.sum_over(task.round, task.indices)
        delay = sum(total.delays) / len(total.delays)
        if self.local_sync is not None:  # it stays here; the others only learn what it is, so that they can agree on the round
            check_own(gradient, f"gradient of round {task.round}", largest=largest_gradient)
            digest = hashlib.sha256(gradient.view(torch.uint8).numpy().tobytes()).digest()
            commitment = pack([("h", torch.frombuffer(bytearray(digest), dtype=torch.uint8))])
            self._own[commitment.digest] = gradient
            return tasks.CollectDone(commitment, delay, gradient_norm([gradient.numpy()]))
        extras = self.refreshing.beside_sum(task.round, total.energy)
        for name, array in extras:
            check_own(array, f"array {name!r} beside the gradient of round {task.round}")
        if self.chunked is not None:
            hashes, pieces = self.chunked.cut(gradient)
            sent = self.chunked.put_together(pieces, task.round)
            check_own(sent, f"gradient of round {task.round}", largest=largest_gradient)
            return tasks.CollectDone(joined(hashes, extras), delay, pieces=pieces)
        written = self.format.write(gradient)
        payload = joined(written, extras)
        gradient = self.format.as_read(gradient, written)
        check_own(gradient, f"gradient of round {task.round}", largest=largest_gradient)
        self._gradients.keep(task.round, payload.digest, gradient)
        return tasks.CollectDone(payload, delay)

    def _reduce(self, task: tasks.Reduce) -> tasks.Result:
        assert self.chunked is not None
        return self.chunked.reduce(task)

    def _inspect(self, task: tasks.Inspect) -> tasks.Result:
        if found := self._unusable_beside(task):
            return tasks.InspectDone({}, {}, found)
        if self.chunked is not None:
            return self.chunked.inspect(task)
        return self._gradients.inspect(task.round, task.parts)

    def _unusable_beside(self, task: tasks.Inspect | tasks.Apply) -> dict[str, str]:
        """Return by worker why what its part carries beside the gradient is not what belongs to the round."""
        found = {}
        for part in task.parts:
            if part.gradient.digest in self._checked:
                continue
            try:
                self.refreshing.check(task.round, self._beside(part))
            except WireError as error:
                found[part.worker] = f"the gradient of {part.worker}: {error}"
            else:
                self._checked.add(part.gradient.digest)
        return found

    @staticmethod
    def _beside(part: tasks.Part) -> dict[str, Tensor]:
        """Return what the part carries behind its gradient."""
        if len(part.gradient.layout) < 2:
            return {}
        return dict(list(part.gradient.tensors().items())[1:])

    def _apply(self, task: tasks.Apply) -> tasks.Result:
        indices = sorted(index for part in task.parts for index in part.indices)
        if indices != list(range(self.spec.num_micro_batches)):
            raise RunError(f"round {task.round}: the parts cover the micro-batches {indices}, not each of the round's once")
        self._step(task.round, self._aggregate(task))
        if self.refreshing.after_step(task.round, [self._beside(part) for part in task.parts]):
            self._weights_have_changed()
        return tasks.ApplyDone(self.state_digest() if task.wants_digest else None)

    def _aggregate(self, task: tasks.Apply) -> Tensor:
        """Return the round's gradient, flat."""
        if self.chunked is not None:
            return self.chunked.gradient(task.sums, task.round)
        if found := self._unusable_beside(task):
            raise WireError("; ".join(found.values()))
        return self._gradients.mean(task.round, task.parts, num_micro_batches=self.spec.num_micro_batches)

    def _local_step(self, task: tasks.LocalStep) -> tasks.Result:
        if task.digest is None:
            self._forget_before(task.round + 1)
        else:
            own = self._own[task.digest]
            # Each loss was divided by the whole round's targets; this step is made from a part of the round alone.
            self._step(task.round, own * (self.spec.num_micro_batches / len(task.indices)))
        return tasks.ApplyDone(self.state_digest() if task.wants_digest else None)

    def _step(self, round_: int, gradient: Tensor) -> None:
        """Make the optimizer step of `round_` along the flat `gradient`."""
        gradient, offset = self.ends.transfers.to_device(gradient), 0
        for parameter in self.parameters:
            parameter.grad = gradient[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        self.optimizer.lr = learning_rate(self.update_rule, round_) * delay_factor(self.spec, self.index, round_)
        self.optimizer.step()
        self._forget_before(round_ + 1)

    def _displace(self, task: tasks.Displace) -> tasks.Result:
        assert self.local_sync is not None
        self._displaced_at = -1 if task.again else self.passes.version
        payload = self.local_sync.displace(task.round, again=task.again)
        sent = self.local_sync.read(task.round, payload)
        check_own(sent, f"displacement after round {task.round}", largest=largest_gradient)
        return tasks.DisplaceDone(payload)

    def _measure(self, task: tasks.Measure) -> tasks.Result:
        arrays = self._displacements(task.round, task.shares)
        if found := unusable(arrays, f"its displacement after round {task.round}"):
            return tasks.InspectDone({}, {}, found)
        return tasks.InspectDone(*measure({worker: [array.numpy()] for worker, array in arrays.items()}))

    def _merge(self, task: tasks.Merge) -> tasks.Result:
        assert self.local_sync is not None
        if task.shares:
            counts = {share.worker: share.count for share in task.shares}
            is_late = self.passes.version != self._displaced_at
            self.local_sync.merge(task.round, self._displacements(task.round, task.shares), counts, is_late=is_late)
        else:
            self.local_sync.abandon()
        self._weights_have_changed()
        return tasks.ApplyDone(self.state_digest() if task.wants_digest else None)

    def _displacements(self, round_: int, shares: tuple[tasks.Share, ...]) -> dict[str, Tensor]:
        assert self.local_sync is not None
        return {share.worker: self.local_sync.read(round_, share.payload) for share in shares}

    def _evaluate(self, task: tasks.Evaluate | tasks.Probe) -> tasks.Result:
        with torch.no_grad():
            entered = (
                self.ends.draw_validation(task.index)
                if task.inputs is None
                else self.ends.receive(task.inputs, may_be_apart=isinstance(task, tasks.Probe))
            )
            out = self.module(entered.x)
            if not self.module.is_last:
                return tasks.EvaluateDone(output=self.ends.send(out, entered, may_be_apart=isinstance(task, tasks.Probe)))
            targets = self.ends.targets(entered.labels)
            return tasks.EvaluateDone(loss=self.module.loss_sum(out, targets).item(), tokens=targets.numel())

    def _infer(self, task: tasks.Infer) -> tasks.Result:
        if self.inference is None:
            raise WireError(f"a text came to a model that reads vectors ({self.spec.model!r})")
        return self.inference.infer(task)

    def _end_inference(self, task: tasks.EndInference) -> tasks.Result:
        if self.inference is not None:
            self.inference.end(task.request, task.attempt)
        return tasks.InferDone()

    def _snapshot(self, task: tasks.Snapshot) -> tasks.Result:
        more = self.refreshing.dump()
        if self.local_sync is not None and task.mark is not None:
            more |= self.local_sync.dump() | write_mark(task.mark)
        state = snapshots.dump(self.module, self.optimizer, more)
        return tasks.SnapshotDone(task.version, state, hashlib.sha256(state).hexdigest())

    def _restore(self, task: tasks.Restore) -> tasks.Result:
        actual = hashlib.sha256(task.state).hexdigest()
        if actual != task.digest:
            raise WireError(f"a state of {len(task.state)} bytes has digest {actual[:12]}, not the announced {task.digest[:12]}")
        tensors = snapshots.read(task.state, self.module, self.update_rule, version=task.version)
        mark = None
        if self.local_sync is not None:
            mark = read_mark(tensors, self.spec, task.version)
            self.local_sync.load(tensors)
            self._displaced_at = -1
        self.refreshing.load(tensors, task.version)
        snapshots.load(tensors, self.module, self.optimizer)  # last: a state that is refused has changed nothing
        self.passes.sums.clear()  # what was summed belongs to other weights
        self._forget_before(task.version)
        return tasks.RestoreDone(task.version, mark)

    def _forget_before(self, version: int) -> None:
        """Note that the weights have made `version` steps, and drop what belongs to the rounds before."""
        self.optimizer.zero_grad()
        self.passes.forget_before(version)
        self._weights_have_changed()
        self._gradients.forget_before(version)
        self._own.clear()
        self._checked.clear()

    def _weights_have_changed(self) -> None:
        self.passes.weights_have_changed()
        if self.inference is not None:
            self.inference.forget_newest()

    def state_digest(self) -> str:
        """Return the SHA-256 over what replicas that are in step have in common: all weights in order, or their anchor."""
        sha = hashlib.sha256()
        agreed = list(self.parameters) if self.local_sync is None else [self.local_sync.anchor]
        for parameter in agreed if self.refreshing.basis is None else [*agreed, self.refreshing.basis]:
            sha.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()
