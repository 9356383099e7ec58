"""Messages: what was sent comes out, and anything else is a WireError and nothing more."""

import ast
import dataclasses
import os
import pickle
import typing
from pathlib import Path

import msgpack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pluralis_lab.worker.messages as module
from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import pack
from pluralis_lab.worker import encoding
from pluralis_lab.worker.encoding import decode, encode, traffic_class
from pluralis_lab.worker.messages import (
    Activation,
    Committed,
    Contribution,
    Counted,
    Displacement,
    Drawn,
    Ended,
    EvalActivation,
    EvalDone,
    Fetch,
    FetchDisplacement,
    FetchPiece,
    FetchReduced,
    FetchState,
    Gathered,
    Gradient,
    Have,
    Hello,
    InferActivation,
    Join,
    Lost,
    Merged,
    Mislaid,
    Piece,
    Ping,
    Pong,
    ProbeActivation,
    ProbeDone,
    ProbeMislaid,
    Reduced,
    StateChunk,
    StateOffer,
    Token,
)

numbers = st.integers(0, 2**40)
names = st.text(max_size=12)
indices = st.lists(st.integers(0, 999), max_size=5).map(tuple)
floats = st.floats(allow_nan=False)
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint16])
payloads = st.lists(st.tuples(dtypes, st.lists(st.integers(0, 3), max_size=3)), max_size=3).map(
    lambda arrays: pack([(f"a{i}", torch.ones(shape).to(dtype)) for i, (dtype, shape) in enumerate(arrays)])
)
items = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["forward", "backward", "contribution"]),
        "run": names,
        "round": numbers,
        "stage": numbers,
        "worker": names,
        "indices": st.lists(numbers, max_size=4),
        "tokens": numbers,
        "digest": names,
        "signature": names,
    }
)
parts = st.lists(st.tuples(names, names), max_size=3).map(tuple)
joiners = st.lists(st.tuples(names, numbers, st.booleans()), max_size=3).map(tuple)
tables = st.lists(st.tuples(numbers, numbers, st.none() | numbers), max_size=3).map(tuple)
lanes = st.lists(st.tuples(numbers, tables), max_size=3).map(tuple)
peers = st.lists(st.tuples(names, numbers, numbers, st.booleans()), max_size=3).map(tuple)
EXAMPLES = {
    Hello: st.builds(Hello, numbers, numbers, names, numbers, st.none() | numbers, st.booleans()),
    Activation: st.builds(Activation, numbers, numbers, items, payloads, st.booleans()),
    Drawn: st.builds(Drawn, numbers, numbers, payloads),
    Gradient: st.builds(Gradient, numbers, numbers, items, payloads),
    Counted: st.builds(Counted, numbers, indices),
    Contribution: st.builds(Contribution, numbers, names, st.none() | floats, st.none() | numbers, items, payloads),
    Have: st.builds(Have, numbers, parts, joiners, names),
    Fetch: st.builds(Fetch, numbers, names),
    Committed: st.builds(Committed, numbers, parts, joiners, tables),
    Displacement: st.builds(
        Displacement, numbers, names, numbers, st.lists(st.tuples(numbers, items), max_size=3).map(tuple), items, payloads
    ),
    Gathered: st.builds(Gathered, numbers, parts),
    Merged: st.builds(Merged, numbers, parts),
    FetchDisplacement: st.builds(FetchDisplacement, numbers, names),
    Join: st.builds(Join, numbers, st.booleans()),
    StateOffer: st.builds(StateOffer, numbers, names, lanes, numbers, st.binary(max_size=200), lanes, peers),
    FetchState: st.builds(FetchState, numbers, names, indices),
    StateChunk: st.builds(StateChunk, numbers, names, numbers, st.binary(max_size=200)),
    Lost: st.builds(Lost, names, numbers),
    Piece: st.builds(Piece, numbers, names, numbers, payloads),
    FetchPiece: st.builds(FetchPiece, numbers, names, numbers),
    Reduced: st.builds(Reduced, numbers, parts, numbers, names, payloads),
    FetchReduced: st.builds(FetchReduced, numbers),
    Ping: st.builds(Ping, numbers),
    Pong: st.builds(Pong, numbers, numbers, numbers),
    EvalActivation: st.builds(EvalActivation, numbers, numbers, names, payloads),
    EvalDone: st.builds(EvalDone, numbers, numbers, floats, numbers),
    ProbeActivation: st.builds(ProbeActivation, names, numbers, names, payloads),
    ProbeDone: st.builds(ProbeDone, names, numbers, floats, numbers),
    ProbeMislaid: st.builds(ProbeMislaid, names, numbers, names),
    InferActivation: st.builds(InferActivation, names, numbers, names, numbers, numbers, floats, numbers, payloads),
    Token: st.builds(Token, names, numbers, numbers, numbers),
    Mislaid: st.builds(Mislaid, names, numbers, names),
    Ended: st.builds(Ended, names, numbers),
}
ITEM = {
    "kind": "forward",
    "run": "ab",
    "round": 1,
    "stage": 0,
    "worker": "w",
    "indices": [1],
    "tokens": 9,
    "digest": "d",
    "signature": "0x",
}
PAYLOAD = pack([("z", torch.arange(6.0).view(2, 3)), ("ids", torch.tensor([1, 2], dtype=torch.uint16))])
ONE_OF_EACH = [
    Hello(1, 0, "0xAb", 0, None, True),
    Activation(3, 1, ITEM, PAYLOAD),
    Drawn(3, 1, PAYLOAD),
    Gradient(3, 1, ITEM, PAYLOAD),
    Counted(3, (0, 2)),
    Contribution(3, "worker-1", 2.5, 40, ITEM, PAYLOAD),
    Have(3, (("worker-1", "d"),), (("worker-2", 1, False),), "ab"),
    Fetch(3, "worker-1"),
    Piece(3, "d", 7, PAYLOAD),
    FetchPiece(3, "d", 7),
    Reduced(3, (("worker-1", "d"),), 7, "worker-2", PAYLOAD),
    FetchReduced(3),
    Committed(3, (("worker-1", "d"),), (("worker-2", 1, False),), ((0, 0, None), (1, 4, 8))),
    Displacement(3, "worker-1", 1, ((2, ITEM), (3, ITEM)), ITEM, PAYLOAD),
    Gathered(3, (("worker-1", "d"),)),
    Merged(3, (("worker-1", "d"),)),
    FetchDisplacement(3, "worker-1"),
    Join(2, True),
    StateOffer(
        3, "d", ((2, ((0, 0, None), (5, 2, 7))),), 1000, b"\x00hash\xff", ((0, ((0, 0, 9),)),), (("worker-8", 1, 4, False),)
    ),
    FetchState(3, "d", (0, 5)),
    StateChunk(3, "d", 1, b"\x00state\xff"),
    Lost("worker-1", 1),
    Ping(3),
    Pong(3, 40, 2),
    EvalActivation(3, 1, "worker-0", PAYLOAD),
    EvalDone(3, 1, 2.5, 9),
    ProbeActivation("a1", 1, "worker-0", PAYLOAD),
    ProbeDone("a1", 1, 2.5, 9),
    ProbeMislaid("a1", 1, "gone"),
    InferActivation("a1", 1, "worker-0", 4, 5, 0.7, 3, PAYLOAD),
    Token("a1", 1, 5, 97),
    Mislaid("a1", 1, "gone"),
    Ended("a1", 1),
]
BYTES_OF = {StateOffer: "hashes", StateChunk: "data"}
"""What is bytes and no arrays."""
OFFER = {"version": 1, "digest": "d", "lanes": [], "size_bytes": 1, "hashes": None, "next_lanes": [], "peers": []}
by_name = pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)


