"""Starting runs: everything is checked and written down first, then one process is started that owns the run."""

import importlib.metadata
import itertools
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pluralis_lab.chain import Chain
from pluralis_lab.churn import Churn
from pluralis_lab.contributions.attestation import authorisation_typed_data
from pluralis_lab.contributions.keys import HotKey
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines import processes
from pluralis_lab.engines.invitation import check_host
from pluralis_lab.engines.signers import SeedSigner, Signer, signer_for
from pluralis_lab.engines.swarm.namespace import check_namespaces
from pluralis_lab.errors import ChainError, RunSpecError
from pluralis_lab.links import Links
from pluralis_lab.models.cost import stage_parameters
from pluralis_lab.parts import Blocks, Muon
from pluralis_lab.placing import place
from pluralis_lab.run import Run
from pluralis_lab.session import Lifetime, chosen_lifetime
from pluralis_lab.spec import RunSpec, worker_name
from pluralis_lab.store import RunDirectory, lab_home, new_run_id

if TYPE_CHECKING:
    from pluralis_lab.planning import Plan

NO_LEDGER = "0x" + "00" * 20


def launch(
    spec: RunSpec,
    *,
    chain: Chain | None = None,
    account: str = "default",
    participants: Sequence[str] | None = None,
    devices: str | Sequence[str] | None = None,
    lifetime: Lifetime | None = None,
    recorded: bool = False,
    host: str = "127.0.0.1",
    namespaces: Mapping[str, str] | None = None,
    home: str | Path | None = None,
) -> Run:
    """Start `spec` with real processes on this machine and return at once.

    Parameters
    ----------
    spec : what to train
    chain : where ownership is kept, for good; None: the embedded chain of this home
    account : the founder's account name; made on first use on the embedded chain
    participants : account names that own the workers, dealt out in turn; None: the founder owns all
    devices : where workers compute: one for all, e.g. "cuda:0", or several, dealt out in turn; None: the CPU. See `pl.devices`
    lifetime : "detached" (the run outlives this kernel) or "kernel" (it ends with it, however that ends). None: detached
        where somebody is in front, kernel under papermill, in scripts and in CI
    recorded : have each worker write down every event (about 100 bytes each, in its own folder), for `run.replay`
    host : this machine's address for workers on other machines (`Run.invite`), as numbers; by default only this machine's own
        can come
    namespaces : network namespaces that the workers run in, dealt out in turn, and their addresses there; to measure on links
        that the kernel shapes (Linux, as root)
    home : where runs, corpora and accounts are kept; None: ``$PLURALIS_LAB_HOME`` or ``~/.pluralis_lab``

    Raises
    ------
    RunSpecError, CorpusError, ChainError : before anything is started; no run is left behind
    RunError : likewise, for a device that this machine does not have, or one that keeps replicas from agreeing
    """
    _check_kinds(spec, chain)
    host = check_host(host)
    places = check_namespaces(namespaces or {})
    placed = place(spec, devices)
    where = lab_home(home)
    lifetime = chosen_lifetime(lifetime)
    owners = _check_participants(participants, account, spec)
    with processes.early_supervisor(where) as process:
        corpus = _corpus_facts(spec, where)
        chain = chain or Chain.embedded(home=where)
        description = {**chain.describe(), "account": account}
        founder = chain.account(account).address
        run_id = new_run_id(spec.hash, founder)
        description.update(chain.plan(run_id))
        signer = signer_for(description, seed=spec.seed, home=where)
        granted = _granted(chain, signer, spec, owners, run_id)
        processes.sweep_home(where)
        run = _create(
            spec, where, run_id, founder, owners, corpus, description, signer, engine="swarm", lifetime=lifetime, account=account
        )
        workers = _placed(run.info["workers"], places)
        if set(placed.values()) != {"cpu"}:
            workers = [{**row, "device": placed[row["name"]]} for row in workers]
        run.update_info(host=host, workers=workers, **({"recorded": True} if recorded else {}))
        processes.start_supervisor(run, version=0, granted=granted, process=process)
    return Run(run)


def _placed(workers: list[dict[str, Any]], places: dict[str, str]) -> list[dict[str, Any]]:
    """Return the workers with the network namespaces that they are to run in, dealt out in turn."""
    dealt = itertools.cycle([{"place": {"namespace": name, "host": host}} for name, host in places.items()] or [{}])
    return [{**worker, **place} for worker, place in zip(workers, dealt, strict=False)]


@overload
def simulate(
    spec: RunSpec,
    *,
    links: Links | None = None,
    speeds: Mapping[str, float] | None = None,
    churn: Churn | None = None,
    chain: Chain | None = None,
    account: str = "default",
    participants: Sequence[str] | None = None,
    home: str | Path | None = None,
    compute: Literal["real"] = "real",
) -> Run: ...


