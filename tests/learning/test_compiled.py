"""Blocks that torch compiles: the same numbers, also from copies of the weights; and a machine that cannot compile says so."""

import pytest

from pluralis_lab.errors import RunError
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.models.arithmetic import compiled_call, missing_compiler
from pluralis_lab.parts import MLP, Subspace
from pluralis_lab.spec import RunSpec

needs_a_compiler = pytest.mark.system("compiler")
DIGITS = {"model": MLP((64, 24, 10)), "data": "digits", "batch_size": 8, "micro_batches": 2}


def test_without_a_compiler_the_refusal_names_what_is_missing(monkeypatch):
    from pluralis_lab.corpus.vectors import load_digits

    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled_call.cache_clear()
    with pytest.raises(RunError, match=r"compile=True.*'no-such-compiler'; install g\+\+"):
        StageCompute(RunSpec(**DIGITS, compile=True), 0, load_digits())


def test_without_triton_a_gpu_is_refused_and_the_processor_is_not(monkeypatch):
    monkeypatch.setenv("CXX", "sh")  # stands for a compiler
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_compiler("cpu") is None
    assert "pip install triton" in missing_compiler("cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert missing_compiler("cuda") is None


@needs_a_compiler
@pytest.mark.timeout(300)
def test_compiled_blocks_give_the_same_numbers_and_are_compiled_before_the_first_task(pipeline):
    from torch._dynamo.utils import counters

    from pluralis_lab.corpus.vectors import load_digits

    spec = RunSpec(**DIGITS, stages=2, schedule="async")  # of which the head computes with copies of its weights
    compiled, plain = (pipeline(spec.replace(compile=flag), load_digits()) for flag in (True, False))
    before = counters["stats"]["unique_graphs"]
    assert before > 0
    for round_ in range(3):
        (loss, gradients), (expected, expected_gradients) = compiled.step(round_), plain.step(round_)
        assert loss == pytest.approx(expected, rel=1e-5)
        for gradient, other in zip(gradients, expected_gradients, strict=True):
            assert (gradient - other).abs().max() < 1e-5 * other.abs().max()
    assert compiled.stages[0].passes.stash.num_copies > 0
    assert counters["stats"]["unique_graphs"] == before, "something was compiled while a peer waited"


@pytest.mark.deep
@needs_a_compiler
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["same", "bfloat16"])
def test_compiled_transformer_blocks_give_the_same_numbers(precision, make_spec, pipeline):
    from torch._dynamo.utils import counters

    spec = make_spec(boundary=Subspace(4, wire="same"), dtype="float32", precision=precision)
    plain, compiled = pipeline(spec), pipeline(spec.replace(compile=True))
    before = counters["stats"]["unique_graphs"]
    for round_ in range(4):
        (loss, _), (expected, _) = compiled.step(round_), plain.step(round_)
        assert loss == pytest.approx(expected, abs=1e-5 if precision == "same" else 5e-3)
    assert counters["stats"]["unique_graphs"] == before, "something was compiled while a peer waited"
