"""The certificate of a supervisor's gate: self-signed, and known to whoever was invited by its fingerprint alone.

No authority vouches for a laboratory's machine. The invitation carries the certificate's SHA-256, so a joiner talks to the run
that invited it and to nobody between (pinning, OWASP "Certificate and Public Key Pinning").
"""

import asyncio
import datetime
import hashlib
import hmac
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pluralis_lab.errors import WireError
from pluralis_lab.store.files import write_atomic

CONNECT_TIMEOUT_S = 20.0
"""For a network that swallows what is sent to it: a machine that is there refuses at once, or answers in a second."""
_LIFETIME = datetime.timedelta(days=3650)


def gate_certificate(file: Path) -> str:
    """Return the SHA-256 fingerprint (64 hexadecimal characters) of the certificate in `file`, which is made if it is missing.

    The file holds the key too, and is its owner's alone: a supervisor that starts anew has to be recognised.
    """
    if not file.exists():
        write_atomic(file, _make(), mode=0o600)
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def server_context(file: Path) -> ssl.SSLContext:
    """Return the TLS settings of a gate with the certificate and key in `file`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(file)
    return context


async def open_pinned(host: str, port: int, fingerprint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the gate at `host`, `port` that has the certificate with that `fingerprint`.

    Raises WireError for another certificate, before anything is sent; OSError when nobody answers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no authority signed it: it is compared below
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), fingerprint):
        writer.close()
        raise WireError(f"{host}:{port} shows another certificate than the invitation names; ask for a new invitation")
    return reader, writer


def _make() -> bytes:
    """Return a new key and its certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pluralis-lab run")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the clocks of two machines differ
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return private + certificate.public_bytes(serialization.Encoding.PEM)
