"""What a live run's model says when it is asked: real workers, real sockets, and deaths on the way."""

import json
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import pluralis_lab as pl
from pluralis_lab.cli import main
from pluralis_lab.corpus import open_corpus
from pluralis_lab.engines import processes
from pluralis_lab.engines.swarm.questions import MAX_WAITING
from pluralis_lab.engines.swarm.worker_process import QUIET_S
from pluralis_lab.learning import snapshots
from pluralis_lab.learning.limits import MAX_QUESTIONS
from pluralis_lab.learning.optimizers import build_optimizer
from pluralis_lab.learning.reference import whole_model
from pluralis_lab.models.stage import Stage
from pluralis_lab.store.checkpoints import CheckpointFolder
from tests.engines.swarm.conftest import small_spec, wait_for

PROMPT = "def main("


@pytest.fixture(scope="module")
def trained(home: Path) -> Iterator[pl.Run]:
    """A run in float64 whose workers serve; what it was asked on the way is in `asked_meanwhile`."""
    run = pl.launch(small_spec(dtype="float64", boundary=pl.Subspace(8, "same"), steps=100))
    try:
        run.wait(round=3, timeout_s=60)
        asked_meanwhile[run.id] = (str(run.generate(PROMPT, 20)), run.evaluate(2), len(run.metrics()))
        run.wait(timeout_s=120)
        yield run
    finally:
        run.stop()


asked_meanwhile: dict[str, tuple[str, pl.HeldOutLoss, int]] = {}


def whole(run: pl.Run) -> list[Stage]:
    """Put the run's last checkpoints together in this process."""
    stages = whole_model(run.spec, run.info["corpus"]["vocab"])
    for worker in run.info["workers"]:
        state, _ = CheckpointFolder(run._directory.worker_folder(worker["name"])).load(run.spec.steps)
        stage = stages[worker["stage"]]
        tensors = snapshots.read(state, stage, run.spec.optimizer, version=run.spec.steps)
        snapshots.load(tensors, stage, build_optimizer(stage, run.spec.optimizer))
    return stages


def test_a_text_and_a_loss_come_while_training_goes_on(trained: pl.Run) -> None:
    text, loss, rounds = asked_meanwhile[trained.id]
    assert rounds < trained.spec.steps, "training was over"
    assert text.startswith(PROMPT)
    assert len(text.encode("utf-8", "replace")) - len(PROMPT) >= 20
    assert loss.loss > trained.evaluate(2).loss


def test_the_greedy_text_is_the_one_process_models(trained: pl.Run) -> None:
    stages, ids = whole(trained), list(PROMPT.encode())
    for _ in range(50):
        x = torch.tensor([ids])
        with torch.no_grad():
            for stage in stages:
                x = stage(x)
            ids.append(int(stages[-1].logits(x)[0, -1].argmax()))
    written = trained.generate(PROMPT, 50, temperature=0)
    assert str(written) == bytes(ids).decode("utf-8", "replace")
    assert written.tokens == ids[len(PROMPT) :]
    assert written.is_complete
    assert repr(written).startswith(f"<Generation of run {trained.id[:8]}, 50 of 50 tokens: 'def main(")


def test_the_loss_is_the_last_validations(trained: pl.Run) -> None:
    found = trained.evaluate()
    assert found.loss == pytest.approx(trained.metrics()["validation_loss"].dropna().iloc[-1], rel=1e-12)
    assert found.tokens == trained.spec.eval_batches * trained.spec.tokens_per_micro_batch


@pytest.mark.parametrize("headless", ["0", "1"])
def test_a_cell_shows_the_text(
    trained: pl.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, headless: str
) -> None:
    monkeypatch.setenv("PLURALIS_LAB_HEADLESS", headless)
    expected = str(trained.generate(PROMPT, 12, seed=4))
    trained.generate(PROMPT, 12, seed=4)._ipython_display_()
    assert capsys.readouterr().out == f"{expected}\n"
    pieces = iter(trained.generate(PROMPT, 12, seed=4))
    assert PROMPT + next(pieces) + "".join(pieces) == expected


