"""What a notebook shows of every public object: useful as text, readable as HTML without styles, escaped, and never an error."""

import inspect
import re
import shutil
import socket
import subprocess
import types
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import pluralis_lab as pl
from pluralis_lab.chain import Account
from pluralis_lab.contributions.findings import Finding
from pluralis_lab.contributions.report import AuditReport
from pluralis_lab.engines.swarm.frames import json_frame
from tests.cli.test_cli import make_run

HOSTILE = "<script>alert(1)</script>"
SECRET = "5ecre7"


def _report() -> AuditReport:
    fault = Finding("forged", 1, HOSTILE, "its signature is not the worker's")
    return AuditReport("ab" * 32, (fault,), (), (), (), 3)


def _generation(home: Path) -> pl.Generation:
    """A text that came to its end."""
    ours, theirs = socket.socketpair()
    answers = [{"token": ord(letter), "is_last": n == len(HOSTILE)} for n, letter in enumerate(HOSTILE, 1)]
    with theirs:
        theirs.sendall(b"".join(map(json_frame, answers)))
    return pl.Generation(make_run(home), HOSTILE, len(HOSTILE), ours)


def _joined(home: Path) -> pl.Joined:
    """A worker whose process said something hostile and ended."""
    invitation = pl.Invitation("ab" * 32, "127.0.0.1", 4, "cd" * 32, SECRET)
    process = subprocess.Popen(["echo", HOSTILE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return pl.Joined(invitation, process).wait(show=False)


EXAMPLES: dict[type, Callable[[Path], Any]] = {
    pl.GPT: lambda home: pl.GPT(n_layer=3),
    pl.MLP: lambda home: pl.MLP([64, 96, 10]),
    pl.Blocks: lambda home: pl.Blocks("tests.models.own_blocks:mixed", context=8),
    pl.Dense: lambda home: pl.Dense(),
    pl.Subspace: lambda home: pl.Subspace(8),
    pl.Int8: lambda home: pl.Int8(),
    pl.TopK: lambda home: pl.TopK(8),
    pl.SGD: lambda home: pl.SGD(),
    pl.Muon: lambda home: pl.Muon(),
    pl.NAdam: lambda home: pl.NAdam(),
    pl.FullSync: lambda home: pl.FullSync(),
    pl.DiLoCo: lambda home: pl.DiLoCo(20),
    pl.SliceSync: lambda home: pl.SliceSync(0.05),
    pl.AdamW: lambda home: pl.AdamW(lr=1e-3),
    pl.policies.Work: lambda home: pl.policies.Work(),
    pl.aggregators.Mean: lambda home: pl.aggregators.Mean(),
    pl.RunSpec: lambda home: pl.RunSpec(data=f"path:{HOSTILE}", stages=2),
    pl.AttachedWorker: lambda home: pl.AttachedWorker(HOSTILE, 1, 2, HOSTILE),
    pl.Invitation: lambda home: pl.Invitation("ab" * 32, HOSTILE, 4, "cd" * 32, SECRET),
    pl.Joined: _joined,
    pl.Absence: lambda home: pl.Absence(HOSTILE, 12, 5),
    pl.Churn: lambda home: pl.Churn([pl.Absence(HOSTILE, 12)]),
    pl.Plan: lambda home: pl.Plan(4, 1000.0, 2.0, (0.5, 0.9), {"forward": 1e6}, (HOSTILE, "worker-1", 0.4)),
    pl.Replay: lambda home: pl.Replay(10, 2, (HOSTILE,), 0.0),
    pl.Links: lambda home: pl.Links("80mbit", latency_ms=20),
    pl.PluralisError: lambda home: pl.PluralisError(HOSTILE),
    pl.Run: lambda home: pl.Run(make_run(home, corpus={"name": HOSTILE, "unigram_nats": 3.0})),
    pl.Chain: lambda home: pl.Chain(f"http://user:{SECRET}@127.0.0.1:9/v3/{SECRET}?key={SECRET}", home=home),
    pl.Token: lambda home: pl.Token(
        pl.Chain(f"http://127.0.0.1:9/{SECRET}", home=home), "0x" + "11" * 20, "0x" + "22" * 20, account="lab-a"
    ),
    pl.HeldOutLoss: lambda home: pl.HeldOutLoss(2.5, 512),
    pl.Generation: lambda home: _generation(home),
    Account: lambda home: Account(HOSTILE, "0x" + "33" * 20),
    AuditReport: lambda home: _report(),
}


def public_classes(module: Any = pl) -> list[type]:
    """Return all classes that the package offers, also through its modules."""
    found: list[type] = []
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            found += public_classes(value)
        elif inspect.isclass(value):
            found.append(value)
    return found


def html_of(value: Any) -> str:
    """Return what Jupyter would show of `value` as HTML."""
    if hasattr(value, "_repr_html_"):
        return str(value._repr_html_())
    return str(value._repr_mimebundle_()["text/html"])


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def stripped(html: str) -> _Text:
    """Return the text that is left of `html` without any tag, and which tags there were."""
    parser = _Text()
    parser.feed(re.sub(r"\sstyle=('[^']*'|\"[^\"]*\")", "", html))
    parser.close()
    return parser


@pytest.fixture(autouse=True)
def in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reprs are made as in a kernel."""
    monkeypatch.setattr("pluralis_lab.views.bundle.in_kernel", lambda: True)


def test_every_public_class_is_looked_at_here() -> None:
    assert not [kind.__name__ for kind in public_classes() if kind not in EXAMPLES], "give EXAMPLES one of each, with a repr"


def test_every_public_function_says_what_it_does() -> None:
    for name in pl.__all__:
        value = getattr(pl, name)
        assert inspect.getdoc(value), name


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_public_object_reads_well_as_text_and_as_html(kind: type, lab_home: Path) -> None:
    value = EXAMPLES[kind](lab_home)
    text, html = repr(value), html_of(value)
    assert "object at 0x" not in text
    assert kind.__name__ in text or "Audit" in text
    assert SECRET not in text + html + str(value)
    shown = stripped(html)
    assert not shown.tags & {"script", "style", "svg"}
    if HOSTILE in str(vars(value)) + str(value):
        assert HOSTILE not in html
    assert re.search(r"\w{3}", shown.text)


CHURN = pl.Churn([pl.Absence("worker-3", at_s=12, for_s=5), pl.Absence("worker-1", 20, 60, frozen=True)])


def test_what_a_spec_and_its_parts_show_is_python_that_makes_them_again() -> None:
    spec = pl.RunSpec(
        model=pl.GPT(n_layer=6, d_model=64),
        stages=3,
        replicas=2,
        boundary=pl.Subspace(8, "same"),
        optimizer=pl.AdamW(lr=1e-2),
        seed=7,
    )
    assert repr(spec).startswith("RunSpec(model=GPT(n_layer=6")
    for value in (spec, spec.model, pl.MLP([64, 10]), pl.Dense(), pl.Links("80mbit", latency_ms=20), CHURN, pl.RunSpec()):
        assert eval(repr(value), vars(pl) | {name: getattr(pl, name) for name in pl.__all__}) == value
    shown = stripped(html_of(spec)).text
    assert "slices the model's blocks are cut into" in shown
    assert spec.hash in shown


def test_a_run_shows_its_record_and_says_when_it_is_gone_or_damaged(lab_home: Path) -> None:
    run = pl.Run(make_run(lab_home))
    bundle = run._repr_mimebundle_()
    assert bundle["application/vnd.pluralis.run+json"]["run"] == run.id
    assert {"image/png", "text/html", "text/plain"} < set(bundle)
    (run.path / "run.json").write_text("{ no JSON")
    damaged = pl.Run(type(run._directory)(run.path))
    assert repr(damaged) == f"<Run {run.id[:8]} damaged>"
    assert "damaged" in stripped(damaged._repr_mimebundle_()["text/html"]).text
    shutil.rmtree(run.path)
    assert repr(run) == f"<Run {run.id[:8]} deleted>"
    assert run._repr_mimebundle_()["text/plain"] == f"<Run {run.id[:8]} deleted>"


def test_a_run_of_very_many_events_is_shown_as_a_card(lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pluralis_lab.views.bundle.MAX_EVENTS_SHOWN", 3)
    run = pl.Run(make_run(lab_home))
    shown = stripped(html_of(run)).text
    assert "run.watch() draws them" in shown
    assert "2 stages × 1 replicas" in shown


def test_a_chain_that_does_not_answer_says_so_and_looking_starts_no_daemon(lab_home: Path) -> None:
    embedded = pl.Chain.embedded(home=lab_home)
    assert "is not running" in stripped(html_of(embedded)).text
    assert not (lab_home / "chain" / "daemon.json").exists()
    assert "cannot be asked now" in stripped(html_of(pl.Chain("http://127.0.0.1:9", home=lab_home))).text
    token = EXAMPLES[pl.Token](lab_home)
    shown = stripped(html_of(token)).text
    assert "cannot be asked now" in shown
    assert token.address in shown


def test_a_running_chain_shows_its_id_and_accounts(lab_home: Path) -> None:
    chain = pl.Chain.embedded(home=lab_home)
    account = chain.account("lab-a")
    shown = stripped(html_of(chain)).text
    assert str(chain.chain_id) in shown
    assert account.address in shown
    assert "lab-a" in stripped(html_of(account)).text
    assert "http" not in repr(chain)
