"""The daemon as a process: started on demand, one a home, private, and with its chain intact after kill -9."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pluralis_lab.chain import Chain
from pluralis_lab.chain.place import ChainPlace
from pluralis_lab.chain.provider import DaemonConnection, RpcError
from pluralis_lab.errors import ChainError


def pid_of(home: Path) -> int:
    return json.loads(ChainPlace(home).record.read_text())["pid"]


def wait_gone(pid: int, timeout_s: float = 30.0) -> None:
    try:
        psutil.Process(pid).wait(timeout_s)
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def home(lab_home: Path) -> Path:
    return lab_home


def test_two_processes_that_start_it_at_once_get_one_daemon(home):
    script = (
        "import sys; from pluralis_lab.chain import Chain; c = Chain.embedded(); print(c._daemon.call('pluralis_version')['pid'])"
    )
    starters = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    pids = {int(starter.communicate(timeout=60)[0]) for starter in starters}
    assert pids == {pid_of(home)}


def test_it_outlives_the_process_that_started_it(home):
    script = "from pluralis_lab.chain import Chain; print(Chain.embedded().account('lab-a').address)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert psutil.pid_exists(pid_of(home))
    assert Chain.embedded(home).account("lab-a", create=False).address == done.stdout.strip()


def test_its_socket_and_files_are_for_their_owner_only(chain, daemon_home):
    chain.account("lab-a")
    place = ChainPlace(daemon_home)
    record = json.loads(place.record.read_text())
    assert stat.S_IMODE(os.stat(record["socket"]).st_mode) == 0o600
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    for path in [*place.folder.rglob("*"), *(daemon_home / "accounts").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_home_with_a_long_path_has_its_socket_in_a_private_folder(tmp_path):
    home = tmp_path / ("long" * 30)
    chain = Chain.embedded(home)
    try:
        assert chain.chain_id > 0
        path = Path(json.loads(ChainPlace(home).record.read_text())["socket"])
        assert len(os.fsencode(path)) <= 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        assert chain.stop()
    assert not path.exists()


@pytest.mark.parametrize(
    "method",
    [
        "eth_sendTransaction",
        "eth_sign",
        "personal_unlockAccount",
        "evm_increaseTime",
        "evm_snapshot",
        "debug_traceCall",
        "x",
        None,
    ],
)
def test_methods_that_are_not_on_the_list_are_refused(chain, method):
    with pytest.raises(RpcError, match="has no method") as caught:
        chain._daemon.call(method)
    assert caught.value.code == -32601


def test_what_is_no_request_is_answered_with_an_error(chain, daemon_home):
    chain.account("lab-a")
    with ChainPlace(daemon_home).connect() as connection, connection.makefile("rwb") as stream:
        for line in (b"not json", b"[]", b"{}", b'{"method": "eth_call", "params": 5}', b"\xff\xfe", b'"text"'):
            stream.write(line + b"\n")
            stream.flush()
            assert json.loads(stream.readline())["error"]["code"] == -32600
        stream.write(b'{"id": 7, "method": "eth_getBalance", "params": []}\n')
        stream.flush()
        answer = json.loads(stream.readline())
        assert (answer["id"], answer["error"]["code"]) == (7, -32602)


def test_threads_share_one_connection(chain):
    chain.account("lab-a")
    results, wanted = [], chain.chain_id

    def ask():
        for _ in range(20):
            results.append(int(chain._daemon.call("eth_chainId"), 16))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == [wanted] * 80


def test_every_answered_transaction_survives_kill_9(home):
    chain = Chain.embedded(home)
    sender, target = chain.account("lab-a"), chain.account("lab-b")
    chain_id, before = chain.chain_id, chain.balance(target.address)
    answered, cut_off, pid = 0, [], pid_of(home)
    one_more, killed = threading.Event(), threading.Event()

    def kill_meanwhile():
        one_more.wait(60)
        os.kill(pid, signal.SIGKILL)
        killed.set()

    def send_until_killed():
        nonlocal answered
        while not killed.is_set():  # the kill may come between two requests: then the daemon starts again for the second one
            if answered == 3:
                one_more.set()
            try:
                chain._daemon.call("pluralis_sendTransaction", "embedded", sender.name, {"to": target.address, "value": 1})
            except ChainError as error:
                cut_off.append(str(error))
                return
            answered += 1

    killer = threading.Thread(target=kill_meanwhile)
    killer.start()
    send_until_killed()
    killer.join()
    assert all("went away" in said for said in cut_off)
    assert answered >= 3
    wait_gone(pid)
    again = Chain.embedded(home)
    assert again.chain_id == chain_id
    received = again.balance(target.address) - before
    assert received in (answered, answered + 1), "the one in flight is there as a whole or not at all"
    assert again.web3.eth.get_transaction_count(sender.address) == received
    again.transact(sender.name, to=target.address, value=1)
    assert again.balance(target.address) - before == received + 1
    assert pid_of(home) != pid


KILL_IN_BLOCK = """
import os, signal, sys
from pathlib import Path
from eth_account import Account
from pluralis_lab.chain.database import BlockDatabase
from pluralis_lab.chain.node import Node
account = Account.from_key("0x" + "01" * 32)
node = Node(Path(sys.argv[1]), bytes.fromhex(account.address[2:]))
def send(nonce):
    raw = account.sign_transaction({"chainId": node.chain_id, "nonce": nonce, "gas": 21000, "maxFeePerGas": 10**10,
        "maxPriorityFeePerGas": 10**9, "to": "0x" + "22" * 20, "value": 1}).raw_transaction
    node.send(bytes(raw))
