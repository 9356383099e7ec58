"""Adding a worker to a run that is live."""

import contextlib
from dataclasses import dataclass
from typing import Any

from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines import processes
from pluralis_lab.engines.own_corpus import bring, check_own_data, keep
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.markup import facts
from pluralis_lab.placing import check_device, check_kinds
from pluralis_lab.store import RunDirectory


@dataclass(frozen=True)
class AttachedWorker:
    """A worker that was added to a live run: its name, where it works, and the participant it works for."""

    name: str
    stage: int
    replica: int
    participant: str

    def __str__(self) -> str:
        return f"{self.name} comes to stage {self.stage} for {self.participant}"

    def _repr_html_(self) -> str:
        rows = [("worker", self.name), ("stage", str(self.stage)), ("participant", self.participant)]
        return facts("AttachedWorker", rows)


def attach(
    run: RunDirectory,
    device: str = "cpu",
    *,
    stage: int | None = None,
    account: str | None = None,
    data: str | None = None,
) -> AttachedWorker:
    """Add a worker to a live run; see `Run.attach`."""
    device = check_device(device)
    info = run.info
    if info["engine"] != "swarm":
        raise RunError(f"run {run.id[:8]} is a simulation, which has no processes; attach workers to a run of pl.launch(spec)")
    if info["state"] == "serving":
        raise RunError(f"run {run.id[:8]} has trained all its rounds; there is no work left to share")
    brought = None
    if data is not None:
        check_own_data(run.spec, stage)
        brought = bring(run.spec, data, vocab=info["corpus"]["vocab"], home=run.path.parent.parent)
        stage = 0
    owner = account or info["account"]
    seat = processes.command(run, "reserve", stage=stage)
    try:
        _take_seat(run, seat, device, owner, data=data, brought=brought)
    except BaseException:
        with contextlib.suppress(PluralisError):  # what is told is why nobody comes, not that the run has ended meanwhile
            processes.command(run, "release", worker=seat["worker"])
        raise
    return AttachedWorker(seat["worker"], seat["stage"], seat["replica"], owner)


def _take_seat(
    run: RunDirectory, seat: dict[str, Any], device: str, owner: str, *, data: str | None, brought: dict[str, Any] | None
) -> None:
    """Have `owner`'s account authorise a new key for the seat that is reserved, and a worker start in it."""
    name, chain = seat["worker"], run.info["chain"]
    check_kinds(run.spec, seat["stage"], seat["devices"], device)
    key = HotKey.generate()
    signer = signer_for(chain, seed=run.spec.seed, home=run.path.parent.parent)
    authorisation = {
        "run": run.id,
        "worker": name,
        "participant": owner,
        "address": signer.address(owner),
        "key": key.address,
        "signature": signer.sign(owner, authorisation_typed_data(run.id, name, key.address, chain["chain_id"], chain["ledger"])),
    }
    file = run.worker_folder(name) / "hot.key"
    file.unlink(missing_ok=True)  # of somebody who was given this seat before, and did not take it
    key.save(file)
    if data is not None:
        keep(run.worker_folder(name), data)
    processes.command(run, "enrol", authorisation=authorisation, device=device, data=brought)
