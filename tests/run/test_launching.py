"""What is refused before anything starts, beyond what a spec can know."""

import importlib.metadata
from pathlib import Path

import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunSpecError


@pytest.mark.parametrize("start", [pl.launch, pl.simulate])
def test_a_rule_that_this_torch_does_not_have_is_refused_with_the_remedy(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.8.1+cpu" if name == "torch" else version(name))
    with pytest.raises(RunSpecError, match=r"Muon.*torch 2\.9 or later, here is 2\.8\.1\+cpu.*pl\.AdamW"):
        start(pl.RunSpec(optimizer=pl.Muon()), home=tmp_path)
    assert not list(tmp_path.glob("runs/*"))