def frame(name, header, raw=b""):
    packed = msgpack.packb([name, header])
    return len(packed).to_bytes(4, "big") + packed + raw


def test_every_message_type_is_tried_here():
    every = set(typing.get_args(module.Message))
    assert set(EXAMPLES) == every == {type(message) for message in ONE_OF_EACH}


@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_was_sent_comes_out(cls, data):
    message = data.draw(EXAMPLES[cls])
    again = decode(encode(message))
    assert type(again) is cls
    assert again == message
    assert encode(again) == encode(message)
    for field in dataclasses.fields(cls):
        assert type(getattr(again, field.name)) is type(getattr(message, field.name))


@by_name
def test_a_message_that_was_cut_is_refused(message):
    data = encode(message)
    for size in range(len(data)):
        if (field := BYTES_OF.get(type(message))) and size >= len(data) - len(getattr(message, field)):
            assert getattr(decode(data[:size]), field) == getattr(message, field)[: size - len(data)]  # its digest tells
            continue
        with pytest.raises(WireError):
            decode(data[:size])


@by_name
def test_bytes_after_a_message_are_refused(message):
    if type(message) in BYTES_OF:
        return  # they are whatever follows; a digest tells
    for tail in (b"\x00", b"x" * 100):
        with pytest.raises(WireError):
            decode(encode(message) + tail)


