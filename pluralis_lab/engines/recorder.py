"""Turns what workers report into the run directory: events, evidence, closed epochs. Both engines use it."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pluralis_lab.contributions.authorisations import Authorisation
from pluralis_lab.contributions.closing import Close, check_close, close_epoch
from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.contributions.tally import tally_epoch
from pluralis_lab.errors import ChainError, PluralisError
from pluralis_lab.learning.turns import basis_version, switches
from pluralis_lab.learning.wire_cost import codec_bytes_per_token
from pluralis_lab.models.cost import stage_flops_per_token
from pluralis_lab.phases import HOLDING
from pluralis_lab.store import EventWriter, RunDirectory

SignEpoch = Callable[[str, dict[str, Any]], str]
"""(attester's account name, EIP-712 typed data) -> signature."""


@dataclass
class _Books:
    """What is known of the workers' progress, for closing epochs."""

    settled: dict[str, int] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)
    digests: dict[int, dict[int, dict[str, str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))
    wire: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))


class Recorder:
    """The one writer of a run.

    Parameters
    ----------
    run : the run's directory
    sign_epoch : asks an attester's account for its signature; may block for milliseconds
    clock : seconds for events that no worker reported
    """

    def __init__(self, run: RunDirectory, *, sign_epoch: SignEpoch, clock: Callable[[], float]) -> None:
        self.run, self.spec, self.info = run, run.spec, run.info
        self.events: EventWriter = run.writer()
        self.shape = run_shape(run)
        self._sign_epoch, self._clock = sign_epoch, clock
        self._seats = {worker["name"]: worker for worker in self.info["workers"]}
        self._live: set[str] = set()
        self._books = _Books()
        closes = run.evidence.closes()
        self.next_epoch = len(closes)
        self._rounds_seen = {event.round for event in run.events(kinds=["round"])}
        self._validations = {event.round: event.body["loss"] for event in run.events(kinds=["validation"])}
        self._last_round_at: float | None = None
        self._is_stalled = False
        self._kept: set[str] = set()
        self._tell_untold(closes)

    def close(self) -> None:
        self.events.close()

    def forget_after(self, version: int) -> None:
        """Prepare for a run that goes on from `version` rounds: later losses are measured again, open statements set aside."""
        self._rounds_seen = {number for number in self._rounds_seen if number is not None and number < version}
        self._validations = {at: loss for at, loss in self._validations.items() if at is not None and at <= version}
        open_epochs = range(self.next_epoch, self.spec.num_epochs)
        kept = {epoch: self.run.evidence.statements(epoch) for epoch in open_epochs}
        self.run.evidence.rewind(first_epoch=self.next_epoch)
        for epoch, lines in kept.items():
            if some := [line for line in lines if line["body"]["round"] < version]:
                self.run.evidence.append_statements(epoch, some)
                self._kept |= {line["signature"] for line in some}
        # An epoch can have ended without being closed yet: its digests come from the record, its rounds are not computed again.
        for event in self.run.events(kinds=["worker.round"]):
            digest, round_ = event.body.get("state_digest"), event.round
            if digest is not None and round_ is not None and event.worker is not None and round_ < version:
                self._books.digests[round_ // self.spec.epoch_rounds][self._seats[event.worker]["stage"]][event.worker] = digest

    def run_state(self, state: str, reason: str = "", **facts: Any) -> None:
        """Write the run's new state to `run.json` and as an event."""
        self.run.update_info(state=state, reason=reason, **facts)
        self.events.append("run.state", body={"state": state, "reason": reason}, time=self._clock())

    def enrol(self, worker: dict[str, Any], authorisation: Authorisation) -> None:
        """Write down one more worker and who authorised its key, and tell those who follow; a new participant becomes one.

        worker : as `run.json` lists it
        Raises EvidenceError, and writes nothing, when the authorisation is not for that seat of this run by that account.
        """
        participants = list(self.info["participants"])
        if authorisation.participant not in self.shape.participants:
            participants.append({"name": authorisation.participant, "address": authorisation.address})
        info = {**self.info, "workers": [*self.info["workers"], worker], "participants": participants}
        shape = RunShape.from_run(info, self.spec, self.shape.stage_flops)
        authorisation.check(shape)
        self.run.evidence.append_authorisations([authorisation.to_dict()])
        self.run.update_info(workers=info["workers"], participants=participants)
        self.info, self.shape = info, shape
        self._seats[worker["name"]] = worker
        # Who reads the run already read `run.json` before this worker was in it.
        shown = ("stage", "replica", "participant", "device", "remote", "data")
        told: dict[str, Any] = {key: worker[key] for key in shown if key in worker}
        self.events.append("enrolled", worker["name"], None, {**told, "address": authorisation.address}, time=self._clock())

    def depart(self, worker: str) -> None:
        """Write down that a worker has left the run for good."""
        rows = [{**row, "left": True} if row["name"] == worker else row for row in self.info["workers"]]
        self.run.update_info(workers=rows)
        self.info = {**self.info, "workers": rows}

    def worker_state(self, worker: str, state: str, *, at: float, round_: int | None = None, **facts: Any) -> None:
        """Write a worker's new state."""
        seat = self._seats[worker]
        body = {"state": state, **{key: seat[key] for key in ("stage", "replica", "participant")}, "reason": "", **facts}
        self.events.append("worker.state", worker, round_, body, time=at)
        if state in HOLDING:
            self._live.add(worker)
            self._books.since.setdefault(worker, round_ or 0)
        elif state in ("dead", "aside", "stopped", "starting", "joining"):
            self._live.discard(worker)
            self._books.since.pop(worker, None)

    def error(self, message: str, *, worker: str | None = None, log_tail: str = "") -> None:
        self.events.append("error", worker, None, {"message": message, "log_tail": log_tail}, time=self._clock())

    def report(self, worker: str, at: float, kind: str, body: dict[str, Any]) -> None:
        """Take a worker's report; `at` is when it happened, in seconds."""
        if kind == "state":
            facts = {key: value for key, value in body.items() if key not in ("state", "round")}
            self.worker_state(worker, body["state"], at=at, round_=body.get("round"), **facts)
        elif kind == "round":
            self._round(at, body)
        elif kind == "validation":
            self._validation(worker, at, body)
        elif kind == "work":
            self._work(worker, at, body)
        elif kind == "exchange":
            self.events.append("exchange", worker, body["round"], {k: v for k, v in body.items() if k != "round"}, time=at)
        elif kind == "links":
            self.events.append("links", worker, None, body, time=at)
        elif kind == "statements":
            self._statements(body["statements"])
        elif kind == "reroute":
            self.events.append("reroute", worker, body["round"], {k: body[k] for k in ("index", "stage", "dead", "to")}, time=at)
        elif kind == "unmet":
            text = (
                f"goes on without {body['peer']}, which others said takes part: heard nothing from it in "
                f"{body['waited_s']:.0f} s. Either {body['peer']} cannot reach {worker}, or it was named falsely"
            )
            self.events.append("error", worker, None, {"message": text, "log_tail": ""}, time=at)
        elif kind == "checkpoint":
            facts = {"digest": body["digest"], "size_bytes": body["size_bytes"]}
            self.events.append("checkpoint", worker, body["round"], facts, time=at)

    @property
    def is_complete(self) -> bool:
        """Whether every round is trained, the last validation is in and every epoch is closed."""
        return self.next_epoch >= self.spec.num_epochs and self.spec.steps in self._validations

    def epochs_to_close(self) -> list[int]:
        """Return the epochs whose last round every live worker has finished and whose receipts it has written, oldest first."""
        due = []
        for epoch in range(self.next_epoch, self.spec.num_epochs):
            last = self._last_round_of(epoch)
            workers = [name for name in self._live if self._books.since.get(name, 0) <= last]
            has_all_stages = len(self._books.digests[epoch]) == self.spec.stages
            if not has_all_stages or any(self._books.settled.get(name, 0) <= last for name in workers):
                break
            due.append(epoch)
        return due

    def close_epoch(self, epoch: int) -> dict[str, Any]:
        """Compute the epoch's table and root and collect its attestations; writes nothing. Heavy: not for an event loop.

        An account that cannot sign now (locked, its daemon restarted) does not stop the training: "unsigned" says who and why.
        "deviants" are the workers that do not hold what the others of their stage hold.
        """
        shape = self.shape  # a worker that is attached meanwhile changes it, and has no part in this epoch
        statements = self.run.evidence.statements(epoch)
        authorisations = self.run.evidence.authorisations()
        agreed = [self._stage_digest(epoch, stage) for stage in range(self.spec.stages)]
        digests = [digest for digest, _ in agreed]
        line = close_epoch(shape, epoch, statements, authorisations, digests)
        line["attestations"], unsigned = [], {}
        for name, address in shape.attesters.items():
            owned = name if name in shape.participants else None
            typed = check_close(shape, line, statements, authorisations, attester=owned)
            try:
                signature = self._sign_epoch(name, typed)
            except ChainError as error:
                unsigned[name] = str(error)
                continue
            line["attestations"].append({"attester": name, "address": address, "signature": signature})
        table = tally_epoch(shape, epoch, statements, authorisations)
        return {
            "line": line,
            "unpaid_tokens": sum(row.unattested_units for row in table.rows),
            "unsigned": unsigned,
            "deviants": [name for _, names in agreed for name in names],
        }

    def write_close(self, closed: dict[str, Any], *, at: float) -> None:
        """Write what `close_epoch` returned as evidence and as events."""
        line = Close.parse(closed["line"]).to_dict()
        epoch = int(line["epoch"])
        self.run.evidence.append_close(line)
        self.next_epoch = epoch + 1
        self._tell_close(line, closed["unpaid_tokens"], at)
        for name, why in closed["unsigned"].items():
            self.error(f"epoch {epoch} is closed without the signature of {name}: {why}")
        for name in closed["deviants"]:
            stage = self._seats[name]["stage"]
            self.error(f"{name} held other weights than the others of stage {stage} after epoch {epoch}", worker=name)
        self._write_wire(epoch, self._last_round_of(epoch), at)

    def _tell_untold(self, closes: list[dict[str, Any]]) -> None:
        """Write the events of epochs whose close was the last that a full disk took, or that a killed recorder wrote."""
        told = {event.body["epoch"] for event in self.run.events(kinds=["epoch"])}
        for close in closes:
            epoch = int(close["epoch"])
            if epoch not in told:
                evidence = self.run.evidence
                table = tally_epoch(self.shape, epoch, evidence.statements(epoch), evidence.authorisations())
                self._tell_close(close, sum(row.unattested_units for row in table.rows), self._clock())

    def _tell_close(self, line: dict[str, Any], unpaid_tokens: int, at: float) -> None:
        """Write a closed epoch as an event."""
        epoch = int(line["epoch"])
        body = {
            "epoch": epoch,
            "root": line["root"],
            "statements": len(line["statements"]),
            "shares": line["shares"],
            "amounts": {address: wei for _, address, wei in line["amounts"]},
            "attested_by": [attestation["attester"] for attestation in line["attestations"]],
            "unpaid": unpaid_tokens,
        }
        self.events.append("epoch", None, self._last_round_of(epoch), body, time=at)

    def _last_round_of(self, epoch: int) -> int:
        return min((epoch + 1) * self.spec.epoch_rounds, self.spec.steps) - 1

    def _stage_digest(self, epoch: int, stage: int) -> tuple[str, list[str]]:
        """Return the state digest of the most of the stage's replicas, and which replicas hold another state.

        What workers on other machines say counts only where there are no others. Raises PluralisError when as many say one
        thing as another.
        """
        said = self._books.digests[epoch][stage]
        here = {name: digest for name, digest in said.items() if not self._seats[name].get("remote")}
        votes = Counter((here or said).values()).most_common(2)
        if len(votes) > 1 and votes[0][1] == votes[1][1]:
            shown = ", ".join(f"{name}: {digest[:12]}" for name, digest in sorted(said.items()))
            raise PluralisError(
                f"replicas of stage {stage} hold different weights after epoch {epoch} ({shown}); report this as a bug"
            )
        return votes[0][0], sorted(name for name, digest in said.items() if digest != votes[0][0])

    def _round(self, at: float, body: dict[str, Any]) -> None:
        if body["round"] in self._rounds_seen:
            return
        self._rounds_seen.add(body["round"])
        seconds = None if self._last_round_at is None else max(at - self._last_round_at, 1e-9)
        self._last_round_at = at
        facts = {
            "loss": body["loss"],
            "tokens": body["tokens"],
            "seconds": seconds,
            "tokens_per_s": None if seconds is None else body["tokens"] / seconds,
        }
        self.events.append("round", None, body["round"], facts, time=at)

    def _validation(self, worker: str, at: float, body: dict[str, Any]) -> None:
        """Write a held-out loss; where the subspace turned with the last step, also the one of before that step and turn."""
        version, loss = body["round"], body["loss"]
        if version in self._validations:
            return
        self._validations[version] = loss
        self.events.append("validation", worker, version, {"loss": loss, "tokens": body["tokens"]}, time=at)
        if switches(self.spec, version - 1) and version - 1 in self._validations:
            losses = {"loss_before": self._validations[version - 1], "loss_after": loss}
            self.events.append("refresh", None, version - 1, {"version": basis_version(self.spec, version), **losses}, time=at)

    def _work(self, worker: str, at: float, body: dict[str, Any]) -> None:
        round_, digest = body["round"], body["state_digest"]
        self._books.settled[worker] = body.get("settled", round_ + 1)
        if digest is not None:
            self._books.digests[round_ // self.spec.epoch_rounds][self._seats[worker]["stage"]][worker] = digest
        for link in body["links"].values():
            for key in ("forward_bytes", "forward_tokens", "backward_bytes", "backward_tokens"):
                self._books.wire[round_ // self.spec.epoch_rounds][key] += link.get(key, 0)
        facts = {key: value for key, value in body.items() if key != "round" and not (key == "state_digest" and value is None)}
        self.events.append("worker.round", worker, round_, facts, time=at)

    def _statements(self, lines: list[dict[str, Any]]) -> None:
        """Keep statements in their epoch's file; one for an epoch that is closed already came too late to count."""
        by_epoch: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for line in lines:
            # An exchange that was under way when the run stopped is receipted anew: the same words, the same signature.
            if line["signature"] not in self._kept:
                by_epoch[line["body"]["epoch"]].append(line)
        for epoch, some in by_epoch.items():
            if epoch >= self.next_epoch:
                self.run.evidence.append_statements(epoch, some)

    def _write_wire(self, epoch: int, round_: int, at: float) -> None:
        """Write bytes a token on the boundaries in this epoch, as measured at the socket and as the codec says."""
        wire = self._books.wire.pop(epoch, defaultdict(int))
        if not wire["forward_tokens"] or not wire["backward_tokens"]:
            return
        codec_forward, codec_backward = codec_bytes_per_token(self.spec, self.info["corpus"]["vocab"])
        body = {
            "forward_bytes_per_token": wire["forward_bytes"] / wire["forward_tokens"],
            "backward_bytes_per_token": wire["backward_bytes"] / wire["backward_tokens"],
            "codec_forward": codec_forward,
            "codec_backward": codec_backward,
        }
        self.events.append("wire", None, round_, body, time=at)


def run_shape(run: RunDirectory) -> RunShape:
    """Return the facts that decide who is paid, from the run's spec and `run.json`."""
    vocab = run.info["corpus"]["vocab"]
    flops = [stage_flops_per_token(run.spec, stage, vocab) for stage in range(run.spec.stages)]
    return RunShape.from_run(run.info, run.spec, flops)
