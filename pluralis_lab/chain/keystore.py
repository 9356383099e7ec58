"""Accounts as encrypted files (web3 secret storage, 0600) and the only place where private keys are in the clear: memory."""

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account as EthAccount
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json
from eth_utils.address import to_checksum_address

from pluralis_lab.chain.private_file import write_private
from pluralis_lab.errors import ChainError

# embedded: of the embedded chain, unlocked by its daemon. url: of any other chain, behind a passphrase. deployer: one for
# each run, with no power once the contracts stand, so it needs no passphrase on any chain.
KINDS = ("embedded", "url", "deployer")
FAUCET = "faucet"  # of kind embedded: the account that holds the embedded chain's ether
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
# The home's secret has 256 random bits, which no key stretching makes harder to guess; a person's passphrase needs all of it.
_SECRET_ITERATIONS = 1000
_PASSPHRASE_ITERATIONS = 2**18


class AccountLockedError(ChainError):
    """The account is behind a passphrase that this caller has not given in this session."""


@dataclass(frozen=True)
class Session:
    """What a session token is good for: all signatures of account `name`, or only those over epochs of one `run`."""

    name: str
    run: str | None = None


class Keystore:
    """The accounts of one home, under `<home>/accounts/<kind>/<name>.json`.

    Decrypted keys stay in this object. A key behind a passphrase is usable only with the session token that `unlock` gave for it.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "accounts"
        for kind in KINDS:
            (self._folder / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._secret = self._read_or_make_secret(self._folder / "secret")
        self._unlocked: dict[tuple[str, str], LocalAccount] = {}
        self._sessions: dict[str, Session] = {}

    @staticmethod
    def _read_or_make_secret(path: Path) -> bytes:
        if not path.exists():
            write_private(path, secrets.token_hex(32) + "\n")
        return path.read_text().strip().encode()

    def _path(self, kind: str, name: str) -> Path:
        if kind not in KINDS:
            raise ChainError(f"account kind {kind!r}; use one of {', '.join(KINDS)}")
        if not _NAME.fullmatch(name):
            raise ChainError(
                f"account name {name!r}; use 1 to 80 letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )
        return self._folder / kind / f"{name}.json"

    def accounts(self, kind: str) -> dict[str, str]:
        """Names and checksummed addresses of all accounts of one kind."""
        return {path.stem: self._address(path) for path in sorted(self._path(kind, "x").parent.glob("[!.]*.json"))}

    @staticmethod
    def _address(path: Path) -> str:
        return str(to_checksum_address(json.loads(path.read_text())["address"]))

    def find(self, kind: str, name: str) -> str | None:
        """The checksummed address of an account, or None when there is none of that name."""
        path = self._path(kind, name)
        return self._address(path) if path.exists() else None

    def create(self, kind: str, name: str, passphrase: str | None = None) -> str:
        """Make an account and return its address. Raises ChainError when the name is taken or a passphrase is missing."""
        path = self._path(kind, name)
        if path.exists():
            raise ChainError(f"there is already an account {name!r} in {path}")
        if (kind == "url") != bool(passphrase):
            raise ChainError(f"an account of kind {kind!r} {'needs a' if kind == 'url' else 'takes no'} passphrase")
        account = EthAccount.create(secrets.token_hex(32))
        encrypted = create_keyfile_json(
            bytes(account.key),
            passphrase.encode() if passphrase else self._secret,
            kdf="scrypt" if passphrase else "pbkdf2",
            iterations=_PASSPHRASE_ITERATIONS if passphrase else _SECRET_ITERATIONS,
        )
        write_private(path, json.dumps(encrypted, indent=1) + "\n")
        if not passphrase:
            self._unlocked[kind, name] = account
        return str(account.address)

    def unlock(self, name: str, passphrase: str) -> str:
        """Decrypt an account of kind url and return a session token, without which it signs nothing. Raises ChainError."""
        self._unlocked["url", name] = self._decrypt("url", name, passphrase.encode())
        token = secrets.token_hex(16)
        self._sessions[token] = Session(name)
        return token

    def delegate(self, session: str, run_id: str) -> str:
        """Return a token that can sign epochs of run `run_id` and nothing else. Raises AccountLockedError for a void session."""
        known = self._sessions.get(session)
        if known is None or known.run is not None:
            raise AccountLockedError("this session is void; unlock the account with its passphrase")
        token = secrets.token_hex(16)
        self._sessions[token] = Session(known.name, run_id)
        return token

    def _decrypt(self, kind: str, name: str, secret: bytes) -> LocalAccount:
        path = self._path(kind, name)
        if not path.exists():
            known = ", ".join(n for n in self.accounts(kind) if n != FAUCET) or "none yet"
            raise ChainError(
                f"no account {name!r} among the {kind} accounts of this home ({known}); chain.account({name!r}) makes it"
            )
        try:
            key = decode_keyfile_json(json.loads(path.read_text()), secret)
        except ValueError as error:
            what = "the passphrase is wrong" if kind == "url" else "it was encrypted with another home's accounts/secret"
            raise ChainError(f"account {name!r} cannot be decrypted: {what}") from error
        account: LocalAccount = EthAccount.from_key(key)
        return account

    def signer(self, kind: str, name: str, session: str | None = None, *, run: str | None = None) -> LocalAccount:
        """The account ready to sign; for use inside the daemon only. Raises ChainError when it is locked.

        run : the run whose epoch is to be signed, None for anything else
        """
        if kind == "url" and not self._allows(session, name, run):
            raise AccountLockedError(f"account {name!r} is locked; unlock it with its passphrase, or set PLURALIS_LAB_PASSPHRASE")
        if (kind, name) not in self._unlocked:
            self._unlocked[kind, name] = self._decrypt(kind, name, self._secret)
        return self._unlocked[kind, name]

    def _allows(self, session: str | None, name: str, run: str | None) -> bool:
        known = None if session is None else self._sessions.get(session)
        return known is not None and known.name == name and known.run in (None, run)


def sign_typed_data(account: LocalAccount, typed_data: dict[str, Any]) -> str:
    """Sign an EIP-712 message (types, primaryType, domain, message): 65 bytes as 0x-hex, v 27 or 28."""
    try:
        message = encode_typed_data(full_message=typed_data)
    except Exception as error:  # eth-account raises many kinds; all mean that the caller's message is malformed
        raise ChainError(f"not an EIP-712 message: {error!r}") from error
    return "0x" + bytes(account.sign_message(message).signature).hex()
