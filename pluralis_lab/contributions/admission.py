"""Admission: which statements count, decided for each on its own, by whoever collects or audits them."""

from collections.abc import Iterable

from pluralis_lab.contributions.authorisations import authorised_keys
from pluralis_lab.contributions.findings import Finding, RefusedError, statement_finding
from pluralis_lab.contributions.keys import recover
from pluralis_lab.contributions.receipts import Statement
from pluralis_lab.contributions.shape import RunShape
from pluralis_lab.errors import EvidenceError


class Admission:
    """Checks statements of one run against the keys that its participants authorised.

    Parameters
    ----------
    shape : the run
    authorisations : lines of evidence/authorisations.jsonl; build a new object when one is added

    `keys` holds the authorised addresses of each worker, `findings` what is wrong with the authorisations themselves.

    >>> admitted, refused = Admission(shape, authorisations).screen(0, lines)  # doctest: +SKIP
    """

    def __init__(self, shape: RunShape, authorisations: Iterable[object]) -> None:
        self.shape = shape
        self.keys, self.findings = authorised_keys(shape, authorisations)
        # Every replica countersigns the same contribution item, so that one recovery serves up to 15 statements.
        self._recovered: dict[tuple[bytes, str], str] = {}

    def admit(self, epoch: int, line: object) -> Statement:
        """Return the statement that `line` holds when it counts in `epoch`.

        Raises RefusedError, whose `kind` is malformed, foreign-run, unauthorised, forged or replayed, in that order of checks.
        """
        try:
            statement = Statement.parse(line)
        except EvidenceError as error:
            raise RefusedError("malformed", str(error)) from error
        self._check_signatures(statement)
        if statement.epoch != epoch:
            raise RefusedError("replayed", f"it was signed for epoch {statement.epoch}")
        self._check_possible(statement)
        self._check_roles(statement)
        return statement

    def screen(self, epoch: int, lines: Iterable[object]) -> tuple[list[Statement], list[Finding]]:
        """Return the statements that count, each once, and a finding for each line that does not."""
        admitted: dict[str, Statement] = {}
        findings = []
        for line in lines:
            try:
                statement = self.admit(epoch, line)
            except RefusedError as refusal:
                findings.append(statement_finding(refusal.kind, epoch, line, str(refusal)))
                continue
            if statement.hash in admitted:
                findings.append(statement_finding("duplicate", epoch, line, "the same line stands there twice"))
            admitted[statement.hash] = statement
        return list(admitted.values()), findings

    def _check_signatures(self, statement: Statement) -> None:
        if statement.run != self.shape.run_id:
            raise RefusedError("foreign-run", f"it was signed for run {statement.run}")
        for role, name in (("worker", statement.worker), ("signer", statement.signer)):
            if name not in self.keys:
                raise RefusedError("unauthorised", f"its {role} {name!r} is no worker of the run")
            if not self.keys[name]:
                raise RefusedError("unauthorised", f"no participant authorised a key of its {role} {name}")
        self._check_signature(statement.message, statement.signature, statement.signer, "the counter-signature")
        for item in statement.items:
            what = f"the worker's signature over indices {list(item.indices)}"
            self._check_signature(item.message, item.signature, statement.worker, what)

    def _check_signature(self, message: bytes, signature: str, name: str, what: str) -> None:
        address = self._recovered.get((message, signature))
        if address is None:
            try:
                address = self._recovered[message, signature] = recover(message, signature)
            except EvidenceError as error:
                raise RefusedError("forged", f"{what}: {error}") from error
        if address not in self.keys[name]:
            raise RefusedError("forged", f"{what} is by {address}, which is no authorised key of {name}")

    def _check_possible(self, statement: Statement) -> None:
        shape = self.shape
        if statement.round not in shape.rounds(statement.epoch):
            raise RefusedError("malformed", f"round {statement.round} does not belong to epoch {statement.epoch}")
        if statement.stage != shape.seats[statement.worker].stage:
            at = shape.seats[statement.worker].stage
            raise RefusedError("malformed", f"it says stage {statement.stage}, but {statement.worker} is at stage {at}")
        for item in statement.items:
            if item.indices[-1] >= shape.num_micro_batches:
                raise RefusedError("malformed", f"index {item.indices[-1]}, but a round has {shape.num_micro_batches}")
            tokens = len(item.indices) * shape.tokens_per_micro_batch
            if item.tokens != tokens:
                raise RefusedError("malformed", f"{item.tokens} tokens over {list(item.indices)}, which hold {tokens}")

    def _check_roles(self, statement: Statement) -> None:
        """Forward is signed a stage later, backward a stage earlier, a contribution at the stage itself.

        A worker may sign its own contribution where it has no live replica: the tally shows that as unattested.
        """
        at = self.shape.seats[statement.signer].stage
        consumer = statement.stage + {"forward": 1, "backward": -1, "contribution": 0}[statement.kind]
        if at != consumer:
            raise RefusedError(
                "unauthorised",
                f"{statement.signer} is at stage {at}, and {statement.kind} work of stage {statement.stage} is "
                + (f"signed at stage {consumer}" if 0 <= consumer < self.shape.stages else "consumed by no stage"),
            )