def test_the_command_line_asks_too(trained: pl.Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main(["generate", trained.id[:12], PROMPT, "--tokens", "8", "--temperature", "0"])
    assert capsys.readouterr().out == f"{trained.generate(PROMPT, 8, temperature=0)}\n"
    with suppress(SystemExit):
        main(["evaluate", trained.id[:12], "--batches", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(trained.evaluate(2).loss)


def test_what_a_text_moves_is_told_though_no_round_is_left(trained: pl.Run) -> None:
    def told() -> int:
        return int(trained.links()["bytes"].sum())

    before = -1
    while before != (before := told()):  # also of the last round something is told behind it
        time.sleep(3 * QUIET_S)
    assert len(trained.generate(PROMPT, 200).text) > len(PROMPT)
    assert isinstance(trained.spec.boundary, pl.Subspace)
    wait_for(lambda: told() >= before + 200 * trained.spec.boundary.rank * 8)

    def is_the_sum_of_its_links() -> bool:  # the two are read one after the other, and reports still come
        sent = trained.workers().set_index("worker")["bytes_out"].to_dict()
        by_worker: dict[str, int] = trained.links().groupby("source")["bytes"].sum().to_dict()
        return by_worker == sent

    wait_for(is_the_sum_of_its_links)


def test_more_texts_than_heads_write_at_once_wait_their_turn(trained: pl.Run) -> None:
    """All of them asked before the first is read: each comes, and is what it is when it is asked for alone."""
    alone = [trained.generate(PROMPT, 12, seed=seed).text for seed in range(3)]
    texts = [trained.generate(PROMPT, 12, seed=number % 3) for number in range(20)]
    assert [text.text for text in texts] == [alone[number % 3] for number in range(20)]


def test_whoever_goes_away_leaves_no_text_behind(trained: pl.Run) -> None:
    """Endless texts, many times what heads write at once, all of them given up: the heads have room again."""
    for _ in range(3):
        endless = [trained.generate(PROMPT, 100_000) for _ in range(8)]
        for text in endless:
            next(iter(text))
            text.close()
        unread = [trained.generate(PROMPT, 100_000) for _ in range(20)]  # some wait when they are given up
        for text in unread:
            text.close()
        assert len(trained.generate(PROMPT, 3).text) >= len(PROMPT)


def test_a_question_beyond_the_waiting_line_is_told_so(trained: pl.Run) -> None:
    heads = len(trained.workers().query("stage == 0"))
    endless = [trained.generate(PROMPT, 100_000) for _ in range(heads * MAX_QUESTIONS + MAX_WAITING + 1)]
    by_socket = {text._connection: text for text in endless}
    refused = ""
    while not refused:  # connections are taken in no order: any of them may be the one too many
        ready, _, _ = select.select(list(by_socket), [], [], 60)
        assert ready, "nobody was told"
        for connection in ready:
            try:
                next(iter(by_socket.pop(connection)))
            except pl.PluralisError as error:
                refused = str(error)
    assert f"{MAX_WAITING} questions wait already; ask again" in refused
    for text in endless:
        text.close()
    assert len(trained.generate(PROMPT, 3).text) >= len(PROMPT)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokens": 0}, "tokens=0; use a whole number from 1"),
        ({"tokens": 10**9}, "use a whole number from 1 to 100,000"),
        ({"temperature": -0.5}, "temperature=-0.5; use 0"),
        ({"seed": -1}, "seed=-1; use"),
        ({"temperature": float("nan")}, "temperature=nan; use 0"),
        ({"tokens": True}, "tokens=True; use"),
        ({"prompt": ""}, "prompt=''; give the text"),
        ({"prompt": b"def"}, "prompt=b'def'; give the text"),
        ({"prompt": "\ud800"}, "a character that is none"),
    ],
)
def test_a_wrong_value_is_named_with_the_remedy(trained: pl.Run, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(pl.PluralisError, match=said):
        str(trained.generate(**{"prompt": PROMPT, "tokens": 5, **wrong}))  # type: ignore[arg-type]


def test_what_is_no_question_gets_an_answer_and_harms_nobody(trained: pl.Run) -> None:
    nonsense: list[dict[str, object]] = [
        {"ids": "text"},
        {"ids": [999], "tokens": 1, "temperature": 0, "seed": 0},
        {"ids": [1], "tokens": True, "temperature": 0, "seed": 0},
        {"ids": [1], "tokens": 1, "temperature": "hot", "seed": 0},
    ]
    for arguments in nonsense:
        with processes.connect(trained._directory, "prompt", **arguments) as connection:
            (answer,) = processes.answers(trained._directory, "prompt", connection)
        assert answer["error"]
    with pytest.raises(pl.PluralisError, match="batches=0; use"):
        trained.evaluate(0)
    assert set(trained.workers()["state"]) == {"serving"}


def test_a_text_goes_on_when_the_workers_that_write_it_are_killed(trained: pl.Run) -> None:
    """Two texts are with one head each; a tail dies, then one of the heads."""
    expected = str(trained.generate(PROMPT, 120, seed=9))
    texts = [trained.generate(PROMPT, 120, seed=9) for _ in range(2)]
    for victim in ("worker-3", "worker-0"):
        for text in texts:
            next(iter(text))
        trained.kill(victim)
    assert [str(text) for text in texts] == [expected, expected]


def test_a_run_that_does_not_run_and_a_model_of_vectors_say_what_to_do(home: Path) -> None:
    run = pl.simulate(pl.RunSpec(model=pl.MLP([64, 16, 10]), data="digits", stages=2, steps=2, batch_size=8))
    run.wait()
    with pytest.raises(pl.PluralisError, match=r"run\.resume\(\)"):
        run.evaluate()
    with pytest.raises(pl.PluralisError, match="reads vectors"):
        run.generate(PROMPT)
    with pytest.raises(pl.PluralisError, match="simulation"):
        run.attach()
    with pytest.raises(pl.PluralisError, match=r"was not recorded; launch it with pl\.launch\(spec, recorded=True\)"):
        run.replay()


def test_the_corpus_of_the_library_is_bytes(home: Path) -> None:
    """What `generate` takes for granted: a token is a byte of the text."""
    corpus = open_corpus("stdlib", context=64, home=home)
    assert (corpus.info().kind, corpus.info().vocab) == ("tokens", 256)
