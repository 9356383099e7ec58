"""Receipts about one worker, newest first, out of evidence files that are too large to parse for each question."""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pluralis_lab.server.shapes.evidence import Receipt, ReceiptPage
from pluralis_lab.store import RunDirectory

MAX_KNOWN = 4_096
KINDS = ("forward", "backward", "contribution")


class ReceiptIndex:
    """Remembers how many receipts about a worker a file holds, as long as the file does not change. For several threads."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[Path, str], tuple[tuple[int, int], int]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, run: RunDirectory, worker: str, *, limit: int, offset: int, before: int | None) -> ReceiptPage:
        """Return up to `limit` receipts about `worker` after the newest `offset`, of epochs before `before` where it is given."""
        owners = {str(entry["name"]): str(entry.get("participant", "")) for entry in run.info.get("workers") or ()}
        found: list[Receipt] = []
        total, skipped = 0, 0
        for epoch, path in sorted(_epoch_files(run.path / "evidence"), reverse=True):
            count = self._count(path, worker)
            total += count
            if len(found) >= limit or (before is not None and epoch >= before):
                continue
            if skipped + count <= offset:
                skipped += count
                continue
            for line in reversed(_lines_about(path, worker)):
                receipt = _receipt(line, worker, owners)
                if receipt is None:
                    continue
                if skipped < offset:
                    skipped += 1
                elif len(found) < limit:
                    found.append(receipt)
        return {"receipts": found, "total": total}

    def _count(self, path: Path, worker: str) -> int:
        facts = path.stat()
        sign = (facts.st_mtime_ns, facts.st_size)
        with self._lock:
            known = self._counts.get((path, worker))
        if known is not None and known[0] == sign:
            return known[1]
        count = len(_lines_about(path, worker))
        with self._lock:
            self._counts[path, worker] = (sign, count)
            while len(self._counts) > MAX_KNOWN:
                self._counts.popitem(last=False)
        return count


def _epoch_files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("epoch-*.jsonl"):
        number = path.stem.removeprefix("epoch-")
        if number.isdecimal() and not path.is_symlink():
            yield int(number), path


def _lines_about(path: Path, worker: str) -> list[bytes]:
    """Return the lines whose canonical JSON names `worker`; a last line without its end is still being written."""
    needle = f'"worker":{json.dumps(worker)}'.encode()
    return [line for line in path.read_bytes().split(b"\n")[:-1] if needle in line]


def _receipt(line: bytes, worker: str, owners: dict[str, str]) -> Receipt | None:
    """Return a line as a receipt, None for one that is none: the audit, not this list, says what is wrong with it."""
    try:
        body: dict[str, Any] = json.loads(line)["body"]
        if body["worker"] != worker or body["kind"] not in KINDS:
            return None
        items = body["items"]
        return {
            "epoch": int(body["epoch"]),
            "kind": body["kind"],
            "round": int(body["round"]),
            "worker": worker,
            "signer": str(body["signer"]),
            "signer_participant": owners.get(str(body["signer"]), ""),
            "micro_batches": len({index for item in items for index in item["indices"]}),
            "tokens": sum(int(item["tokens"]) for item in items),
            "norm": _number(body.get("norm")),
            "agreement": _number(body.get("agreement")),
            "digest": str(items[0]["digest"]) if items else "",
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
