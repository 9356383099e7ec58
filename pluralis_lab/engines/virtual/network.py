"""The virtual network: what becomes of a message between the one who sends it and the one whom it is for."""

from collections.abc import Callable, Mapping

from pluralis_lab.engines.pieces import may_wait, piece_sizes
from pluralis_lab.engines.virtual.agenda import Agenda
from pluralis_lab.engines.virtual.frame import Frame
from pluralis_lab.engines.virtual.seat import Seat
from pluralis_lab.engines.virtual.wire import Uplink, Wire
from pluralis_lab.links import Links
from pluralis_lab.worker import Event, Received, Send
from pluralis_lab.worker.encoding import traffic_class
from pluralis_lab.worker.messages import Message, Ping, Pong

MODELLED_PIECES = 256
"""Where nothing is computed messages may be of any size; in more pieces than this they would take longer to plan than to send."""


class Network:
    """Carries messages between those who sit in `seats`, over a wire for each pair and direction.

    agenda : where arrivals are put down
    links : how fast the wires are
    seats : who is there, by name; whoever changes it lets the network see that
    tell : called as (name, seat, event) with what has arrived
    is_modelled : messages' arrays are nowhere, so they are as large as they say
    """

    def __init__(
        self,
        agenda: Agenda,
        links: Links,
        seats: Mapping[str, Seat],
        tell: Callable[[str, Seat, Event], None],
        *,
        is_modelled: bool,
    ) -> None:
        self._agenda, self._links, self._seats, self._tell, self._is_modelled = agenda, links, seats, tell, is_modelled
        self._wires: dict[tuple[str, str], Wire] = {}
        self._uplinks: dict[str, Uplink] = {}
        self._lost: set[tuple[str, int]] = set()
        self._last_frame: Frame | None = None

    def send(self, name: str, seat: Seat, effect: Send) -> None:
        """Put a message on its way from `name`, who sits in `seat`; to a process that has ended, it is sent and gone."""
        target = self._seats.get(effect.target)
        frame = self._frame(effect.message)
        seat.meter.sent(effect.target, traffic_class(effect.message), frame.size_bytes)
        known = seat.machine.desk.roster.get(effect.target)
        if target is None or known is None or known.incarnation != target.incarnation:
            return
        way = (name, seat.incarnation, effect.target, target.incarnation)
        if may_wait(effect.message):
            most = MODELLED_PIECES if self._is_modelled else None
            self._send_pieces(seat, frame, piece_sizes(frame.size_bytes, most=most), *way)
        else:
            arrives = self._wire(name, effect.target).arrives(frame.size_bytes, self._agenda.now)
            self._agenda.put(arrives, self._deliver, frame, *way, is_watch=isinstance(effect.message, Ping | Pong))

    def lose_what_is_sent_by(self, name: str, incarnation: int) -> None:
        """Lose what that incarnation of `name` has sent and nobody has received, once it is gone."""
        self._lost.add((name, incarnation))

    def is_through_in(self, name: str, target: str) -> float:
        """Return in how many seconds what `name` sent last is with `target`."""
        return self._wire(name, target).is_through_in(self._agenda.now)

    def _frame(self, message: Message) -> Frame:
        """Return the message as it travels; what goes to many is one frame."""
        if self._last_frame is None or self._last_frame.sent is not message:
            self._last_frame = Frame(message, is_modelled=self._is_modelled)
        return self._last_frame

    def _wire(self, name: str, target: str) -> Wire:
        if (wire := self._wires.get((name, target))) is None:
            uplink = self._uplinks.setdefault(name, Uplink(self._links))
            wire = self._wires[name, target] = Wire(self._links.between(name, target), uplink)
        return wire

    def _send_pieces(
        self, seat: Seat, frame: Frame, pieces: list[int], name: str, sender: int, target: str, receiver: int
    ) -> None:
        """Send a message that may wait, a piece whenever the one before has left; what was queued meanwhile goes first."""
        if self._seats.get(name) is not seat:
            return  # it died with the rest unsent
        now, way, wire = self._agenda.now, (name, sender, target, receiver), self._wire(name, target)
        if seat.is_frozen(now):
            self._agenda.put(seat.frozen[1], self._send_pieces, seat, frame, pieces, *way)
        elif len(pieces) == 1:
            self._agenda.put(wire.arrives(pieces[0], now), self._deliver, frame, *way)
        else:
            self._agenda.put(wire.occupy(pieces[0], now), self._send_pieces, seat, frame, pieces[1:], *way)

    def _deliver(self, frame: Frame, name: str, sender: int, target: str, receiver: int) -> None:
        """Hand what the incarnation `sender` of `name` sent to the incarnation `receiver` of `target`."""
        here, there = self._seats.get(target), self._seats.get(name)
        sender_lives = there is not None and there.incarnation == sender
        if here is None or here.incarnation != receiver or (not sender_lives and (name, sender) in self._lost):
            return
        known = here.machine.desk.roster.get(name)
        if known is not None and known.is_met and known.incarnation > sender:
            return  # the stream was closed when its successor said hello
        here.meter.received(frame.size_bytes)
        self._tell(target, here, Received(name, frame.received))
