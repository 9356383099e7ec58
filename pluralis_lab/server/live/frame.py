"""A picture as the text that goes to viewers: made once, sent to all."""

from typing import NamedTuple


class Frame(NamedTuple):
    """One picture message.

    number : counts the frames of a live run, so that a viewer never gets one twice; seq : of the newest event in it
    """

    number: int
    seq: int
    text: bytes
    over: bool


def picture_message(payload: bytes, *, partial: bool) -> bytes:
    """Wrap a picture's JSON as the socket's message."""
    return b'{"type":"picture","partial":' + (b"true" if partial else b"false") + b',"picture":' + payload + b"}"
