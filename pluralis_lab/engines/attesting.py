"""Signatures that an epoch could not get when it was closed: asked for later, and kept beside the closes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pluralis_lab.contributions.closing import check_close
from pluralis_lab.engines.recorder import run_shape
from pluralis_lab.store import RunDirectory

if TYPE_CHECKING:
    from pluralis_lab.chain import Chain


def sign_missing(run: RunDirectory, chain: "Chain", progress: Callable[[str, int, int], None]) -> int:
    """Sign the closed epochs that lack an attester's signature, with the accounts of this home; return how many were signed.

    Each epoch is checked as at its close before it is signed. Attesters of other homes are left out.
    Raises ChainError when an account cannot be unlocked, EvidenceError when an epoch is not what follows from the evidence.
    """
    shape, evidence = run_shape(run), run.evidence
    local = {account.name: account.address for account in chain.accounts()}
    missing = []
    for close in evidence.closes():
        signed = {attestation["attester"] for attestation in close["attestations"]}
        for name, address in shape.attesters.items():
            if name not in signed and local.get(name) == address:
                missing.append((close, name, address))
    for number, (close, name, address) in enumerate(missing):
        progress("signing epochs that had to be closed without a signature", number, len(missing))
        owned = name if name in shape.participants else None
        typed = check_close(shape, close, evidence.statements(close["epoch"]), evidence.authorisations(), attester=owned)
        signature = chain.sign_typed_data(name, typed)
        evidence.append_attestation(close["epoch"], attester=name, address=address, signature=signature)
    return len(missing)
