"""Copies to a device and back: nothing is copied on the CPU; on a GPU what was begun early arrives whole."""

import pytest
import torch

from pluralis_lab.learning import tasks
from pluralis_lab.learning.flat_format import FlatFormat
from pluralis_lab.learning.payload import pack
from pluralis_lab.learning.stage_ends import StageEnds
from pluralis_lab.learning.transfers import MAX_BEGUN, Transfers


def payload(number):
    return pack([("z", torch.full((4, 8), float(number))), ("ids", torch.arange(12).view(4, 3) + number)])


def test_on_the_cpu_everything_is_handed_through():
    transfers = Transfers(torch.device("cpu"))
    transfers.begin(payload(1))
    arrays = transfers.receive(payload(1))
    assert arrays.device is arrays.host
    assert torch.equal(arrays.host["z"], torch.ones(4, 8))
    tensor = torch.zeros(3)
    assert transfers.to_device(tensor) is tensor
    assert transfers.to_host(tensor) is tensor


def test_what_a_task_brings_is_announced_and_nothing_else(make_spec, pipeline, monkeypatch):
    here = pipeline(make_spec())
    here.micro_batch(0, 0)
    middle, begun = here.stages[1], []
    monkeypatch.setattr(Transfers, "begin", lambda self, arrays: begun.append(arrays))
    forward, backward = tasks.Forward(0, 1, here.forward_payloads[0]), tasks.Backward(0, 1, here.backward_payloads[0])
    for upcoming in (forward, backward, tasks.Evaluate(0, 0, here.forward_payloads[0]), tasks.Collect(0, (0,)), None):
        middle.run(tasks.Snapshot(0), upcoming)
    assert begun == [forward.inputs, backward.gradient, forward.inputs]
    assert isinstance(middle.ends, StageEnds)


def test_weight_gradients_travel_as_what_crosses_a_boundary_does(make_spec, pipeline, monkeypatch):
    """Over pinned memory, and read from no bytes where these are all of their bits."""
    here, plain, travelled = pipeline(make_spec()), pipeline(make_spec()), set()

    def spy(way):
        monkeypatch.setattr(Transfers, way, lambda self, tensor: travelled.add((way, tuple(tensor.shape))) or tensor)

    plain.step(0)
    spy("to_host")
    spy("to_device")
    monkeypatch.setattr(FlatFormat, "read", lambda self, payload, size: pytest.fail("its own gradient was read back"))
    here.step(0)
    for stage in here.stages:
        assert {("to_host", (stage.num_parameters,)), ("to_device", (stage.num_parameters,))} <= travelled
    assert here.digests() == plain.digests()


@pytest.mark.gpu
def test_what_was_begun_arrives_whole_also_when_it_was_dropped_meanwhile():
    transfers = Transfers(torch.device("cuda:0"))
    sent = [payload(number) for number in range(MAX_BEGUN + 2)]
    for item in sent:
        transfers.begin(item)
        transfers.begin(item)
    busy = torch.randn(2048, 2048, device="cuda:0")
    for _ in range(20):
        busy = busy @ busy * 1e-3
    for number, item in enumerate(sent):
        arrays = transfers.receive(item)
        assert arrays.device["z"].device.type == "cuda"
        assert torch.equal(arrays.device["z"].cpu(), arrays.host["z"])
        assert int(arrays.device["ids"][0, 0]) == number
    assert not transfers._begun
    there = transfers.to_device(torch.arange(1000.0))
    assert torch.equal(transfers.to_host(there * 2), torch.arange(1000.0) * 2)
