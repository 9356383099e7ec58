"""Who signs for a participant: its account in the keystore of this home, or a key that follows from the seed of a simulation."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

from pluralis_lab.contributions.attestation import sign_typed_with_key
from pluralis_lab.contributions.keys import HotKey


class Signer(Protocol):
    """Holds the accounts of participants and attesters."""

    def address(self, name: str) -> str:
        """Return the address of account `name`."""
        ...

    def sign(self, name: str, typed_data: dict[str, Any]) -> str:
        """Return the account's EIP-712 signature, "0x" and 65 bytes."""
        ...


class ChainSigner:
    """Accounts of a chain; the keystore's daemon signs, no key enters this process.

    granted : tokens by account name (`Chain.delegate`), for a process that nobody can be asked in; None: ask for passphrases.
    Nothing here asks the chain's node, which may be away while a run trains.
    """

    def __init__(self, description: dict[str, Any], home: Path, granted: dict[str, str] | None = None) -> None:
        from pluralis_lab.chain import Chain

        self._chain = Chain(description["url"], profile=description["profile"], home=home)
        if granted is not None:
            self._chain.use(granted)

    def address(self, name: str) -> str:
        return str(self._chain.account(name).address)

    def sign(self, name: str, typed_data: dict[str, Any]) -> str:
        return str(self._chain.sign_typed_data(name, typed_data))


class SeedSigner:
    """Accounts of a simulation without a chain: keys that anyone can derive from the seed, so nothing is at stake."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def address(self, name: str) -> str:
        return HotKey(self._secret(name)).address

    def sign(self, name: str, typed_data: dict[str, Any]) -> str:
        return sign_typed_with_key(typed_data, self._secret(name))

    def _secret(self, name: str) -> bytes:
        return hashlib.sha256(f"pluralis_lab simulated account {self._seed} {name}".encode()).digest()


def signer_for(chain: dict[str, Any], *, seed: int, home: Path, granted: dict[str, str] | None = None) -> Signer:
    """Return the signer of a run whose `run.json` describes `chain`; `granted` as in `ChainSigner`."""
    return SeedSigner(seed) if chain["kind"] == "none" else ChainSigner(chain, home, granted)
