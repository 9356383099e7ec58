"""What the owner of a run can tell its supervisor: stop, kill a worker, take one in, let one go, say how the workers are."""

from collections.abc import Callable
from typing import Any

from pluralis_lab.engines.swarm.enrolment import Enrolment
from pluralis_lab.engines.swarm.seats import Seats


def execute(request: dict[str, Any], seats: Seats, enrolment: Enrolment, end: Callable[[str, str], None]) -> dict[str, Any]:
    """Execute a command and return the answer: "ok", and "error" where that is false.

    end : begins to end the run, called with its last state and the reason
    """
    if request["op"] == "stop":
        end("stopped", request.get("reason", "stopped by its owner"))
        return {"ok": True}
    if request["op"] == "kill":
        seat = seats.get(str(request.get("worker")))
        if seat is None:
            return {"ok": False, "error": f"no worker {request.get('worker')!r}; there are {', '.join(seats.names)}"}
        if seat.pid is None:
            return {"ok": False, "error": f"{seat.name} is not running"}
        seat.kill()
        return {"ok": True, "pid": seat.pid}
    if request["op"] == "leave":
        why = seats.ask_to_leave(str(request.get("worker")))
        return {"ok": True} if why is None else {"ok": False, "error": why}
    if request["op"] == "reserve":
        return enrolment.reserve(request.get("stage"), request.get("stages"))
    if request["op"] == "release":
        return enrolment.release(str(request.get("worker")))
    if request["op"] == "enrol":
        return enrolment.enrol(request)
    if request["op"] == "status":
        return {"ok": True, "workers": {seat.name: {"pid": seat.pid, "state": seat.state} for seat in seats}}
    return {"ok": False, "error": f"unknown command {request['op']!r}"}
