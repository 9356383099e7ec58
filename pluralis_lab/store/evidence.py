"""The signed statements of a run, as lines of JSON that anyone can read and check."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from pluralis_lab.canonical import canonical_json
from pluralis_lab.errors import StoreError
from pluralis_lab.foreign_json import parse_foreign

Line = dict[str, Any]


class EvidenceFolder:
    """The signed statements of one run, in a folder of JSON lines.

    `authorisations.jsonl`, `epoch-N.jsonl` (statements), `closes.jsonl` (roots with their attestations) and `attestations.jsonl`
    (attestations that an epoch could not get when it was closed).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def authorisations(self) -> list[Line]:
        return self._read("authorisations.jsonl")

    def statements(self, epoch: int) -> list[Line]:
        return self._read(f"epoch-{epoch}.jsonl")

    def statements_by_epoch(self) -> dict[int, list[Line]]:
        """Return all statements, keyed by the epoch whose file they are in."""
        numbers = sorted(int(file.stem.removeprefix("epoch-")) for file in self.path.glob("epoch-*.jsonl"))
        return {number: self.statements(number) for number in numbers}

    def closes(self) -> list[Line]:
        """Return the closed epochs in order, each with all its attestations: those of its close, and those that came later."""
        closes = self._read("closes.jsonl")
        for line in self._read("attestations.jsonl"):
            for close in closes:
                attestations = close.get("attestations", [])
                is_new = line["attester"] not in {attestation["attester"] for attestation in attestations}
                if close["epoch"] == line["epoch"] and is_new:
                    late = {name: line[name] for name in ("attester", "address", "signature")}
                    close["attestations"] = [*attestations, late]
        return closes

    def append_authorisations(self, lines: Iterable[Line]) -> None:
        self._append("authorisations.jsonl", lines)

    def append_statements(self, epoch: int, lines: Iterable[Line]) -> None:
        self._append(f"epoch-{epoch}.jsonl", lines, flush=False)

    def append_close(self, line: Line) -> None:
        """Write a closed epoch, after its statements have reached the disk."""
        with open(self.path / f"epoch-{line['epoch']}.jsonl", "ab") as file:
            os.fsync(file.fileno())
        self._append("closes.jsonl", [line])

    def append_attestation(self, epoch: int, *, attester: str, address: str, signature: str) -> None:
        """Add a signature to an epoch that is closed already."""
        line = {"epoch": epoch, "attester": attester, "address": address, "signature": signature}
        self._append("attestations.jsonl", [line])

    def rewind(self, *, first_epoch: int) -> None:
        """Move the files of `first_epoch` and later aside, for a run that goes on from an earlier round.

        Nothing is lost: the old lines stay beside the new ones as `epoch-N.jsonl.superseded-K`.
        """
        for file in sorted(self.path.glob("epoch-*.jsonl")):
            if int(file.stem.removeprefix("epoch-")) >= first_epoch:
                count = len(list(self.path.glob(f"{file.name}.superseded-*")))
                file.rename(file.with_name(f"{file.name}.superseded-{count}"))

    def _append(self, name: str, lines: Iterable[Line], *, flush: bool = True) -> None:
        data = b"".join(canonical_json(line) + b"\n" for line in lines)
        try:
            with open(self.path / name, "a+b") as file:
                _drop_half_line(file)
                file.write(data)
                if flush:  # statements outlive a killed process without it; their epoch's close makes them outlive the machine
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:  # what is there of a line is dropped by the next one, and is not read
            raise StoreError(f"{name}: {error.strerror}; is the disk full?") from error

    def _read(self, name: str) -> list[Line]:
        file = self.path / name
        if not file.exists():
            return []
        raw = file.read_bytes()
        lines = raw.split(b"\n")
        if lines and lines[-1]:
            lines = lines[:-1]  # a line without its end is still being written, or was cut by a crash: it was never promised
        out = []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                out.append(parse_foreign(line))
            except ValueError as error:
                raise StoreError(
                    f"{name}, line {number} is not JSON ({error}); the evidence was damaged after it was written"
                ) from None
        return out


def _drop_half_line(file: BinaryIO) -> None:
    """Cut off what a killed writer left of its last line, so that the next one does not run into it."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