@overload
def simulate(
    spec: RunSpec,
    *,
    links: Links | None = None,
    speeds: Mapping[str, float] | None = None,
    churn: Churn | None = None,
    compute: Literal["modelled"],
) -> "Plan": ...


def simulate(
    spec: RunSpec,
    *,
    links: Links | None = None,
    speeds: Mapping[str, float] | None = None,
    churn: Churn | None = None,
    chain: Chain | None = None,
    account: str = "default",
    participants: Sequence[str] | None = None,
    home: str | Path | None = None,
    compute: Literal["real", "modelled"] = "real",
) -> "Run | Plan":
    """Start `spec` in one process with virtual links and a virtual clock, with the interface of a launched run; return at once.

    The same arguments give the same run, to the bit. With ``schedule="sync"`` and `FullSync` its losses
    depend on the spec alone, up to rounding where `speeds` differ.
    Without a `chain` its accounts follow from the seed, so such a run cannot be tokenized. By nature the one process holds all
    stages.

    Parameters
    ----------
    links : what joins the workers: a wire for each pair, and with `Links.uplink` what a worker sends has one in common
    speeds : of some workers, relative to the others (1): ``{"worker-3": 0.5}`` takes twice as long for the same arithmetic
    churn : who dies, or stands still, and comes back when; a simulation that is resumed goes on without
    compute : "modelled" trains nothing and returns what `plan`, which it is, says of the speed of such a run on this kind of
        machine; `plan` itself takes other machines and vocabularies
    spec, chain, account, participants, home : as for `launch`

    Raises RunSpecError, CorpusError, ChainError before anything is started.
    """
    if compute == "modelled":
        if (chain, account, participants, home) != (None, "default", None, None):
            raise RunSpecError(
                "compute='modelled' trains nothing, so nobody owns it: leave chain, account, participants and home away"
            )
        from pluralis_lab.planning import plan

        return plan(spec, links=links, speeds=speeds, churn=churn)
    if compute != "real":
        raise RunSpecError(f"compute={compute!r}; choose 'real', or 'modelled' for how fast it would be")
    _check_kinds(spec, chain)
    names = [worker_name(number) for number in range(spec.num_workers)]
    check_circumstances(names, links, speeds, churn)
    where = lab_home(home)
    owners = _check_participants(participants, account, spec)
    corpus = _corpus_facts(spec, where)
    links = links or Links()
    signer: Signer
    granted: dict[str, str] = {}
    if chain is None:
        signer = SeedSigner(spec.seed)
        founder = signer.address(account)
        nonce = spec.seed.to_bytes(32, "big") if not _exists(where, spec, founder) else secrets.token_bytes(32)
        run_id = new_run_id(spec.hash, founder, nonce)
        description: dict[str, Any] = {"kind": "none", "url": None, "chain_id": 0, "ledger": NO_LEDGER, "token": NO_LEDGER}
    else:
        founder = chain.account(account).address
        run_id = new_run_id(spec.hash, founder)
        description = {**chain.describe(), "account": account, **chain.plan(run_id)}
        signer = signer_for(description, seed=spec.seed, home=where)
        granted = _granted(chain, signer, spec, owners, run_id)
    run = _create(
        spec, where, run_id, founder, owners, corpus, description, signer, engine="virtual", lifetime="kernel", account=account
    )
    run.update_info(
        links=asdict(links),
        speeds=dict(speeds or {}),
        churn=[asdict(absence) for absence in (churn or Churn()).absences],
    )
    processes.start_virtual(run, version=0, granted=granted)
    return Run(run)


def check_circumstances(names: list[str], links: object, speeds: object, churn: object) -> None:
    """Check what a simulation is told of its virtual network and machines."""
    if not isinstance(links, Links | None):
        raise RunSpecError(f"links={links!r}; give pl.Links(...), e.g. pl.Links('80mbit', latency_ms=20)")
    if not isinstance(churn, Churn | None):
        raise RunSpecError(f"churn={churn!r}; give pl.Churn([pl.Absence('worker-3', at_s=12, for_s=5)])")
    if not isinstance(speeds, Mapping | None):
        raise RunSpecError(f"speeds={speeds!r}; give the speed of some workers, e.g. {{'worker-3': 0.5}}")
    if links is not None:
        links.check_workers(names)
    if churn is not None:
        churn.check_workers(names)
    for name, speed in (speeds or {}).items():
        if name not in names:
            raise RunSpecError(f"speeds names {name!r}; the run has {', '.join(names)}")
        if not isinstance(speed, int | float) or not 0 < speed < math.inf:
            raise RunSpecError(f"speeds[{name!r}]={speed!r}; give a number above 0, e.g. 0.5 for half as fast")


def _exists(home: Path, spec: RunSpec, founder: str) -> bool:
    return (home / "runs" / new_run_id(spec.hash, founder, spec.seed.to_bytes(32, "big"))).exists()


