"""The table of routes: all that this server answers. The handlers and the OpenAPI document are made from it."""

from typing import Any

from pluralis_lab.server.operations import asking, commanding, describing, looking, owning
from pluralis_lab.server.route import LINES, Parameter, Route
from pluralis_lab.server.shapes.asking import PromptBody, Written
from pluralis_lab.server.shapes.evidence import AuditReply, ReceiptPage
from pluralis_lab.server.shapes.ownership import Claims, Ownership, Paid
from pluralis_lab.server.shapes.picture import PictureReply
from pluralis_lab.server.shapes.runs import (
    AccountBody,
    AttachBody,
    Attached,
    CheckBody,
    DeviceList,
    EmptyBody,
    EventPage,
    InviteBody,
    Invited,
    LaunchBody,
    LogTail,
    PayBody,
    RunFacts,
    RunList,
    ServerStatus,
    Started,
    StateReply,
    WorkerBody,
)
from pluralis_lab.server.shapes.spec import SpecCheck, SpecSchema

_MAX = 2**53
_SINCE = Parameter("since", "only what is newer than this event's seq", minimum=0, maximum=_MAX, default=0)
_PICTURE_SINCE = Parameter("since", "null unless the picture is newer than this seq", minimum=-1, maximum=_MAX, default=-1)
_POINTS = Parameter("points", "points of a curve at most", minimum=8, maximum=2_000, default=240)
_LIMIT = Parameter(
    "limit", "events at most (and no more than the server's max_events)", minimum=1, maximum=100_000, default=1_000
)
_KINDS = Parameter("kinds", "only these kinds, separated by commas", pattern=r"[a-z_.]{1,40}(,[a-z_.]{1,40}){0,31}")
_LINES = Parameter("lines", "lines at most", minimum=1, maximum=2_000, default=200)
_WORKER = Parameter("worker", "the worker that the receipts are about", pattern=r"worker-[0-9]{1,6}", is_required=True)
_RECEIPTS = Parameter("limit", "receipts at most", minimum=1, maximum=2_000, default=200)
_OFFSET = Parameter("offset", "leave out the newest so many", minimum=0, maximum=_MAX, default=0)
_BEFORE = Parameter("before", "only epochs before this one", minimum=0, maximum=_MAX)

ROUTES: tuple[Route, ...] = (
    Route("GET", "status", looking.status, "What this server is and allows", ServerStatus),
    Route("GET", "devices", looking.list_devices, "What a worker can run on here", DeviceList),
    Route("GET", "runs", looking.list_runs, "All runs, newest first", RunList),
    Route(
        "POST",
        "runs",
        commanding.launch_run,
        "Start a run",
        Started,
        status=201,
        body=LaunchBody,
        refusals=(409, 503),
        changes=True,
    ),
    Route("GET", "runs/{id}", looking.run_facts, "One run", RunFacts, refusals=(409,)),
    Route("DELETE", "runs/{id}", commanding.delete_run, "Remove a run that has ended", status=204, refusals=(409,), changes=True),
    Route(
        "GET",
        "runs/{id}/picture",
        looking.run_picture,
        "The picture of a run, for those who poll",
        PictureReply,
        query=(_POINTS, _PICTURE_SINCE),
        refusals=(409, 503),
    ),
    Route("GET", "runs/{id}/events", looking.run_events, "Events", EventPage, query=(_SINCE, _LIMIT, _KINDS), refusals=(409,)),
    Route(
        "POST",
        "runs/{id}/stop",
        commanding.stop_run,
        "End a run's processes",
        StateReply,
        body=EmptyBody,
        refusals=(409,),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/resume",
        commanding.resume_run,
        "Go on from the last checkpoint",
        StateReply,
        body=EmptyBody,
        refusals=(409, 503),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/attach",
        commanding.attach_worker,
        "Add a worker",
        Attached,
        status=201,
        body=AttachBody,
        refusals=(409, 503),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/invite",
        commanding.invite_workers,
        "Invite workers",
        Invited,
        status=201,
        body=InviteBody,
        refusals=(409,),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/detach",
        commanding.detach_worker,
        "Let a worker go",
        StateReply,
        body=WorkerBody,
        refusals=(409,),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/kill",
        commanding.kill_worker,
        "Kill a worker",
        StateReply,
        body=WorkerBody,
        refusals=(409,),
        changes=True,
    ),
    Route(
        "POST",
        "runs/{id}/generate",
        asking.generate_text,
        "Go on with a text",
        Written,
        body=PromptBody,
        refusals=(409,),
        changes=True,
        media=LINES,
    ),
    Route("GET", "runs/{id}/log/{process}", looking.run_log, "The end of a log", LogTail, query=(_LINES,)),
    Route(
        "GET",
        "runs/{id}/receipts",
        looking.run_receipts,
        "Receipts about a worker, newest first",
        ReceiptPage,
        query=(_WORKER, _RECEIPTS, _OFFSET, _BEFORE),
        refusals=(409,),
    ),
    Route("POST", "runs/{id}/audit", owning.audit_run, "Audit the evidence", AuditReply, body=EmptyBody, refusals=(409, 503)),
    Route("GET", "runs/{id}/ownership", owning.run_ownership, "Who owns the model", Ownership, refusals=(409,)),
    Route(
        "POST",
        "runs/{id}/tokenize",
        owning.tokenize_run,
        "Put ownership on the chain",
        Ownership,
        body=AccountBody,
        refusals=(409, 503),
        changes=True,
    ),
    Route("POST", "runs/{id}/pay", owning.pay_run, "Pay revenue", Paid, body=PayBody, refusals=(409, 503), changes=True),
    Route("POST", "runs/{id}/claim", owning.claim_run, "Claim", Claims, body=AccountBody, refusals=(409, 503), changes=True),
    Route("GET", "spec/schema", describing.spec_schema, "The schema of specs", SpecSchema, refusals=(503,)),
    Route("POST", "spec/check", describing.spec_check, "Check a spec", SpecCheck, body=CheckBody, refusals=(503,)),
    Route("GET", "openapi.json", describing.openapi, "This document", dict[str, Any]),
    Route("GET", "metrics", looking.metrics, "Prometheus metrics", media="text/plain"),
)
