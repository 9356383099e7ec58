import copy
import os
import pickle
import re
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralis_lab.contributions import keys
from pluralis_lab.contributions.keys import HotKey, checksum_address, keccak, recover
from pluralis_lab.errors import EvidenceError

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_an_address_is_the_ethereum_address_of_the_key():
    assert HotKey((1).to_bytes(32, "big")).address == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


def test_keccak_is_the_hash_of_ethereum_and_not_sha3():
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize("address", ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"])
def test_addresses_are_checksummed_as_in_eip_55(address):
    assert checksum_address(address.lower()) == address


@given(seed=st.binary(max_size=40), message=st.binary(max_size=300))
def test_a_signature_recovers_to_its_key_and_to_no_other_for_another_message(seed, message):
    key = HotKey.from_seed(seed)
    signature = key.sign(message)
    assert re.fullmatch(r"0x[0-9a-f]{128}(1b|1c)", signature)
    assert recover(message, signature) == key.address
    assert recover(message + b"!", signature) != key.address


def test_eth_account_agrees_with_our_signatures():
    from eth_keys import keys as eth_keys

    key = HotKey.from_seed(b"x")
    raw = bytearray.fromhex(key.sign(b"hello")[2:])
    raw[64] -= 27
    recovered = eth_keys.Signature(bytes(raw)).recover_public_key_from_msg(b"hello")
    assert recovered.to_checksum_address() == key.address


def test_signatures_are_the_same_in_every_run_of_a_simulation():
    assert HotKey.from_seed(b"a").sign(b"m") == HotKey.from_seed(b"a").sign(b"m")
    assert HotKey.from_seed(b"a").address != HotKey.from_seed(b"b").address
    assert HotKey.generate().address != HotKey.generate().address


def twin(signature: str) -> str:
    """The other signature that elliptic curves allow for the same message: n - s, other v."""
    s = ORDER - int(signature[66:130], 16)
    return signature[:66] + f"{s:064x}" + ("1c" if signature[130:] == "1b" else "1b")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s[:-2],
        lambda s: s + "00",
        lambda s: s[2:],
        lambda s: s.upper(),
        lambda s: s[:-2] + "00",
        lambda s: "0x" + "00" * 64 + "1b",
        lambda s: "0x" + "ff" * 64 + "1b",
        lambda s: "",
        lambda s: None,
        lambda s: bytes.fromhex(s[2:]),
        twin,
    ],
    ids=["short", "long", "no-0x", "upper", "v-0", "zeros", "ones", "empty", "none", "bytes", "high-s"],
)
def test_a_malformed_signature_is_refused(spoil):
    with pytest.raises(EvidenceError):
        recover(b"m", spoil(HotKey.from_seed(b"a").sign(b"m")))


def test_a_key_survives_its_file_which_only_the_owner_can_read(tmp_path):
    path = tmp_path / "hot.key"
    key = HotKey.generate()
    umask = os.umask(0)  # the mode must not depend on it
    try:
        key.save(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert HotKey.load(path).address == key.address


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "hot.key"
    HotKey.from_seed(b"first").save(path)
    with pytest.raises(EvidenceError, match="written once"):
        HotKey.from_seed(b"second").save(path)
    assert HotKey.load(path).address == HotKey.from_seed(b"first").address


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "hot.key"
    HotKey.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(EvidenceError, match="0640"):
        HotKey.load(path)


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 32, "ff" * 32, "11" * 33])
def test_a_file_without_a_key_is_refused_and_not_quoted(tmp_path, content):
    path = tmp_path / "hot.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(EvidenceError) as raised:
        HotKey.load(path)
    assert not content or content not in str(raised.value)


def test_a_missing_key_file_says_so(tmp_path):
    with pytest.raises(EvidenceError, match="restore the file"):
        HotKey.load(tmp_path / "none.key")


def test_a_link_in_place_of_a_key_file_is_not_followed(tmp_path):
    HotKey.generate().save(tmp_path / "real.key")
    (tmp_path / "link.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(EvidenceError):
        HotKey.load(tmp_path / "link.key")


def test_the_secret_is_in_no_representation_and_is_not_pickled(tmp_path):
    key = HotKey.generate()
    key.save(tmp_path / "k")
    secret = (tmp_path / "k").read_text().strip()
    assert secret not in repr(key) + str(key) + f"{key}"
    assert not hasattr(key, "__dict__")
    for leak in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="save"):
            leak(key)


def test_signing_takes_less_than_a_fifth_of_a_millisecond():
    key = HotKey.from_seed(b"fast")
    message = b"x" * 300
    key.sign(message)
    best = min(_seconds(lambda: key.sign(message)) for _ in range(50))
    assert best < 0.2e-3
    assert keys.recover(message, key.sign(message)) == key.address


def _seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
