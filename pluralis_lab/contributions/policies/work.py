"""Policy `work`: pay for counter-signed tokens times the FLOPs of the stage that processed them."""

from pluralis_lab.contributions.receipts import Kind
from pluralis_lab.errors import EvidenceError


def work_units(kind: Kind, stage: int, num_stages: int, tokens: int, stage_flops: int) -> int:
    """Return the units for `tokens` tokens: once, twice or three times `tokens * stage_flops`.

    A stage does three passes of about equal cost for a micro-batch: forward, input gradient, weight gradient. Each pass
    is paid on the receipt of whoever consumed its result; the weight gradient, and a pass whose result leaves the stage
    for nobody, on the contribution receipt:

    - forward receipt 1 (the forward pass), backward receipt 1 (the input gradient);
    - contribution of a middle stage 1 (the weight gradient), of the head 2 (nobody consumes its backward pass), of the
      tail 2 (nobody consumes its forward pass), of `stages=1` 3.

    So a fully attested micro-batch pays 3 at every stage, whatever the number of stages.

    stage_flops : forward FLOPs a token of that stage
    Raises EvidenceError for a receipt that the stage cannot have.
    Source: algorithms.md, "Receipts: what each proves"; the factor 3 is the usual backward = 2 x forward.
    """
    if not 0 <= stage < num_stages:
        raise EvidenceError(f"stage={stage}, but the run has {num_stages} stages")
    is_head, is_tail = stage == 0, stage == num_stages - 1
    if kind == "forward":
        if is_tail:
            raise EvidenceError(f"a forward receipt of stage {stage}: the tail's activation has no consumer")
        return tokens * stage_flops
    if kind == "backward":
        if is_head:
            raise EvidenceError("a backward receipt of stage 0: the head's input gradient has no consumer")
        return tokens * stage_flops
    return (1 + is_head + is_tail) * tokens * stage_flops
