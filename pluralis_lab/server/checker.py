"""`python -m pluralis_lab.server.checker`: checks specs for the form, as the chosen interpreter would at a launch."""

import json
import re
from pathlib import Path
from typing import Any

from pluralis_lab.errors import RunSpecError
from pluralis_lab.server.estimating import estimate
from pluralis_lab.server.lines import answer_all
from pluralis_lab.spec import RunSpec


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer {"op": "schema"} and {"op": "check", "spec": ..., "homes": [...]}."""
    if request["op"] == "schema":
        return {"schema": RunSpec.model_json_schema(), "default": RunSpec().model_dump(mode="json")}
    try:
        spec = RunSpec.from_json(json.dumps(request["spec"]))
    except RunSpecError as error:
        message = str(error)
        return {"ok": False, "message": message, "fields": fields_of(message), "hash": None, "spec": None, "estimate": None}
    return {
        "ok": True,
        "message": "",
        "fields": [],
        "hash": spec.hash,
        "spec": spec.model_dump(mode="json"),
        "estimate": estimate(spec, [Path(home) for home in request["homes"]]),
    }


def fields_of(message: str) -> list[str]:
    """Return the fields that a message names as `field=value`, in its order, as paths of the spec ("model.n_head")."""
    found: list[str] = []
    for name in re.findall(r"([a-z_][a-z_0-9]*(?:\.[a-z_0-9]+)*)(?==)", message):
        if (path := _path_of(name)) is not None and path not in found:
            found.append(path)
    return found


def _path_of(name: str) -> str | None:
    top, _, rest = name.partition(".")
    if top in RunSpec.model_fields:
        return name if rest else top
    for part, example in RunSpec.model_fields.items():
        if any(name in getattr(kind, "model_fields", {}) for kind in _kinds(example.annotation)):
            return f"{part}.{name}"
    return None


def _kinds(annotation: Any) -> list[Any]:
    inner = [kind for argument in getattr(annotation, "__args__", ()) for kind in _kinds(argument)]
    return inner or [annotation]


if __name__ == "__main__":
    answer_all(answer)
