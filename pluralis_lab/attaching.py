"""Adding a worker to a run that is live."""

import re
from dataclasses import dataclass

from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.engines import processes
from pluralis_lab.engines.own_corpus import bring, check_own_data, keep
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.errors import RunError
from pluralis_lab.markup import facts
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
    check_device(device)
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
    name, chain = seat["worker"], info["chain"]
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
    key.save(run.worker_folder(name) / "hot.key")
    if data is not None:
        keep(run.worker_folder(name), data)
    processes.command(run, "enrol", authorisation=authorisation, device=device, data=brought)
    return AttachedWorker(name, seat["stage"], seat["replica"], owner)


def check_device(device: object) -> None:
    """Refuse what is no device of this machine."""
    if device == "cpu":
        return
    number = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if number is None:
        raise RunError(f"device={device!r}; use 'cpu', or 'cuda:0' for this machine's first GPU")
    import torch

    if int(number[1] or 0) >= torch.cuda.device_count():
        raise RunError(f"device={device!r}: torch finds {torch.cuda.device_count()} CUDA devices on this machine; use 'cpu'")
