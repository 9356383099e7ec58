"""Launched workers whose matrices are multiplied in bfloat16, and whose blocks are compiled."""

from pathlib import Path

import pytest

import pluralis_lab as pl
from tests.engines.swarm.conftest import small_spec


def test_replicas_agree_in_bfloat16(home: Path) -> None:
    run = pl.launch(small_spec(precision="bfloat16", steps=20, epoch_rounds=10), account="lab-a").wait(timeout_s=90)
    losses = run.metrics()["loss"].dropna()
    assert len(losses) == 20
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]
    assert run.audit().ok
    run.stop()


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.system("compiler")
def test_compiled_workers_train_as_others_do(home: Path) -> None:
    spec = pl.RunSpec(model=pl.MLP([64, 32, 10]), data="digits", stages=2, replicas=2, steps=20, batch_size=16, epoch_rounds=10)
    runs = [pl.launch(spec.replace(compile=flag), account="lab-a").wait(timeout_s=280).stop() for flag in (True, False)]
    losses = [run.metrics()["loss"].dropna().to_numpy() for run in runs]
    assert len(losses[0]) == 20
    assert abs(losses[0] - losses[1]).max() < 1e-3
