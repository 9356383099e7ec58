"""The bytes of a message: a msgpack header and raw arrays. Nothing is ever unpickled."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import msgpack

from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import Layout, Payload
from pluralis_lab.worker.messages import Message

_TYPES: dict[str, type[Any]] = {cls.__name__: cls for cls in typing.get_args(Message)}
_TRAFFIC = {
    "Activation": "forward",
    "Gradient": "backward",
    "Contribution": "sync",
    "Piece": "sync",
    "Reduced": "sync",
    "Displacement": "sync",
}


def traffic_class(message: Message) -> str:
    """Return what the wire meter books `message` under: "forward", "backward", "sync" or "control"."""
    return _TRAFFIC.get(type(message).__name__, "control")


def encode(message: Message) -> bytes:
    """Return the message as bytes: length of the header (4, big-endian), header, raw data."""
    header: dict[str, Any] = {}
    raw = b""
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Payload):
            header[field.name], raw = value.layout, value.data
        elif isinstance(value, bytes):
            header[field.name], raw = None, value
        else:
            header[field.name] = value
    packed: bytes = msgpack.packb([type(message).__name__, header])
    return len(packed).to_bytes(4, "big") + packed + raw


def decode(data: bytes) -> Message:
    """Read what `encode` wrote. Raises WireError for anything else, naming what is wrong."""
    size = int.from_bytes(data[:4], "big")
    if size > len(data) - 4:
        raise WireError(f"a message of {len(data)} bytes announces a header of {size}; it was cut, or is none of ours")
    try:
        name, header = msgpack.unpackb(data[4 : 4 + size], use_list=False)
        readers = _readers(name)
        if not isinstance(header, dict) or header.keys() != readers.keys():
            raise WireError(f"message {name} has the fields {str(list(header))[:200]}, expected {sorted(readers)}")
        raw = data[4 + size :]
        if raw and not _holds_arrays(name):
            raise WireError(f"message {name} carries {len(raw)} bytes of data, but holds no arrays")
        fields = {field: read(header[field], raw) for field, read in readers.items()}
        return typing.cast(Message, _TYPES[name](**fields))
    except WireError:
        raise
    except Exception as error:
        raise WireError(
            f"{len(data)} bytes are no message ({type(error).__name__}: {str(error)[:200]}); does the peer run another version?"
        ) from error


@functools.cache
def _hints(name: str) -> dict[str, Any]:
    return typing.get_type_hints(_TYPES[name])


@functools.cache
def _holds_arrays(name: str) -> bool:
    return any(hint is Payload or hint is bytes for hint in _hints(name).values())


@functools.cache
def _readers(name: str) -> dict[str, Callable[[Any, bytes], Any]]:
    """Return what reads each field of a message: made of the fields' types once, and not again with every message."""
    return {field: _reader(hint, f"{name}.{field}") for field, hint in _hints(name).items()}


def _reader(hint: Any, where: str) -> Callable[[Any, bytes], Any]:
    """Return what checks a value against the field's type `hint` and returns it; arrays come from the raw data."""
    fits = _test(Layout if hint is Payload else hint)
    holds_items = "dict" in str(hint)

    def read_arrays(value: Any, raw: bytes) -> Payload:
        if not fits(value):
            raise WireError(f"{where} is {str(value)[:80]!r}, which is no layout of arrays")
        return Payload(value, raw)

    def read_bytes(value: Any, raw: bytes) -> bytes:
        if value is not None:
            raise WireError(f"{where} is {str(value)[:80]!r} in the header; its bytes come after it")
        return raw

    def read(value: Any, raw: bytes) -> Any:
        if not fits(value):
            raise WireError(f"{where} is {str(value)[:80]!r}, which is no {hint}")
        return float(value) if hint is float else _plain(value) if holds_items else value

    return read_arrays if hint is Payload else read_bytes if hint is bytes else read


def _plain(value: Any) -> Any:
    """Turn a signed item's tuples into lists, the form that is hashed; leave everything else."""
    if isinstance(value, dict):
        return {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(entry) for entry in value)
    return value


def _test(hint: Any) -> Callable[[Any], bool]:
    """Return what says whether a value is of the type `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tests = [_test(arg) for arg in args]
        return lambda value: any(test(value) for test in tests)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        each = _test(args[0])
        return lambda value: isinstance(value, tuple) and all(map(each, value))
    if origin is tuple:
        tests = [_test(arg) for arg in args]
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(tests)
            and all(test(entry) for test, entry in zip(tests, value, strict=True))
        )
    if origin is dict:
        return lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is type(None):
        return lambda value: value is None
    if hint is int:
        return lambda value: type(value) is int and -1 <= value < 2**63
    if hint is float:
        return lambda value: isinstance(value, float) or type(value) is int
    return lambda value: isinstance(value, hint)
