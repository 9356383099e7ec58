"""What the extension counts about itself, for Prometheus; one registry a server, so that two in a process do not mix."""

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from pluralis_lab.server.shapes.runs import RunState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meters:
    """Counters and gauges, all named ``pluralis_lab_*``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.runs = Gauge("pluralis_lab_runs", "Runs under this server's roots.", ["state"], registry=self.registry)
        self.viewers = Gauge("pluralis_lab_viewers", "Open live sockets.", registry=self.registry)
        self.followed = Gauge("pluralis_lab_followed_runs", "Runs whose events are being followed.", registry=self.registry)
        self.children = Gauge("pluralis_lab_children", "Child processes running now.", ["op"], registry=self.registry)
        self.started = Counter("pluralis_lab_children_started", "Child processes started.", ["op"], registry=self.registry)
        self.failed = Counter("pluralis_lab_children_failed", "Child processes that failed.", ["op"], registry=self.registry)
        self.events = Counter("pluralis_lab_events_folded", "Events folded into pictures.", registry=self.registry)
        self.fold_s = Counter("pluralis_lab_fold_seconds", "Seconds spent reading and folding.", registry=self.registry)
        self.encode_s = Counter("pluralis_lab_encode_seconds", "Seconds spent making pictures' JSON.", registry=self.registry)
        self.pictures = Counter("pluralis_lab_pictures_encoded", "Pictures made into JSON.", registry=self.registry)
        self.sent = Counter("pluralis_lab_messages_sent", "Messages sent to viewers.", ["type"], registry=self.registry)
        self.sent_bytes = Counter("pluralis_lab_sent_bytes", "Bytes sent to viewers.", registry=self.registry)

    def text(self, states: Iterable[str]) -> bytes:
        """Return the exposition; `states` are those of all runs now."""
        counts: dict[str, int] = dict.fromkeys(get_args(RunState), 0)
        for state in states:
            counts[state] = counts.get(state, 0) + 1
        for state, count in counts.items():
            self.runs.labels(state).set(count)
        return generate_latest(self.registry)
