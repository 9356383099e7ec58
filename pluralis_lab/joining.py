"""Joining somebody else's run: what is agreed to, whose the work is, and which seat it is done in."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pluralis_lab.accepting import Confirm, check_accepted
from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines.invitation import Invitation
from pluralis_lab.engines.own_corpus import bring, check_own_data, keep
from pluralis_lab.engines.signers import signer_for
from pluralis_lab.engines.swarm.forkclient import ForkServer
from pluralis_lab.engines.swarm.gate_words import Welcome
from pluralis_lab.engines.swarm.joiner import Gateway, Joiner
from pluralis_lab.engines.swarm.visit import Progress, Visit, own_folder
from pluralis_lab.errors import CorpusError, RunError, WireError
from pluralis_lab.parts import Blocks
from pluralis_lab.placing import check_device, check_kinds
from pluralis_lab.spec import RunSpec
from pluralis_lab.store import RunDirectory, lab_home


def join_here(
    invitation: str | Invitation,
    *,
    device: str = "cpu",
    stage: int | None = None,
    account: str = "default",
    accept: str | None = None,
    confirm: Confirm | None = None,
    host: str | None = None,
    data: str | None = None,
    home: str | Path | None = None,
    tied: bool = False,
    server: ForkServer | None = None,
    tell: Callable[[str], None],
) -> str:
    """Work for another's run in this process until it is over, and return why it is.

    A worker of this home that the run knows and nobody runs comes back to its seat; otherwise a new one takes a seat.

    Parameters
    ----------
    invitation : from `Run.invite`
    device : "cpu", or "cuda:0" for the first GPU
    stage : where it works; None: where the run has fewest workers
    account : the participant who owns what it does, an account of this home, made on first use
    accept : `Blocks.accept_hash` of the founder's own model, if the run is of one: it may run here; else `confirm` is asked
    host : this machine's address for the other workers; None: the one that leads to the run
    data : a text that it brings along as a worker of stage 0: every stage can read what is drawn of it, as token ids
    tied : whether to go when standard input ends
    server : a fork server that loads its libraries already; None: one is started
    tell : called with each thing that whoever waits may want to know

    Raises
    ------
    RunError : the invitation is none or has run out, the run cannot be reached or has no such stage or device
    CorpusError : the seat is at stage 0, and this machine has not got the corpus
    ChainError : the account cannot sign
    """
    began = time.monotonic()
    parsed = Invitation.parse(invitation)
    device = check_device(device)
    where = lab_home(home)
    visitor = _Visitor(
        parsed,
        device=device,
        stage=stage,
        account=account,
        accept=accept,
        confirm=confirm,
        data=data,
        home=where,
        tell=tell,
        began=began,
    )
    joiner = Joiner(parsed, visitor.come, home=where, host=host, tied=tied, tell=tell, server=server)
    try:
        return asyncio.run(joiner.run())
    except OSError as error:
        how = error.strerror or str(error) or "nothing came back"
        raise RunError(
            f"nobody answers at {parsed.host}:{parsed.port} ({how}); is the run still "
            "running, and was it launched with host=, an address that this machine can reach?"
        ) from None
    except WireError as error:
        raise RunError(str(error)) from None


class _NoSeatError(RunError):
    """The run has the seat no more that this machine has the key of."""


class _Visitor:
    """Finds a seat: the one that this machine has had, or a new one."""

    def __init__(
        self,
        invitation: Invitation,
        *,
        device: str,
        stage: int | None,
        account: str,
        accept: str | None,
        confirm: Confirm | None,
        data: str | None,
        home: Path,
        tell: Callable[[str], None],
        began: float,
    ) -> None:
        self._invitation, self._device, self._stage, self._account = invitation, device, stage, account
        self._data = data
        self._brought: dict[str, Any] | None = None
        self._accept, self._confirm, self._home, self._tell, self._began = accept, confirm, home, tell, began

    async def come(self) -> tuple[Gateway, Visit]:
        """Open the gate and take a seat."""
        path = self._home / "joined" / "runs" / self._invitation.run
        for folder in sorted(path.glob("workers/worker-*/")) if (path / "run.json").exists() else ():
            if (folder / "hot.key").exists() and own_folder(folder) is not None:
                try:
                    return await self._come_back(RunDirectory(path), folder.name)
                except _NoSeatError as error:
                    self._tell(f"{folder.name} does not come back ({error}); a new worker comes")
                    (folder / "hot.key").rename(folder / "hot.key.left")
        return await self._come_new()

    async def _come_back(self, directory: RunDirectory, worker: str) -> tuple[Gateway, Visit]:
        gateway = await Gateway.open(self._invitation)
        try:
            key = HotKey.load(directory.worker_folder(worker) / "hot.key")
            try:
                welcome = await gateway.prove(worker, key)
            except RunError as error:
                raise _NoSeatError(str(error)) from None
            self._agree(welcome)
        except BaseException:
            gateway.close()
            raise
        self._tell(f"{worker} comes back to run {directory.id[:8]}")
        return gateway, Visit(worker, key, directory, Progress(self._tell, self._began))

    async def _come_new(self) -> tuple[Gateway, Visit]:
        try:
            return await self._try(without_corpus=False)
        except CorpusError as error:
            if self._stage == 0:
                raise
            self._tell(f"not at stage 0: {error}")
        return await self._try(without_corpus=True)

    async def _try(self, *, without_corpus: bool) -> tuple[Gateway, Visit]:
        """Ask for a seat and take it. Raises CorpusError when it is at stage 0 and the corpus is not here."""
        gateway = await Gateway.open(self._invitation)
        try:
            answer = await gateway.ask(op="join", secret=self._invitation.secret)
            welcome = Welcome.read(answer.get("facts"), run_id=self._invitation.run)
            spec = self._agree(welcome)
            if self._data is not None:
                check_own_data(spec, self._stage)
                self._stage = 0
            stages = [self._stage] if self._stage is not None else [of for of in range(spec.stages) if of or not without_corpus]
            seat = await gateway.ask(op="reserve", stages=stages)
            worker, stage = str(seat["worker"]), int(seat["stage"])
            check_kinds(spec, stage, [str(device) for device in seat["devices"]], self._device)
            if self._data is not None:
                self._brought = await asyncio.to_thread(bring, spec, self._data, vocab=welcome.corpus.vocab, home=self._home)
            if stage == 0:
                facts = welcome.corpus
                await asyncio.to_thread(
                    open_corpus, spec.data, context=spec.context, home=self._home, expected_hash=facts.hash, vocab=facts.vocab
                )
            visit = await self._enrol(gateway, welcome, spec, worker, stage)
        except BaseException:
            gateway.close()
            raise
        return gateway, visit

    def _agree(self, welcome: Welcome) -> RunSpec:
        """Return the spec if its model may run here. Raises RunError when it is the founder's own and nobody has accepted it.

        Nothing of the model has been imported or run by then.
        """
        spec = welcome.parsed_spec()
        model = spec.model
        self._tell(
            f"run {welcome.id[:8]}: {type(model).__name__} of {welcome.model_parameters:,} parameters in {spec.stages} stages, "
            f"on {welcome.corpus.name}"
        )
        if isinstance(model, Blocks):
            check_accepted(model, self._accept, self._confirm)
        return spec

    async def _enrol(self, gateway: Gateway, welcome: Welcome, spec: RunSpec, worker: str, stage: int) -> Visit:
        """Have the account authorise a new key for the seat, and take it."""
        key, chain = HotKey.generate(), welcome.chain
        signer = signer_for(chain.model_dump(), seed=0, home=self._home)
        typed = authorisation_typed_data(welcome.id, worker, key.address, chain.chain_id, chain.ledger)
        address = await asyncio.to_thread(signer.address, self._account)
        signature = await asyncio.to_thread(signer.sign, self._account, typed)
        known = {participant.name: participant.address for participant in welcome.participants}
        # Most homes' account is called "default": a name that the run knows for somebody else gets the address's first digits.
        is_taken = known.get(self._account, address) != address
        name = f"{self._account}-{address[2:6].lower()}" if is_taken else self._account
        directory = self._directory(welcome, spec)
        folder = directory.worker_folder(worker)
        if own_folder(folder) is None:
            raise RunError(f"{worker} runs on this machine already, from another try; end that one")
        key.save(folder / "hot.key")
        authorisation = {
            "run": welcome.id,
            "worker": worker,
            "participant": name,
            "address": address,
            "key": key.address,
            "signature": signature,
        }
        if self._data is not None:
            keep(folder, self._data)
        await gateway.ask(op="enrol", authorisation=authorisation, device=self._device, data=self._brought)
        self._tell(f"{worker} comes to stage {stage} for {name} ({address})")
        return Visit(worker, key, directory, Progress(self._tell, self._began))

    def _directory(self, welcome: Welcome, spec: RunSpec) -> RunDirectory:
        """Return this machine's folder of the run, apart from its own runs."""
        path = self._home / "joined" / "runs" / welcome.id
        if (path / "run.json").exists():
            return RunDirectory(path)
        return RunDirectory.create(self._home / "joined", spec, welcome.info())
