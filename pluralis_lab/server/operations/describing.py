"""Specs: the schema of the form, and whether a spec can work and what it would cost; asked of the chosen interpreter."""

from typing import Any, cast

from pluralis_lab.server.openapi import document
from pluralis_lab.server.route import Call
from pluralis_lab.server.shapes.runs import CheckBody
from pluralis_lab.server.shapes.spec import SpecCheck, SpecSchema


async def spec_schema(call: Call) -> SpecSchema:
    """RunSpec's JSON schema and its defaults."""
    return cast(SpecSchema, await call.lab.children.checker.ask(op="schema"))


async def spec_check(call: Call) -> SpecCheck:
    """Whether a spec can work, and what it would cost. Starts nothing, so it is answered in read-only mode, too."""
    body: CheckBody = call.body
    homes = [str(home) for home in call.lab.settings.roots]
    return cast(SpecCheck, await call.lab.children.checker.ask(op="check", spec=body.spec, homes=homes))


def openapi(call: Call) -> dict[str, Any]:
    """This document."""
    from pluralis_lab.server.routes import ROUTES

    return document(ROUTES)