def only_a_message_or_a_wire_error(data):
    try:
        message = decode(data)
    except WireError as refusal:
        told = str(refusal)
        assert len(told) < 600
        return
    assert type(message) in EXAMPLES
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if hasattr(value, "tensors"):
            value.tensors()
    assert decode(encode(message)) == message or "nan" in repr(message)


@by_name
def test_every_flipped_byte_gives_a_message_or_a_wire_error(message):
    data = encode(message)
    for position in range(min(len(data), 330)):
        for mask in (0x01, 0x80, 0xFF):
            only_a_message_or_a_wire_error(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])


@settings(max_examples=300, deadline=None)
@given(message=st.one_of(*EXAMPLES.values()), data=st.data())
def test_random_damage_gives_a_message_or_a_wire_error(message, data):
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    only_a_message_or_a_wire_error(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=60), size=st.none() | st.integers(0, 60))
def test_noise_gives_a_wire_error(noise, size):
    only_a_message_or_a_wire_error(noise if size is None else size.to_bytes(4, "big") + noise)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(message=st.sampled_from(ONE_OF_EACH), data=st.data())
def test_a_field_of_another_type_gives_a_message_or_a_wire_error(message, data):
    header = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    raw = b""
    for name, value in header.items():
        if hasattr(value, "layout"):
            header[name], raw = value.layout, value.data
        elif isinstance(value, bytes):
            header[name], raw = None, value
    header[data.draw(st.sampled_from(sorted(header)))] = data.draw(anything)
    only_a_message_or_a_wire_error(frame(type(message).__name__, header, raw))


