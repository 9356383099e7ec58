"""Accounts: made quickly, encrypted always, and never signing for someone or something else."""

import json
import statistics
import time

import pytest
from eth_account import Account as EthAccount
from eth_account.messages import encode_typed_data

from pluralis_lab.chain import Chain
from pluralis_lab.chain import sessions as sessions_module
from pluralis_lab.chain.keystore import KINDS, Keystore
from pluralis_lab.chain.provider import RpcError
from pluralis_lab.contributions.attestation import authorisation_typed_data, epoch_typed_data
from pluralis_lab.errors import ChainError


def typed_data(chain_id):
    return authorisation_typed_data("ab" * 32, "worker-0", "0x" + "11" * 20, chain_id, "0x" + "22" * 20)


def test_an_embedded_account_is_made_and_unlocked_quickly(tmp_path):
    store, made, unlocked = Keystore(tmp_path), [], []
    for number in range(5):
        begun = time.process_time()
        store.create("embedded", f"a{number}")
        made.append(time.process_time() - begun)
        begun = time.process_time()
        Keystore(tmp_path).signer("embedded", f"a{number}")
        unlocked.append(time.process_time() - begun)
    assert min(made) < 0.05
    assert statistics.median(unlocked) < 0.25  # of a processor: a busy machine takes as much


def test_no_private_key_is_in_any_file(run, capfd):
    """Run everything once and look for the key, as bytes and as text, in every file of the home."""
    run.close()
    run.tokenize().pay(ether=1)
    home, keys = run.chain.home, []
    store = Keystore(home)
    for kind in KINDS:
        for name in store.accounts(kind):
            if kind != "url":
                keys.append(bytes(store.signer(kind, name).key))
    assert len(keys) >= 4
    content = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    output = "".join(capfd.readouterr())
    for key in keys:
        for form in (key, key.hex().encode(), key.hex().upper().encode(), str(int.from_bytes(key, "big")).encode()):
            assert not any(form in data for data in content)
        assert key.hex() not in output


def test_files_are_standard_keystores(tmp_path):
    store = Keystore(tmp_path)
    address = store.create("url", "mine", "correct horse")
    stored = json.loads((tmp_path / "accounts" / "url" / "mine.json").read_text())
    assert EthAccount.from_key(EthAccount.decrypt(stored, "correct horse")).address == address
    assert stored["crypto"]["kdf"] == "scrypt"
    assert stored["crypto"]["kdfparams"]["n"] >= 2**17


def test_an_account_behind_a_passphrase_signs_only_for_who_gave_it(tmp_path):
    store = Keystore(tmp_path)
    store.create("url", "mine", "correct horse")
    with pytest.raises(ChainError, match="locked"):
        store.signer("url", "mine")
    with pytest.raises(ChainError, match="the passphrase is wrong"):
        store.unlock("mine", "wrong horse")
    session = store.unlock("mine", "correct horse")
    assert store.signer("url", "mine", session).address == store.find("url", "mine")
    with pytest.raises(ChainError, match="locked"):
        store.signer("url", "mine", "0" * 32)


def test_a_runs_process_can_sign_its_epochs_and_nothing_else(direct, monkeypatch):
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", "correct horse")
    monkeypatch.setattr(sessions_module, "_tokens", {})
    owner = Chain("http://127.0.0.1:1", home=direct.home)
    owner._daemon = direct._daemon
    address = owner.account("delegator").address
    granted = owner.delegate(["delegator"], "ab" * 32)
    monkeypatch.delenv("PLURALIS_LAB_PASSPHRASE")
    process = Chain("http://127.0.0.1:1", home=direct.home).use(granted)
    process._daemon = direct._daemon

    epoch = epoch_typed_data("ab" * 32, 3, 0, "11" * 32, "22" * 32, "33" * 32, 1, "0x" + "22" * 20)
    signature = process.sign_typed_data("delegator", epoch)
    assert EthAccount.recover_message(encode_typed_data(full_message=epoch), signature=signature) == address
    other_run = epoch_typed_data("cd" * 32, 3, 0, "11" * 32, "22" * 32, "33" * 32, 1, "0x" + "22" * 20)
    looks_alike = {**epoch, "domain": {**epoch["domain"], "name": "another project"}}
    for refused in (other_run, looks_alike, typed_data(1)):
        with pytest.raises(ChainError, match="is locked again"):
            process.sign_typed_data("delegator", refused)
    transaction = {"chainId": 1, "gas": 21000, "nonce": 0, "to": address}
    with pytest.raises(RpcError, match="locked"):
        direct._daemon.call("pluralis_signTransaction", "url", "delegator", transaction, granted["delegator"])
    with pytest.raises(RpcError, match="void"):
        direct._daemon.call("pluralis_delegate", granted["delegator"], "cd" * 32)
    with pytest.raises(ChainError, match="'somebody' was not unlocked for this run"):
        process.sign_typed_data("somebody", epoch)


