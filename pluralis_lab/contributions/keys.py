"""Hot keys: the secp256k1 key with which a worker signs its work, and the address that its signatures recover to."""

import functools
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import NoReturn

from coincurve import PrivateKey, PublicKey

from pluralis_lab.errors import EvidenceError

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SIGNATURE = re.compile(r"0x[0-9a-f]{130}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SECRET = re.compile(r"[0-9a-f]{64}\n?")


def keccak(data: bytes) -> bytes:
    """Return the Keccak-256 of `data` (Ethereum's hash, not SHA3-256), 32 bytes."""
    # Loaded on first use: the backend takes 40 ms, and most importers of this module only read evidence formats.
    from eth_hash.auto import keccak as eth_keccak

    return eth_keccak(data)


def checksum_address(address: str) -> str:
    """Return `address` ("0x" and 40 hexadecimal digits) with the upper and lower case of EIP-55.

    Raises EvidenceError for anything else than an address.
    """
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise EvidenceError(f"address={address!r} is not an address; give 0x and 40 hexadecimal digits")
    return _checksummed(address[2:].lower())


@functools.lru_cache(maxsize=4096)
def _checksummed(digits: str) -> str:
    marks = keccak(digits.encode("ascii")).hex()
    return "0x" + "".join(c.upper() if int(mark, 16) >= 8 else c for c, mark in zip(digits, marks, strict=False))


@functools.lru_cache(maxsize=4096)
def _address_of(public_key: bytes) -> str:
    """Address of an uncompressed public key of 65 bytes; cached, because a run has few keys and many signatures."""
    return _checksummed(keccak(public_key[1:])[12:].hex())


class HotKey:
    """A worker's own signing key: it lives with the worker process, a participant authorises it, and it can be replaced.

    The secret is in no representation of the object, and it refuses to be pickled; `save` is the only way out.

    >>> key = HotKey.from_seed(b"worker-0")
    >>> recover(b"hello", key.sign(b"hello")) == key.address
    True
    """

    __slots__ = ("_private", "address")

    def __init__(self, secret: bytes) -> None:
        """Take a secret of 32 bytes. Raises EvidenceError when it is no secp256k1 scalar."""
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < _ORDER:
            raise EvidenceError("a hot key's secret is 32 bytes between 1 and the group order; use HotKey.generate()")
        self._private = PrivateKey(secret)
        self.address: str = _address_of(self._private.public_key.format(compressed=False))

    @classmethod
    def generate(cls) -> "HotKey":
        """Return a new key from the system's randomness."""
        return cls(PrivateKey().secret)

    @classmethod
    def from_seed(cls, seed: bytes) -> "HotKey":
        """Return the same key for the same `seed`: for simulations, where nothing is at stake; never for a real worker."""
        for counter in range(256):
            secret = hashlib.sha256(b"pluralis_lab simulated key" + bytes([counter]) + seed).digest()
            if 0 < int.from_bytes(secret, "big") < _ORDER:
                return cls(secret)
        raise EvidenceError("no key follows from this seed; use another one")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "HotKey":
        """Read the key that `save` wrote at `path`.

        Raises EvidenceError when the file is missing, can be read by others than its owner, or holds no key.
        """
        path = Path(path)
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with os.fdopen(fd, encoding="ascii", errors="replace") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(66)
        except OSError as error:
            raise EvidenceError(
                f"hot key {path}: {error.strerror}; its owner authorised this key, so no other will do: restore the file, or "
                "launch the spec anew"
            ) from error
        if mode & 0o077:
            raise EvidenceError(f"hot key {path} has mode {mode:04o}, so others can read it; replace the key, mode 0600")
        if not _SECRET.fullmatch(text):
            raise EvidenceError(f"hot key {path} does not hold 64 hexadecimal digits; replace the key")
        return cls(bytes.fromhex(text.strip()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the secret to a new file at `path`, mode 0600, flushed to disk.

        Raises EvidenceError when the file exists: a key is replaced by a new file, never overwritten.
        """
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise EvidenceError(f"hot key {os.fspath(path)}: {error.strerror}; a key file is written once") from error
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(self._private.secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def sign(self, message: bytes) -> str:
        """Return the recoverable signature over keccak256(`message`): "0x" and 65 bytes r || s || v, v 27 or 28, low s."""
        return self.sign_digest(keccak(message))

    def sign_digest(self, digest: bytes) -> str:
        """Return the signature over a 32-byte digest, as `sign` does after hashing; deterministic (RFC 6979)."""
        signature = self._private.sign_recoverable(digest, hasher=None)
        return f"0x{signature[:64].hex()}{signature[64] + 27:02x}"

    def __repr__(self) -> str:
        return f"HotKey({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a HotKey is not pickled, because its secret would travel; save() it and load() it")


def recover(message: bytes, signature: str) -> str:
    """Return the address whose key signed keccak256(`message`).

    Any well-formed signature recovers to *some* address: compare it with the one that is expected.
    Raises EvidenceError for a malformed signature, and for one with a high s (its low twin is the only valid form, as
    in EIP-2 and OpenZeppelin's ECDSA).
    """
    return recover_digest(keccak(message), signature)


def recover_digest(digest: bytes, signature: str) -> str:
    """Return the address whose key signed the 32-byte `digest`. Raises EvidenceError as `recover` does."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        shown = repr(signature)
        raise EvidenceError(
            f"signature={shown if len(shown) < 160 else shown[:157] + '...'} is malformed; "
            "give 0x and 130 lower-case hexadecimal digits (r, s, v)"
        )
    raw = bytes.fromhex(signature[2:])
    if raw[64] not in (27, 28):
        raise EvidenceError(f"signature has v={raw[64]}; v is 27 or 28")
    if int.from_bytes(raw[32:64], "big") > _ORDER // 2:
        raise EvidenceError("signature has a high s; use its low form, n - s, with the other v")
    try:
        public_key = PublicKey.from_signature_and_message(raw[:64] + bytes([raw[64] - 27]), digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception and ValueError for the two ways in which this fails
        raise EvidenceError(f"signature {signature[:18]}... recovers to no key: {error}") from error
    return _address_of(public_key.format(compressed=False))
