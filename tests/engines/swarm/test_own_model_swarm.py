"""A model that was written in a notebook, as real processes train it: they have its text, and nothing else of the notebook."""

import pytest

import pluralis_lab as pl
from pluralis_lab.errors import RunError, RunSpecError
from tests.engines.swarm.conftest import simulated_losses, small_spec
from tests.models.own_blocks import mixed


@pytest.mark.drawn("how replicas agree", keep=1)
def test_the_swarm_trains_a_notebooks_model_as_the_simulation_does(home) -> None:
    model = pl.Blocks.from_source(mixed, context=32, options={"width": 24})
    spec = small_spec(model=model, boundary=pl.Dense(), steps=12, epoch_rounds=6, eval_every=6)
    run = pl.launch(spec)
    try:
        run.wait(timeout_s=90)
        assert run.metrics()["loss"].dropna().tolist() == pytest.approx(simulated_losses(run), rel=1e-4)
        assert run.evaluate().loss == pytest.approx(run.metrics()["validation_loss"].dropna().iloc[-1], rel=1e-4)
        with pytest.raises(RunError, match="its blocks keep no keys and values of a text"):
            list(run.generate("def ", tokens=3))
        run.stop()
        assert run.audit().ok
    finally:
        run.stop()


def test_a_worker_that_cannot_build_its_blocks_says_why(home, tmp_path, monkeypatch) -> None:
    (tmp_path / "vanishing.py").write_text(
        "from torch import nn\ndef model():\n    return [nn.Embedding(256, 8), nn.Linear(8, 256)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = small_spec(model=pl.Blocks("vanishing:model", context=32), boundary=pl.Dense(), stages=2, replicas=1)
    run = pl.launch(spec)  # its workers do not have the kernel's sys.path
    with pytest.raises(RunError, match="importing vanishing failed with ModuleNotFoundError"):
        run.wait(timeout_s=60)
    assert run.state == "failed"
    with pytest.raises(RunSpecError, match=r"no\.such\.vanished"):
        pl.Blocks("no.such.vanished:model", context=32)
