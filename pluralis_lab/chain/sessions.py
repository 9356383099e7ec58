"""Unlocked accounts: a passphrase is asked for once a session and exchanged for a token, which may be narrowed to one run."""

import contextlib
import getpass
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pluralis_lab.chain.provider import CODE_LOCKED, DaemonConnection, RpcError
from pluralis_lab.errors import ChainError

PASSPHRASE_VARIABLE = "PLURALIS_LAB_PASSPHRASE"

KEEP_AWAKE_S = 300.0
"""How often a process with tokens lets the daemon know: one that nobody needs ends after half an hour, and tokens with it."""

_tokens: dict[tuple[str, str], str] = {}
"""(home, account name) -> the token that the home's daemon gave for it: one passphrase prompt a session."""


class Sessions:
    """How one `Chain` gets signatures of accounts behind a passphrase.

    Parameters
    ----------
    daemon : the connection to the daemon that holds the keys
    home : whose accounts they are
    granted : tokens by account name, for a process with nobody in front of it: it signs with these and asks for nothing
    """

    def __init__(self, daemon: Callable[[], DaemonConnection], home: Path, granted: dict[str, str] | None = None) -> None:
        self._daemon, self._home, self._granted = daemon, str(home), granted
        self._closed = threading.Event()
        if granted:
            threading.Thread(target=self._keep_awake, name="keep the chain daemon awake", daemon=True).start()

    def close(self) -> None:
        """Let the daemon end when nobody else needs it."""
        self._closed.set()

    def _keep_awake(self) -> None:
        while not self._closed.wait(KEEP_AWAKE_S):
            with contextlib.suppress(ChainError):  # whether it answers matters when something is to be signed
                self._daemon().call("pluralis_version")

    def signed(self, method: str, name: str, body: dict[str, Any]) -> Any:
        """Call a signing method of the daemon for account `name`. Raises ChainError when the account cannot be unlocked."""
        return self._with_token(name, lambda token: self._daemon().call(method, "url", name, body, token))

    def delegate(self, names: Iterable[str], run_id: str) -> dict[str, str]:
        """Return a token for each account that signs epochs of run `run_id` and nothing else, until the daemon ends."""
        return {
            name: str(self._with_token(name, lambda token: self._daemon().call("pluralis_delegate", token, run_id)))
            for name in names
        }

    def _with_token(self, name: str, call: Callable[[str], Any]) -> Any:
        if self._granted is not None:
            return self._with_granted(name, self._granted, call)
        key = (self._home, name)
        for _ in range(2):  # a token is void once its daemon has ended; then the passphrase is needed again
            if key not in _tokens:
                given = passphrase(f"Passphrase of account {name!r}: ")
                _tokens[key] = self._daemon().call("pluralis_unlock", name, given)
            try:
                return call(_tokens[key])
            except RpcError as error:
                if error.code != CODE_LOCKED:
                    raise
                del _tokens[key]
        raise ChainError(f"account {name!r} stays locked: the chain daemon of {self._home} ends again and again; see its log")

    def _with_granted(self, name: str, granted: dict[str, str], call: Callable[[str], Any]) -> Any:
        if name not in granted:
            raise ChainError(f"account {name!r} was not unlocked for this run when it was started; run.tokenize() asks for it")
        try:
            return call(granted[name])
        except RpcError as error:
            if error.code != CODE_LOCKED:
                raise
            raise ChainError(
                f"account {name!r} is locked again, since the chain daemon that it was unlocked in has ended; "
                "run.tokenize() asks for its passphrase and signs what is missing"
            ) from None


def passphrase(prompt: str, *, repeat: bool = False) -> str:
    """Return $PLURALIS_LAB_PASSPHRASE, or what is typed at `prompt` (`repeat`: twice). Raises ChainError with nobody to ask."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given:
        return given
    try:
        given = getpass.getpass(prompt)
        if repeat and given != getpass.getpass("The same again: "):
            raise ChainError("the two passphrases differ; try again")
    except (EOFError, OSError, RuntimeError) as error:  # no terminal, or a kernel without an input box
        raise ChainError(f"there is nobody to ask for a passphrase here; set {PASSPHRASE_VARIABLE}") from error
    if not given:
        raise ChainError("an empty passphrase protects nothing; give one")
    return given