def _check_kinds(spec: object, chain: object) -> None:
    """Refuse what a newcomer may hand over instead: a dictionary, a name, a URL."""
    if not isinstance(spec, RunSpec):
        raise RunSpecError(
            f"spec={spec!r:.80} is no RunSpec; describe the run with pl.RunSpec(...) or pl.RunSpec.from_json(text)"
        )
    if not isinstance(chain, Chain | None):
        raise ChainError(f"chain={chain!r}; use pl.Chain.embedded(), or pl.Chain(url) for a JSON-RPC node")
    torch = importlib.metadata.version("torch")
    if isinstance(spec.optimizer, Muon) and tuple(map(int, torch.split(".")[:2])) < (2, 9):
        raise RunSpecError(f"optimizer=Muon(...) needs torch 2.9 or later, here is {torch}; update it, or use pl.AdamW()")
    if spec.compile:
        from pluralis_lab.models.arithmetic import missing_compiler

        if missing := missing_compiler():
            raise RunSpecError(f"compile=True: {missing}")


def _check_participants(participants: Sequence[str] | None, account: str, spec: RunSpec) -> list[str]:
    if isinstance(participants, str):
        raise RunSpecError(f"participants={participants!r} is one text; give a list of account names: [{participants!r}]")
    owners = [account] if participants is None else list(participants)
    if not owners or len(set(owners)) != len(owners):
        raise RunSpecError(f"participants={owners}: name at least one account, and each once")
    if len(owners) > spec.num_workers:
        raise RunSpecError(f"{len(owners)} participants for {spec.num_workers} workers; use at most one participant a worker")
    return owners


def _granted(chain: Chain, signer: Signer, spec: RunSpec, owners: list[str], run_id: str) -> dict[str, str]:
    """Make and unlock the attesters' accounts, where the chain's accounts are behind passphrases; see `Chain.delegate`."""
    names = owners if spec.attesters is None else list(spec.attesters)
    for name in names:
        signer.address(name)
    return chain.delegate(names, run_id)


def _corpus_facts(spec: RunSpec, home: Path) -> dict[str, Any]:
    """Open (and on first use read and cache) the corpus, so that a missing or short one is refused here."""
    scores = spec.model.blocks[-1].shape[-1] if isinstance(spec.model, Blocks) else None
    info = open_corpus(spec.data, context=spec.context, home=home, vocab=scores).info()
    names = ("name", "kind", "hash", "vocab", "train_tokens", "validation_tokens", "unigram_nats")
    return {name: getattr(info, name) for name in names}


def _create(
    spec: RunSpec,
    home: Path,
    run_id: str,
    founder: str,
    owners: list[str],
    corpus: dict[str, Any],
    chain: dict[str, Any],
    signer: Signer,
    *,
    engine: str,
    lifetime: str,
    account: str,
) -> RunDirectory:
    """Write the run's directory: facts, a hot key for each worker, and the participants' authorisations of those keys."""
    addresses = {name: signer.address(name) for name in owners}
    attesters = list(spec.attesters) if spec.attesters is not None else owners
    keys = {}
    for number in range(spec.num_workers):
        name = worker_name(number)
        keys[name] = HotKey.from_seed(f"{run_id}/{name}".encode()) if chain["kind"] == "none" else HotKey.generate()
    owner_of = {name: owners[number % len(owners)] for number, name in enumerate(keys)}
    parameters = [stage_parameters(spec, stage, corpus["vocab"]) for stage in range(spec.stages)]
    authorisations = [
        {
            "run": run_id,
            "worker": name,
            "participant": owner_of[name],
            "address": addresses[owner_of[name]],
            "key": key.address,
            "signature": signer.sign(
                owner_of[name], authorisation_typed_data(run_id, name, key.address, chain["chain_id"], chain["ledger"])
            ),
        }
        for name, key in keys.items()
    ]
    info = {
        "id": run_id,
        "engine": engine,
        "created": time.time(),
        "spec_hash": spec.hash,
        "founder": founder,
        "account": account,
        "lifetime": lifetime,
        "state": "starting",
        "reason": "",
        "pid": None,
        "participants": [{"name": name, "address": address} for name, address in addresses.items()],
        "workers": [
            {
                "name": name,
                "stage": spec.stage_of(number),
                "replica": number % spec.replicas,
                "participant": owner_of[name],
                "key": key.address,
            }
            for number, (name, key) in enumerate(keys.items())
        ],
        "attesters": [{"name": name, "address": addresses.get(name) or signer.address(name)} for name in attesters],
        "chain": chain,
        "corpus": corpus,
        "stage_parameters": parameters,
        "model_parameters": sum(parameters),
    }
    run = RunDirectory.create(home, spec, info)
    for name, key in keys.items():
        key.save(run.worker_folder(name) / "hot.key")
    run.evidence.append_authorisations(authorisations)
    return run
