"""The report of an audit: a verdict, what led to it, and the table that was recomputed on the way."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pluralis_lab.contributions.closing import Close
from pluralis_lab.contributions.findings import Finding
from pluralis_lab.contributions.tally import EpochTable

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # findings in the text and HTML forms; `findings` has all


@dataclass(frozen=True, repr=False)
class AuditReport:
    """What an audit found.

    findings : faults, in the order of the evidence; notes : what is in order and worth knowing (work done twice and
    paid once, statements that came too late, an epoch that is still open)
    tables : the recomputed table of each closed epoch; closes : their lines; num_attestations : those that are valid
    """

    run_id: str
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    tables: tuple[EpochTable, ...]
    closes: tuple[Close, ...]
    num_attestations: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong. Notes do not count."""
        return not self.findings

    @property
    def num_statements(self) -> int:
        """Statements that were verified and counted."""
        return sum(len(table.statements) for table in self.tables)

    @property
    def table(self) -> "pd.DataFrame":
        """One row an epoch and worker: tokens of each kind, paid, self-attested, unattested and incomplete units."""
        import pandas as pd

        return pd.concat([table.frame() for table in self.tables], ignore_index=True) if self.tables else pd.DataFrame()

    @property
    def ownership(self) -> "pd.DataFrame":
        """One row a closed epoch and participant who is paid: recomputed units, share (exact text and percent)."""
        import pandas as pd

        return pd.DataFrame(self._ownership(), columns=["epoch", "participant", "units", "share", "percent"])

    def __str__(self) -> str:
        lines = [self._verdict()]
        lines += [f"  {number}. {finding}" for number, finding in enumerate(self.findings[:_SHOWN], start=1)]
        if len(self.findings) > _SHOWN:
            lines.append(f"  ... and {len(self.findings) - _SHOWN} more")
        if self.notes:
            lines.append(f"Notes ({len(self.notes)}), none of them a fault:")
            lines += [f"  - {note}" for note in self.notes[:_SHOWN]]
            if len(self.notes) > _SHOWN:
                lines.append(f"  ... and {len(self.notes) - _SHOWN} more")
        for epoch, participant, units, share, percent in self._ownership():
            lines.append(f"  epoch {epoch}  {participant:<16} {percent:7.3f} %  {units:>24,} units  {share}")
        unattested = sum(table.unattested_units for table in self.tables)
        if unattested:
            lines.append(f"  {unattested:,} units had no other replica to attest them: shown, not paid")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        def cells(tag: str, values: "list[str] | tuple[str, ...]") -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

        parts = [f"<p><strong>{html.escape(self._verdict())}</strong></p>"]
        for title, entries in (("Findings", self.findings), ("Notes (no faults)", self.notes)):
            if entries:
                rows = [
                    cells("td", (f.kind, "" if f.epoch is None else str(f.epoch), f.subject, f.detail)) for f in entries[:_SHOWN]
                ]
                more = f"<p>{len(entries) - _SHOWN} more</p>" if len(entries) > _SHOWN else ""
                head = cells("th", ("kind", "epoch", "what", "detail"))
                parts.append(f"<table><caption>{title}</caption>{head}{''.join(rows)}</table>{more}")
        rows = [
            cells("td", (str(epoch), participant, f"{units:,}", f"{percent:.3f} %"))
            for epoch, participant, units, _, percent in self._ownership()
        ]
        if rows:
            head = cells("th", ("epoch", "participant", "units", "share"))
            parts.append(f"<table><caption>Recomputed shares</caption>{head}{''.join(rows)}</table>")
        return "".join(parts)

    def _verdict(self) -> str:
        checked = f"{len(self.tables)} closed epochs, {self.num_statements} statements and {self.num_attestations} attestations"
        if self.ok:
            return f"Audit of run {self.run_id[:8]}: in order. {checked} verify, and every share and root follows from them."
        count = "1 fault" if len(self.findings) == 1 else f"{len(self.findings)} faults"
        return f"Audit of run {self.run_id[:8]}: {count}. {checked} verify."

    def _ownership(self) -> list[tuple[int, str, int, str, float]]:
        rows = []
        for table in self.tables:
            total = sum(table.units.values())
            rows += [
                (table.epoch, name, units, f"{units}/{total}", 100 * units / total)
                for name, units in table.units.items()
                if units
            ]
        return rows
