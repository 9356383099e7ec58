"""Invitations to a run: what an owner hands out, and what the run remembers of them."""

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pluralis_lab.errors import RunError
from pluralis_lab.foreign_json import parse_foreign
from pluralis_lab.markup import facts
from pluralis_lab.store.files import write_atomic
from pluralis_lab.store.rundir import RUN_ID

PREFIX = "pluralis1."
MAX_SEATS = 1024


@dataclass(frozen=True)
class Invitation:
    """What somebody needs to bring a worker into a run: whoever has its text may, so hand it over as you would a password.

    ``str(invitation)`` is the text for ``pluralis-lab join`` and `pl.join`.

    run : the run's id
    host, port : where its supervisor listens
    fingerprint : SHA-256 of the certificate that it shows there, 64 hexadecimal characters
    secret : what opens the gate, for so many workers and so long as the run's owner said
    """

    run: str
    host: str
    port: int
    fingerprint: str
    secret: str

    def __str__(self) -> str:
        text = json.dumps(asdict(self), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(text).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"<Invitation to {self.run[:8]} at {self.host}:{self.port}>"

    def _repr_html_(self) -> str:
        # Not its text: a notebook keeps what it shows, and passes it on with the file.
        how = "print(invitation), then in another shell: pluralis-lab join TEXT"
        return facts("Invitation", [("run", self.run[:16]), ("address", f"{self.host}:{self.port}"), ("its text", how)])

    @classmethod
    def parse(cls, text: object) -> "Invitation":
        """Read an invitation's text. Raises RunError for anything else."""
        if isinstance(text, Invitation):
            return text
        plain = text.strip() if isinstance(text, str) else ""
        try:
            if not plain.startswith(PREFIX):
                raise ValueError(f"it does not begin with {PREFIX!r}")
            packed = plain.removeprefix(PREFIX)
            fields = parse_foreign(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
            invitation = cls(**fields)
            invitation._check()
        except (ValueError, TypeError) as error:
            raise RunError(
                f"this is no invitation ({error}); it is one line from run.invite() or `pluralis-lab invite RUN`, copied whole"
            ) from None
        return invitation

    def _check(self) -> None:
        """Raise ValueError for a field that cannot be."""
        texts = (self.run, self.host, self.fingerprint, self.secret)
        if not all(isinstance(text, str) for text in texts) or not RUN_ID.fullmatch(self.run):
            raise ValueError("it names no run")
        if not RUN_ID.fullmatch(self.fingerprint):  # as long as a run's id
            raise ValueError("its fingerprint is damaged")
        if type(self.port) is not int or not 0 < self.port < 65536:
            raise ValueError(f"its port is {self.port!r:.20}")
        ipaddress.ip_address(self.host)


class InvitationBook:
    """The invitations of one run, in a file of its owner's alone: their hashes, what each is for, and how much is left of it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def exists(self) -> bool:
        """Whether anybody was invited ever."""
        return self._file.exists()

    @property
    def port(self) -> int:
        """Where the gate was opened, 0 before that: invitations that are out name it."""
        return int(self._read()["port"])

    def note_port(self, port: int) -> None:
        """Remember where the gate is open."""
        self._write({**self._read(), "port": port})

    def add(self, *, seats: int, stage: int | None, for_hours: float) -> str:
        """Write down a new invitation and return its secret.

        Raises RunError for a number of seats or hours that cannot be.
        """
        if type(seats) is not int or not 1 <= seats <= MAX_SEATS:
            raise RunError(f"seats={seats!r}; give how many workers may come with it, 1 to {MAX_SEATS}")
        if type(for_hours) not in (int, float) or not 0 < for_hours <= 24 * 365:
            raise RunError(f"for_hours={for_hours!r}; give how long it holds, at most {24 * 365}")
        secret = secrets.token_urlsafe(24)
        entry = {"hash": _hash(secret), "left": seats, "stage": stage, "until": time.time() + 3600 * for_hours}
        book = self._read()
        self._write({**book, "invitations": [*book["invitations"], entry]})
        return secret

    def find(self, secret: object) -> dict[str, Any]:
        """Return what an invitation is for ("hash", "stage", "left").

        Raises RunError for a secret that opens nothing, or nothing any more.
        """
        wanted = _hash(str(secret))
        entry = next((entry for entry in self._read()["invitations"] if hmac.compare_digest(entry["hash"], wanted)), None)
        if entry is None:
            raise RunError("the run knows no such invitation; ask its owner for one")
        if time.time() > entry["until"]:
            raise RunError("the invitation has run out; ask the run's owner for a new one")
        if entry["left"] < 1:
            raise RunError("as many workers have come with the invitation as it is for; ask the run's owner for a new one")
        return dict(entry)

    def use(self, entry: dict[str, Any]) -> None:
        """Count one more worker that came with an invitation that `find` returned."""
        book = self._read()
        rows = [{**row, "left": row["left"] - (row["hash"] == entry["hash"])} for row in book["invitations"]]
        self._write({**book, "invitations": rows})

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return {"port": 0, "invitations": []}

    def _write(self, book: dict[str, Any]) -> None:
        write_atomic(self._file, json.dumps(book).encode(), mode=0o600)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def check_host(host: object) -> str:
    """Return `host`, an address of this machine. Raises RunError for a name, and for an address that means all of them."""
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        raise RunError(f"host={host!r}; give an address of this machine as numbers, e.g. '192.168.1.5'") from None
    if address.is_unspecified or address.is_multicast:
        raise RunError(f"host={host!r} is no address that others can reach this machine at; give one of them, e.g. '192.168.1.5'")
    return str(address)
