"""What a worker counter-signs in a round: the activations, input gradients and weight gradients of others that it used."""

from collections.abc import Sequence

from pluralis_lab.contributions.receipts import Kind
from pluralis_lab.learning.tasks import InspectDone
from pluralis_lab.worker.desk import Desk
from pluralis_lab.worker.messages import Displacement, Item
from pluralis_lab.worker.round_state import Parts, RoundState


def sign_neighbours(desk: Desk, state: RoundState) -> None:
    """Counter-sign the activations and gradients this worker used, before anyone can rely on the step."""
    stage = desk.me.stage
    tallies: list[tuple[Kind, int, dict[str, list[Item]]]] = [
        ("forward", stage - 1, state.used_forward),
        ("backward", stage + 1, state.used_backward),
    ]
    statements = [
        _receipt(desk, kind, state.round, of_stage, worker, items)
        for kind, of_stage, used in tallies
        for worker, items in sorted(used.items())
        if items
    ]
    state.used_forward, state.used_backward = {}, {}  # after a death there can be more to sign, but nothing twice
    if statements:
        desk.report("statements", round=state.round, statements=statements)


def sign_contributions(desk: Desk, state: RoundState, parts: Parts) -> None:
    """Counter-sign the weight gradients of the other replicas that this step is made from.

    Alone in its stage, a worker signs its own: that shows work which nobody attested, and is not paid.
    """
    assert state.inspected is not None
    measured = state.inspected[1]
    me = desk.me
    statements = [
        _receipt(
            desk,
            "contribution",
            state.round,
            me.stage,
            worker,
            [state.contributions[worker, digest].item],
            norm=measured.norms[worker],
            agreement=measured.agreements[worker],
        )
        for worker, digest in parts
        if worker != me.name or len(parts) == 1
    ]
    if statements:
        desk.report("statements", round=state.round, statements=statements)


def sign_displacements(desk: Desk, displacements: Sequence[Displacement], measured: InspectDone) -> None:
    """Counter-sign, round by round, the work that has come with the other replicas' displacements.

    Alone in its exchange, a worker signs its own, as with contributions.
    """
    me = desk.me
    by_round: dict[int, list[Item]] = {}
    for displacement in displacements:
        worker = displacement.worker
        if worker == me.name and len(displacements) > 1:
            continue
        for round_, item in displacement.items:
            receipt = _receipt(
                desk,
                "contribution",
                round_,
                me.stage,
                worker,
                [item],
                norm=measured.norms[worker],
                agreement=measured.agreements[worker],
            )
            by_round.setdefault(round_, []).append(receipt)
    for round_, statements in sorted(by_round.items()):
        desk.report("statements", round=round_, statements=statements)


def _receipt(
    desk: Desk,
    kind: Kind,
    round_: int,
    stage: int,
    worker: str,
    items: list[Item],
    *,
    norm: float | None = None,
    agreement: float | None = None,
) -> Item:
    return desk.signing.sign_receipt(
        desk.key,
        kind=kind,
        run=desk.run_id,
        epoch=round_ // desk.spec.epoch_rounds,
        round=round_,
        stage=stage,
        worker=worker,
        signer=desk.me.name,
        items=items,
        norm=norm,
        agreement=agreement,
    )