def test_a_process_with_tokens_keeps_the_daemon_from_ending_of_idleness(lab_home, monkeypatch):
    monkeypatch.setenv("PLURALIS_LAB_CHAIN_IDLE_S", "4")
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", "correct horse")
    monkeypatch.setattr(sessions_module, "_tokens", {})
    monkeypatch.setattr(sessions_module, "KEEP_AWAKE_S", 0.3)
    owner = Chain("http://127.0.0.1:1")
    owner.account("treasury")
    process = Chain("http://127.0.0.1:1").use(owner.delegate(["treasury"], "ab" * 32))
    owner.close()
    time.sleep(6)
    process.sign_typed_data("treasury", epoch_typed_data("ab" * 32, 0, 0, "11" * 32, "22" * 32, "33" * 32, 1, "0x" + "22" * 20))
    process.close()


def test_an_embedded_account_signs_for_its_own_chain_only(direct):
    direct.account("lab-a")
    signature = direct.sign_typed_data("lab-a", typed_data(direct.chain_id))
    message = encode_typed_data(full_message=typed_data(direct.chain_id))
    assert EthAccount.recover_message(message, signature=signature) == direct.account("lab-a").address
    assert len(signature) == 132
    assert int(signature[-2:], 16) in (27, 28)
    with pytest.raises(ChainError, match="signs nothing for chain 1;"):
        direct.sign_typed_data("lab-a", typed_data(1))
    with pytest.raises(ChainError, match="signs nothing for chain 1;"):
        direct._daemon.call("pluralis_signTransaction", "embedded", "lab-a", {"chainId": 1, "gas": 21000, "nonce": 0})


@pytest.mark.parametrize("name", ["", "../lab-a", "a/b", ".hidden", "a" * 81, "a b", "fauçet"])
def test_a_name_that_could_leave_its_folder_is_refused(direct, name):
    with pytest.raises(ChainError, match="account name"):
        direct.account(name)


def test_the_faucet_is_nobodys_account(direct):
    with pytest.raises(ChainError, match="taken"):
        direct.account("faucet")
    with pytest.raises(ChainError, match="does not send"):
        direct.transact("faucet", to=direct.account("lab-a").address, value=1)
    assert "faucet" not in {account.name for account in direct.accounts()}


def test_an_account_that_is_not_there_is_named(direct):
    with pytest.raises(ChainError, match="no account 'nobody'"):
        direct.account("nobody", create=False)
    with pytest.raises(ChainError, match="no account 'nobody'"):
        direct.sign_typed_data("nobody", typed_data(direct.chain_id))


def test_the_faucet_tops_up(direct):
    account = direct.account("poor")
    assert direct.balance(account.address) == 100 * 10**18
    direct.fund("poor", 250)
    assert direct.balance(account.address) == 250 * 10**18
    direct.fund("poor", 1)
    assert direct.balance(account.address) == 250 * 10**18


def test_without_anybody_to_ask_the_passphrase_comes_from_the_environment(direct, monkeypatch):
    remote = Chain("http://127.0.0.1:1", home=direct.home)
    remote._daemon = direct._daemon
    monkeypatch.setattr(sessions_module, "_tokens", {})
    monkeypatch.delenv("PLURALIS_LAB_PASSPHRASE", raising=False)
    monkeypatch.setattr(sessions_module.getpass, "getpass", lambda prompt: (_ for _ in ()).throw(EOFError()))
    with pytest.raises(ChainError, match="set PLURALIS_LAB_PASSPHRASE"):
        remote.account("treasury")
    monkeypatch.setenv("PLURALIS_LAB_PASSPHRASE", "correct horse")
    address = remote.account("treasury").address
    signature = remote.sign_typed_data("treasury", typed_data(1))
    assert EthAccount.recover_message(encode_typed_data(full_message=typed_data(1)), signature=signature) == address
    monkeypatch.delenv("PLURALIS_LAB_PASSPHRASE")
    remote.sign_typed_data("treasury", typed_data(1))  # once a session is enough
    with pytest.raises(ChainError, match="no faucet"):
        remote.fund("treasury", 1)


def test_a_chain_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ChainError, match="http or https"):
        Chain("ftp://node", home=tmp_path)
    with pytest.raises(ChainError, match="profile 'slow'"):
        Chain("http://node", profile="slow", home=tmp_path)
