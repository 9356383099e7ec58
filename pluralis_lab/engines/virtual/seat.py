"""A worker slot of a simulation: the machine and the arithmetic of whoever has it now, and how long they take."""

from dataclasses import dataclass, field

from pluralis_lab.engines.meter import WireMeter
from pluralis_lab.engines.task_queue import TaskQueue
from pluralis_lab.engines.virtual.modelled import ModelledCompute
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.worker import Worker

FLOPS_OF_A_TOUCH = 10
"""What takes as long as one parameter's way through memory, in a task that does little else (a step, a sum, a state)."""


@dataclass
class Seat:
    """One incarnation of a worker.

    flops : floating-point operations that it does in a virtual second
    """

    machine: Worker
    compute: StageCompute | ModelledCompute
    queue: TaskQueue
    flops: float
    incarnation: int = 0
    is_busy: bool = False
    meter: WireMeter = field(default_factory=WireMeter)
    compute_s: float = 0.0
    frozen: tuple[float, float] = (0.0, 0.0)
    """From when to when it is stopped."""
    timer: int = 0
    """How often its timer was set: only the last one counts."""

    def is_frozen(self, now: float) -> bool:
        return self.frozen[0] <= now < self.frozen[1]

    def seconds(self, task: tasks.Task) -> float:
        """Model a task's virtual seconds: FLOPs for a micro-batch or a text's positions, memory traffic for the rest."""
        desk, per_token = self.machine.desk, self.machine.flops_per_token
        forward = desk.spec.tokens_per_micro_batch * per_token / self.flops
        if isinstance(task, tasks.Forward):
            return forward * (3 if desk.is_tail else 1)
        if isinstance(task, tasks.Backward):
            return forward * 2
        if isinstance(task, tasks.Evaluate | tasks.Probe):
            return forward
        if isinstance(task, tasks.Infer):
            return task.num_positions * per_token / self.flops
        return self.compute.num_parameters * FLOPS_OF_A_TOUCH / self.flops