send(0)
print(node.head().hash.hex(), flush=True)
write, left = BlockDatabase.__setitem__, int(sys.argv[2])
def counted(self, key, value):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(self, key, value)
BlockDatabase.__setitem__ = counted
send(1)
print("finished", flush=True)
"""


@pytest.mark.parametrize("after_writes", [0, 1, 5, 9])
def test_a_kill_in_the_middle_of_a_block_leaves_the_block_before(tmp_path, after_writes):
    from eth_account import Account

    from pluralis_lab.chain.node import Node

    path = tmp_path / "chain.db"
    done = subprocess.run(
        [sys.executable, "-c", KILL_IN_BLOCK, str(path), str(after_writes)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    account = Account.from_key("0x" + "01" * 32)
    node = Node(path, bytes.fromhex(account.address[2:]))
    assert node.head().hash.hex() == done.stdout.strip()
    assert node.head().block_number == 1
    assert node.state().get_nonce(bytes.fromhex(account.address[2:])) == 1
    assert node.state().get_balance(b"\x22" * 20) == 1
    node.close()


def test_it_ends_cleanly_on_sigterm_and_goes_on_where_it_was(home):
    chain = Chain.embedded(home)
    address, chain_id, pid = chain.account("lab-a").address, chain.chain_id, pid_of(home)
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    place = ChainPlace(home)
    assert not place.record.exists()
    assert not place.socket_path().exists()
    assert not place.database.with_name("chain.db-wal").exists(), "the database was closed"
    assert chain.account("lab-a", create=False).address == address, "the same object starts it again"
    assert int(chain._daemon.call("eth_chainId"), 16) == chain_id


def test_it_ends_when_nobody_asks_for_a_while(home, monkeypatch):
    monkeypatch.setenv("PLURALIS_LAB_CHAIN_IDLE_S", "1")
    chain = Chain.embedded(home)
    chain_id, pid = chain.chain_id, chain._daemon.call("pluralis_version")["pid"]
    wait_gone(pid)
    assert not psutil.pid_exists(pid)
    assert int(chain._daemon.call("eth_chainId"), 16) == chain_id


def test_it_ends_when_its_home_is_removed(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setenv("PLURALIS_LAB_CHAIN_IDLE_S", "3")  # it looks at least this often
    home = tmp_path / "h"
    chain = Chain.embedded(home)
    chain.account("lab-a")
    pid = pid_of(home)
    shutil.rmtree(home)
    wait_gone(pid)
    assert not psutil.pid_exists(pid)


def test_a_daemon_of_another_version_is_named(home):
    chain = Chain.embedded(home)
    chain.account("lab-a")
    record = ChainPlace(home).record
    record.write_text(json.dumps(json.loads(record.read_text()) | {"protocol": 99}))
    with pytest.raises(ChainError, match=rf"process {pid_of(home)}\) speaks protocol 99.*kill {pid_of(home)}"):
        Chain.embedded(home).account("lab-a")


def test_a_process_that_cannot_start_it_says_why(tmp_path):
    place = ChainPlace(tmp_path)
    place.make()
    place.database.write_bytes(b"this is not a database, but a text that somebody put here" * 100)
    with pytest.raises(ChainError, match="cannot be opened"):
        Chain.embedded(tmp_path).account("lab-a")


def test_stop_says_whether_there_was_one(home):
    chain = Chain.embedded(home)
    assert not chain.stop()
    chain.account("lab-a")
    pid = pid_of(home)
    assert chain.stop()
    wait_gone(pid, 5)
    assert not psutil.pid_exists(pid)


def test_calls_do_not_import_web3_unless_a_contract_is_called(chain, daemon_home):
    script = (
        "import sys; from pluralis_lab.chain import Chain; c = Chain.embedded(sys.argv[1]); c.account('lab-a'); c.plan('0' * 64);"
        "c.describe(); print([m for m in ('web3', 'eth_account', 'eth', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(daemon_home)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_an_interrupted_call_does_not_answer_the_next_one(chain, daemon_home, monkeypatch):
    connection = DaemonConnection(ChainPlace(daemon_home))
    connection.call("eth_chainId")

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection, "_read_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.call("eth_gasPrice")
    assert connection.call("eth_chainId") == hex(chain.chain_id)
    connection.close()


def test_a_forked_child_does_not_share_the_connection(chain, daemon_home):
    connection = DaemonConnection(ChainPlace(daemon_home))
    connection.call("eth_chainId")
    connection._owner = os.getpid() + 1  # what a child sees after a fork
    before = connection._socket
    assert connection.call("eth_chainId") == hex(chain.chain_id)
    assert connection._socket is not before
    connection.close()


def test_a_client_that_goes_away_in_its_request_harms_nobody(chain, daemon_home):
    chain.account("lab-a")
    for _ in range(3):
        broken = ChainPlace(daemon_home).connect()
        broken.sendall(b'{"id": 1, "method": "eth_chainId"')
        broken.shutdown(socket.SHUT_RDWR)
        broken.close()
    begun = time.monotonic()
    assert chain._daemon.call("eth_chainId")
    assert time.monotonic() - begun < 5
