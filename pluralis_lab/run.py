"""The handle of a run: everything one can ask of it or tell it, from any kernel, after any restart."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralis_lab.engines import processes
from pluralis_lab.errors import PluralisError, RunError
from pluralis_lab.session import Lifetime, chosen_lifetime, current_cell, is_interactive
from pluralis_lab.spec import RunSpec
from pluralis_lab.store import Event, RunDirectory

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from pluralis_lab.attaching import AttachedWorker
    from pluralis_lab.chain import Chain, Token
    from pluralis_lab.contributions.report import AuditReport
    from pluralis_lab.engines.invitation import Invitation
    from pluralis_lab.generation import Generation, HeldOutLoss
    from pluralis_lab.replaying import Replay
    from pluralis_lab.views.widget import RunWidget

POLL_S = 0.2
"""How often `wait` looks into the run directory: another process writes it, so there is no event to wait for."""


class Run:
    """One run, live or past. It holds nothing but the path: the run directory is the truth.

    Example
    -------
    >>> run = pl.launch(spec)
    >>> run.watch()
    >>> run.wait()
    >>> run.contributions()
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._recorded_in: int | None = None
        """The cell in whose output the record of the run is already."""

    @property
    def id(self) -> str:
        """64 hexadecimal characters; any unique beginning opens the run again."""
        return self._directory.id

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._directory.path

    @property
    def spec(self) -> RunSpec:
        try:
            return self._directory.spec
        except FileNotFoundError:
            raise _deleted(self.id) from None

    @property
    def info(self) -> dict[str, Any]:
        """The facts of `run.json`: participants, workers, chain, corpus, parameters. Raises RunError for a deleted run."""
        try:
            return self._directory.info
        except FileNotFoundError:
            raise _deleted(self.id) from None

    @property
    def state(self) -> str:
        """ "starting", "running", "paused" (a stage has nobody), "serving" (trained, workers still up), "stopped" or "failed"."""
        processes.is_running(self._directory)
        return str(self.info["state"])

    def wait(self, *, round: int | None = None, timeout_s: float | None = None) -> "Run":
        """Wait until every round is trained, showing progress; then leave the record of the run in the output.

        Parameters
        ----------
        round : return as soon as so many rounds are done, without the record
        timeout_s : give up after so many seconds; the run goes on

        Raises
        ------
        RunError : the run failed (with the worker's name and the end of its log), or `timeout_s` seconds have passed
        """
        from pluralis_lab.views.progress import ProgressLine

        end = None if timeout_s is None else time.monotonic() + timeout_s
        wanted = self.spec.steps if round is None else min(round, self.spec.steps)
        with ProgressLine(self._directory, headless=not is_interactive(), final=round is None) as progress:
            while (state := self.state) in ("starting", "running", "paused"):
                if progress.update().rounds_done >= wanted and round is not None:
                    return self
                if end is not None and time.monotonic() > end:
                    raise RunError(f"run {self.id[:8]} is still {state} after {timeout_s} s; call run.wait() again or run.stop()")
                time.sleep(POLL_S)
            progress.update()
            if state == "failed":
                self._raise_failure()
        if round is None:
            self._recorded_in = current_cell()
        return self

    def _raise_failure(self) -> None:
        error = self._directory.last("error")
        message = self.info.get("reason") or (error.body["message"] if error else "no reason was recorded")
        text = f"run {self.id[:8]} failed: {message}"
        if error is not None and error.worker is not None and error.body.get("log_tail"):
            text += f"\n--- end of the log of {error.worker} ---\n{error.body['log_tail']}"
        raise RunError(text)

    def stop(self) -> "Run":
        """End the run's processes and wait until they are gone. `resume` goes on from the last checkpoint."""
        processes.stop(self._directory)
        return self

    def resume(self, lifetime: Lifetime | None = None) -> "Run":
        """Go on from the newest checkpoint that every stage has, with the losses the run had there; return at once.

        Parameters
        ----------
        lifetime : as for `launch`; a simulation always ends with the process that resumed it

        Raises
        ------
        RunError : the run is running
        ChainError : an attester's account is behind a passphrase, and there is nobody to ask for it
        """
        if processes.is_running(self._directory):
            raise RunError(f"run {self.id[:8]} is running already (state {self.info['state']}); run.stop() ends it")
        from pluralis_lab.engines.resuming import resume_version

        version = resume_version(self._directory)
        is_swarm = self.info["engine"] == "swarm"
        lifetime = chosen_lifetime(lifetime) if is_swarm else "kernel"
        granted = self._granted()
        self._directory.update_info(state="starting", reason="", lifetime=lifetime, started_from=version)
        start = processes.start_supervisor if is_swarm else processes.start_virtual
        start(self._directory, version=version, granted=granted)
        return self

    def _granted(self) -> dict[str, str]:
        """Unlock the attesters' accounts for the run's process, where they are behind passphrases."""
        bound = self.info["chain"]
        if bound["kind"] != "url":
            return {}
        from pluralis_lab.chain import Chain

        chain = Chain(bound["url"], profile=bound["profile"], home=self.path.parent.parent)
        return chain.delegate([attester["name"] for attester in self.info["attesters"]], self.id)

    def delete(self) -> None:
        """Remove the run's directory: events, evidence, checkpoints, logs. What is on its chain stays there.

        Raises RunError when the run is running.
        """
        if processes.is_running(self._directory):
            raise RunError(f"run {self.id[:8]} is still {self.info['state']}; end it with run.stop(), then delete it")
        shutil.rmtree(self.path)

    def attach(
        self, device: str = "cpu", *, stage: int | None = None, account: str | None = None, data: str | None = None
    ) -> "AttachedWorker":
        """Add a worker on this machine to the live run; return at once, while it starts, gets its stage's state and takes part.

        The micro-batches of a round are then shared among more workers; the round as a whole, and so its loss, stays the same.
        What the worker does belongs to its participant. It stays with the run, also after `resume`.

        Parameters
        ----------
        device : "cpu", or "cuda:0" for the first GPU
        stage : where it works; None: the stage with the fewest workers
        account : the participant who owns it, made on first use on the embedded chain; None: the founder
        data : "path:FILE_OR_FOLDER", a text that it brings along as a worker of stage 0, and draws `RunSpec.own_data` of its
            micro-batches from. The file stays on this machine, but **every stage can read what is drawn**, as token ids

        Raises
        ------
        RunError : the run is not running, is a simulation, is trained, or has no such stage or no room; the device is none
        ChainError : the account cannot sign
        CorpusError : `data` cannot be read or does not fit the model

        Example
        -------
        >>> run.attach()                              # one more worker where there are fewest
        >>> run.attach(stage=2, account="lab-b")      # what it does is lab-b's
        """
        from pluralis_lab.attaching import attach

        return attach(self._directory, device, stage=stage, account=account, data=data)

    def invite(self, *, seats: int = 1, stage: int | None = None, for_hours: float = 24.0) -> "Invitation":
        """Make an invitation for workers on other machines, or in other shells: ``pluralis-lab join INVITATION``.

        From then on the run listens where it was launched to (``launch(host=...)``; by default on this machine alone), over TLS,
        for whoever has an invitation's text. Each worker that comes has its own key and participant; it gets its stage's weights,
        a model of your own (`Blocks`) must be accepted where it runs, by its `Blocks.accept_hash`, and a corpus is never sent:
        without it, it works at a later stage.

        Parameters
        ----------
        seats : how many workers may come with it
        stage : where they work; None: at the stage with the fewest workers
        for_hours : how long it holds; who has come stays

        Raises RunError when the run is not running or is a simulation, and for a value that cannot be.

        Example
        -------
        >>> print(run.invite(seats=30))  # one for a class
        """
        from pluralis_lab.engines.invitation import Invitation

        answer = processes.command(self._directory, "invite", seats=seats, stage=stage, for_hours=for_hours)
        return Invitation.parse(answer["invitation"])

    def detach(self, worker: str) -> "Run":
        """Ask a worker of this machine to leave for good; return at once, while it finishes what it has begun.

        It is dealt no more work, goes when nobody needs anything of it, and does not come back with `resume`. Nothing is computed
        twice, as it would be after a death. What it did stays its participant's.

        Raises RunError for an unknown worker, for the only one that has its stage, and for a run that is not running.

        Example
        -------
        >>> run.detach(run.attach().name)
        """
        processes.command(self._directory, "leave", worker=worker)
        return self

    def replay(self) -> "Replay":
        """Go through a run of `launch(spec, recorded=True)` once more, in this process: the same workers, given the same events.

        Without network, clock and processes, as often as one likes, also when the run failed: the same happens at the same place.
        Of a run that was stopped and resumed all starts are gone through, one after the other.
        It takes as long as the arithmetic does, on the CPU where this machine lacks a device of the run. Like a simulation, this
        one process holds all stages.

        Raises RunError when the run was not recorded, went on from a checkpoint that was not, or had workers from other machines.

        Example
        -------
        >>> run.replay().ok  # the same members, micro-batches, routes and counts
        True
        """
        from pluralis_lab.replaying import replay

        return replay(self._directory)

    def kill(self, worker: str) -> "Run":
        """Kill a local worker with SIGKILL, as a power cut would; its slot is started again and joins.

        Raises RunError for an unknown worker, and for a run that is not running.
        """
        processes.command(self._directory, "kill", worker=worker)
        return self

    def watch(self) -> "RunWidget | None":
        """Show the run live in this cell's output; headless, its record as it is now."""
        from pluralis_lab.views.bundle import display_watch

        display_watch(self._directory, on_stop=self.stop, headless=not is_interactive())
        return None

    def workers(self) -> "pd.DataFrame":
        """Return one row a worker: stage, replica, participant, state, parameters it holds, and the model's."""
        from pluralis_lab.views import frames

        return frames.workers(self._directory)

    def metrics(self) -> "pd.DataFrame":
        """Return one row a round: loss in nats, tokens, seconds, tokens_per_s, and the validation loss where there is one."""
        from pluralis_lab.views import frames

        return frames.metrics(self._directory)

    def contributions(self) -> "pd.DataFrame":
        """Return one row a worker: what it did, how far its gradients agreed, what its participant owns by now."""
        from pluralis_lab.views import frames

        return frames.contributions(self._directory)

    def data(self) -> "pd.DataFrame":
        """Return one row a worker that brought data: its corpus, hash and size, and the tokens that stage 1 counted of it."""
        from pluralis_lab.views import frames

        return frames.data(self._directory)

    def links(self) -> "pd.DataFrame":
        """Return one row a link and direction: the bytes that a worker sent to another one, by what they were for.

        Also what was sent for texts, held-out losses and joiners once all rounds were trained; that is told about a second later.
        """
        from pluralis_lab.views import frames

        return frames.links(self._directory)

    def events(self, *kinds: str) -> list[Event]:
        """Return what happened, oldest first: all events, or those of some kinds ("round", "worker.state", "epoch", ...)."""
        return self._directory.events(kinds=kinds or None)

    def figure(self, name: str) -> "Figure":
        """Return a plotly figure: "loss", "contributions", "alignment", "network" or "ownership".

        Raises RunError for another name.
        """
        from pluralis_lab.views.figures import figure
        from pluralis_lab.views.kept_figure import RunFigure

        return RunFigure(figure(self._directory, name))

    def to_tensorboard(self, folder: str | Path) -> Path:
        """Write the run's curves, owners and spec for TensorBoard; returns the run's own folder below `folder`.

        Call it again on a live run: only what is new is added, and an open TensorBoard shows it. Show it with
        ``tensorboard --logdir FOLDER``. Steps are rounds; a simulation's times are virtual seconds after it was made.

        Raises
        ------
        StoreError : the library is not installed (``pip install 'pluralis-lab[tensorboard]'``), or the folder cannot be written
        RunError : the run was deleted
        """
        from pluralis_lab.views.tensorboard import export

        if not self.path.exists():
            raise _deleted(self.id)
        return export(self._directory, folder)

    def generate(self, prompt: str, tokens: int = 100, *, temperature: float = 0.8, seed: int = 0) -> "Generation":
        """Have the live workers go on with `prompt`, stage by stage; no process sees more of the model than its stage.

        Works while training goes on (with the weights of the moment at which the text is begun) and after it. Every worker on the
        way keeps its own key-value cache; if one dies the text goes on as it would have.

        Parameters
        ----------
        prompt : the text to go on from
        tokens : how many to write; a token of the built-in corpora is a byte. Beyond the model's context the text goes on from
            its last half
        temperature : 0 takes the likeliest token; above, tokens are drawn, the more freely the higher
        seed : of what is drawn

        Raises
        ------
        RunError : the run is not running, is a simulation, its model reads vectors, or a value is out of range

        Example
        -------
        >>> run.generate("def main(", tokens=80)                    # appears in the cell as it is written
        >>> text = str(run.generate("import ", temperature=0))      # waits for all of it
        """
        from pluralis_lab.generation import Generation, connect_prompt

        corpus = self.info["corpus"]
        connection = connect_prompt(self._directory, corpus, prompt, tokens, temperature=temperature, seed=seed)
        return Generation(self._directory, prompt, tokens, connection)

    def evaluate(self, batches: int | None = None) -> "HeldOutLoss":
        """Return the mean loss on held-out data with the weights as they are now, through the stages.

        While training goes on, stages can be a round apart.

        Parameters
        ----------
        batches : micro-batches to take; None: as many as the run's own validations

        Raises
        ------
        RunError : as `generate`
        """
        from contextlib import closing

        from pluralis_lab.engines.question_checks import check_batches
        from pluralis_lab.generation import HeldOutLoss

        wanted = self.spec.eval_batches if batches is None else batches
        check_batches(wanted)
        with closing(processes.connect(self._directory, "probe", batches=wanted)) as connection:
            answer = next(processes.answers(self._directory, "probe", connection), {})
        if answer.get("loss") is None:
            raise RunError(f"run {self.id[:8]}: {answer.get('error') or 'it ended before the loss was known'}")
        return HeldOutLoss(answer["loss"], answer["tokens"])

    def audit(self) -> "AuditReport":
        """Compute every share again from the public evidence, and name what is forged, missing, replayed or of another run."""
        from pluralis_lab.contributions.audit import audit
        from pluralis_lab.engines.recorder import run_shape

        evidence = self._directory.evidence
        shape = run_shape(self._directory)
        return audit(shape, evidence.closes(), evidence.statements_by_epoch(), evidence.authorisations(), shape.quorum)

    def tokenize(self, account: str | None = None) -> "Token":
        """Put the run's ownership on its chain: deploy, post the attested epochs, hand out the shares. Safe to call again.

        An epoch that an attester's account could not sign when it was closed is signed now, if the account is in this home.

        Parameters
        ----------
        account : who pays for the transactions; None: the founder

        Raises
        ------
        RunError : no epoch is closed yet, or the run is a simulation without a chain
        ChainError : the chain refused, or is not the one the run was launched with
        """
        from pluralis_lab.engines.attesting import sign_missing

        chain = self._chain()
        if not self._directory.evidence.closes():
            raise RunError(
                f"run {self.id[:8]} has no closed epoch yet (an epoch is {self.spec.epoch_rounds} rounds); wait for the first"
            )
        sign_missing(self._directory, chain, show := _step_printer())
        closes = self._directory.evidence.closes()
        return chain.tokenize(self.info, self.spec.emission * 10**18, closes, account or self.info["account"], show)

    @property
    def token(self) -> "Token":
        """The token of a run that has been tokenized. Raises ChainError when it has not."""
        from pluralis_lab.chain import Token

        return Token.open(self.info, self._chain())

    def _chain(self) -> "Chain":
        from pluralis_lab.chain import Chain

        description = self.info["chain"]
        if description["kind"] == "none":
            raise RunError(
                f"run {self.id[:8]} was simulated without a chain; simulate(spec, chain=pl.Chain.embedded()) binds one"
            )
        return Chain.from_description(description, home=self.path.parent.parent)

    def __repr__(self) -> str:
        try:
            return f"<Run {self.id[:8]} {self._directory.info['state']}>"
        except (PluralisError, OSError, LookupError):
            return f"<Run {self.id[:8]} {'damaged' if self.path.exists() else 'deleted'}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Show the run's stored record, which JupyterLab shows live; where it cannot be drawn, what can be said of the run.

        Not below the one that `wait` has just left in the same output: a cell may end in ``run.wait()``.
        """
        if self._recorded_in is not None and self._recorded_in == current_cell():
            return {"text/plain": repr(self)}
        from pluralis_lab.views.bundle import run_bundle

        return run_bundle(self._directory, repr(self))


def _deleted(run_id: str) -> RunError:
    return RunError(f"run {run_id[:8]} was deleted; pl.runs() lists those that are left")


def _step_printer() -> Callable[[str, int, int], None]:
    """Return a progress callback that prints each kind of step once."""
    seen: set[str] = set()

    def show(what: str, done: int, total: int) -> None:
        if what not in seen:
            seen.add(what)
            print(f"[{done}/{total}] {what}")

    return show