@pytest.mark.parametrize(
    ("name", "header", "raw", "says"),
    [
        ("Bye", {}, b"", "Bye"),
        ("Message", {}, b"", "Message"),
        ("__class__", {}, b"", "__class__"),
        (7, {}, b"", "7"),
        ({"a": 1}, {}, b"", "no message"),
        ("Fetch", {"round": 1}, b"", "worker"),
        ("Fetch", {"round": 1, "worker": "w", "more": 1}, b"", "more"),
        ("Fetch", ["round", "worker"], b"", "fields"),
        ("Fetch", "round", b"", "fields"),
        ("Fetch", {"round": "1", "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": 1.0, "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": True, "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": -2, "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": 2**63, "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": None, "worker": "w"}, b"", "Fetch.round"),
        ("Fetch", {"round": 1, "worker": b"w"}, b"", "Fetch.worker"),
        ("Fetch", {"round": 1, "worker": "w"}, b"raw", "3 bytes"),
        ("Counted", {"round": 1, "indices": [1, "2"]}, b"", "Counted.indices"),
        ("Counted", {"round": 1, "indices": 1}, b"", "Counted.indices"),
        ("Have", {"round": 1, "parts": [["w"]], "joiners": [], "sums": ""}, b"", "Have.parts"),
        ("Have", {"round": 1, "parts": [["w", "d", "e"]], "joiners": [], "sums": ""}, b"", "Have.parts"),
        ("Hello", {"stage": 0, "replica": 0, "key": "k", "incarnation": 0, "since": 0, "answer": 1}, b"", "Hello.answer"),
        ("StateOffer", {**OFFER, "next_lanes": [[0, [0, 0, None]]]}, b"", "StateOffer.next_lanes"),
        ("StateOffer", {**OFFER, "peers": [["w", 1, 2]]}, b"", "StateOffer.peers"),
        ("EvalDone", {"version": 1, "index": 1, "loss": "2.5", "tokens": 1}, b"", "EvalDone.loss"),
        ("EvalDone", {"version": 1, "index": 1, "loss": None, "tokens": 1}, b"", "EvalDone.loss"),
        ("Gradient", {"round": 1, "index": 1, "item": [], "payload": []}, b"", "Gradient.item"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4", [2]]]}, b"1234", "needs 8"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4", ["1"]]]}, b"1234", "Gradient.payload"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4", [1.5]]]}, b"1234", "Gradient.payload"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4"]]}, b"1234", "Gradient.payload"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4", [0, 2**62]]]}, b"", "shape"),
        ("Gradient", {"round": 1, "index": 1, "item": {}, "payload": [["g", "f4", [2**40, 2**40]]]}, b"", "shape"),
        ("StateChunk", {"version": 1, "digest": "d", "index": 0, "data": b"in the header"}, b"", "StateChunk.data"),
    ],
)
def test_what_is_no_message_of_ours_is_refused_and_named(name, header, raw, says):
    with pytest.raises(WireError) as raised:
        decode(frame(name, header, raw))
    assert says in str(raised.value)


@pytest.mark.parametrize("size", [2**32 - 1, 2**31, 1000, 40])
def test_a_header_that_announces_more_than_there_is_is_refused(size):
    with pytest.raises(WireError, match=str(size)):
        decode(size.to_bytes(4, "big") + msgpack.packb(["Join", {"incarnation": 1}]))


@pytest.mark.parametrize("bomb", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 5000])
def test_a_header_of_huge_or_deep_announcements_is_refused_without_the_memory(bomb):
    with pytest.raises(WireError):
        decode(len(bomb).to_bytes(4, "big") + bomb)


class Trap:
    """Leaves a file behind when somebody unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_ever_unpickled(tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for data in (
        trap,
        len(trap).to_bytes(4, "big") + trap,
        frame("StateChunk", {"version": 1, "digest": "d", "index": 0, "data": None}, trap),
        frame("Fetch", {"round": 1, "worker": msgpack.ExtType(42, trap)}),
        frame("Gradient", {"round": 1, "index": 1, "item": {"kind": trap}, "payload": [["g", "f4", [1]]]}, trap),
    ):
        only_a_message_or_a_wire_error(data)
    assert not (tmp_path / "sprung").exists()
    tree = ast.parse(Path(encoding.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "cloudpickle", "dill", "marshal", "torch", "hivemind"}


@by_name
def test_the_meter_books_activations_gradients_and_contributions_apart(message):
    expected = {"Activation": "forward", "Gradient": "backward"}
    expected |= dict.fromkeys(["Contribution", "Displacement", "Piece", "Reduced"], "sync")
    assert traffic_class(message) == expected.get(type(message).__name__, "control")


def test_framing_adds_little_to_an_activation():
    payload = pack([("z", torch.zeros(4, 128, 16, dtype=torch.bfloat16)), ("ids", torch.zeros(4, 129, dtype=torch.uint16))])
    item = {**ITEM, "run": "a" * 64, "digest": "d" * 64, "signature": "0x" + "1" * 130}
    size = len(encode(Activation(999, 7, item, payload)))
    assert size < 1.05 * len(payload.data)
