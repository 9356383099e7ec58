"""A message on a virtual wire: its bytes, and what whoever gets it reads from them."""

from functools import cached_property

from pluralis_lab.engines.virtual.modelled import missing_bytes
from pluralis_lab.worker.encoding import decode, encode
from pluralis_lab.worker.messages import Message


class Frame:
    """A message as it travels, to one worker or to many: it is encoded once, and read once, by the first whom it reaches.

    What is read is shared by all of them: messages are never changed.

    is_modelled : hand over `message` as it was sent, since its arrays are nowhere
    """

    def __init__(self, message: Message, *, is_modelled: bool) -> None:
        self.sent, self._is_modelled = message, is_modelled
        self._data = encode(message)
        self.size_bytes = len(self._data) + missing_bytes(message)

    @cached_property
    def received(self) -> Message:
        """What comes out at the other end."""
        return self.sent if self._is_modelled else decode(self._data)
