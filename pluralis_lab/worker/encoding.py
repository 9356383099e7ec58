"""The bytes of a message: a msgpack header and raw arrays. Nothing is ever unpickled."""

import dataclasses
import functools
import types
import typing
from typing import Any

import msgpack

from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import Payload
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
        cls = _TYPES[name]
        hints = _hints(name)
        if not isinstance(header, dict) or header.keys() != hints.keys():
            raise WireError(f"message {name} has the fields {str(list(header))[:200]}, expected {sorted(hints)}")
        raw = data[4 + size :]
        if raw and not any(hint is Payload or hint is bytes for hint in hints.values()):
            raise WireError(f"message {name} carries {len(raw)} bytes of data, but holds no arrays")
        fields = {field: _read(header[field], hint, raw, f"{name}.{field}") for field, hint in hints.items()}
        return typing.cast(Message, cls(**fields))
    except WireError:
        raise
    except Exception as error:
        raise WireError(
            f"{len(data)} bytes are no message ({type(error).__name__}: {str(error)[:200]}); does the peer run another version?"
        ) from error


@functools.cache
def _hints(name: str) -> dict[str, Any]:
    return typing.get_type_hints(_TYPES[name])


def _read(value: Any, hint: Any, raw: bytes, where: str) -> Any:
    """Check `value` against the field's type `hint` and return it; arrays come from `raw`."""
    if hint is Payload:
        if not _fits(value, tuple[tuple[str, str, tuple[int, ...]], ...]):
            raise WireError(f"{where} is {str(value)[:80]!r}, which is no layout of arrays")
        return Payload(value, raw)
    if hint is bytes:
        if value is not None:
            raise WireError(f"{where} is {str(value)[:80]!r} in the header; its bytes come after it")
        return raw
    if not _fits(value, hint):
        raise WireError(f"{where} is {str(value)[:80]!r}, which is no {hint}")
    return float(value) if hint is float else _plain(value)


def _plain(value: Any) -> Any:
    """Turn a signed item's tuples into lists, the form that is hashed; leave everything else."""
    if isinstance(value, dict):
        return {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(entry) for entry in value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(entry, args[0]) for entry in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is type(None):
        return value is None
    if hint is int:
        return type(value) is int and -1 <= value < 2**63
    if hint is float:
        return isinstance(value, float) or type(value) is int
    return isinstance(value, hint)
