"""How many messages a round costs each worker: what `sync_cost` measures is mostly these."""

from collections import Counter

import pytest

from pluralis_lab.corpus import Corpus
from pluralis_lab.engines.virtual.network import Network
from pluralis_lab.engines.virtual.seat import Seat
from pluralis_lab.parts import Dense
from pluralis_lab.worker import Send
from tests.engines.conftest import run_virtual, tiny_spec


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
def test_replicas_tell_each_other_four_things_a_round_however_many_micro_batches_each_has(
    text: Corpus, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = Counter[str](), Network.send

    def count(network: Network, name: str, seat: Seat, effect: Send) -> None:
        sent[type(effect.message).__name__] += 1
        send(network, name, seat, effect)

    monkeypatch.setattr(Network, "send", count)
    spec = tiny_spec(
        text, stages=1, replicas=4, boundary=Dense(), steps=5, micro_batches=micro_batches, batch_size=micro_batches, eval_every=0
    )
    run_virtual(spec, text)
    to_mates = spec.replicas - 1
    each = {kind: number / (spec.steps * spec.replicas) for kind, number in sent.items()}
    assert each == dict.fromkeys(["Counted", "Contribution", "Have", "Committed"], to_mates)
