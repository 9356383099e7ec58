"""RunSpec: every bad spec is refused with its value and the remedy; the canonical form is stable and the hash sees every
field."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pluralis_lab.errors import PluralisError, RunSpecError
from pluralis_lab.parts import GPT, MLP, AdamW, Dense, DiLoCo, FullSync, Mean, NAdam, SliceSync, Subspace, Work
from pluralis_lab.spec import RunSpec

MLP_SPEC = {"model": MLP((64, 32, 10)), "data": "digits"}

TURNING = {"boundary": Subspace(8, refresh_every=50), "stages": 2}
REFUSALS = [
    # (fields, what the message must contain: the value, then the remedy)
    ("more stages than blocks", {"stages": 9}, ["stages=9", "6 blocks", "stages <= 6"]),
    ("more stages than layers", {**MLP_SPEC, "stages": 3}, ["stages=3", "2 blocks", "stages <= 2"]),
    ("rank above width", {"stages": 2, "boundary": Subspace(129)}, ["rank=129", "d_model=128", "rank <= 128"]),
    ("unknown data source", {"data": "moon"}, ['data="moon"', '"stdlib"', '"digits"', '"path:FILE_OR_FOLDER"', '"hf:NAME"']),
    ("source without a name", {"data": "path:"}, ['data="path:"', "after the colon"]),
    (
        "trainable gain on a write",
        {"stages": 2, "model": GPT(write_norm="trainable")},
        ["blocks.0.write_norm", "write_norm='trainable'", "write_norm='frozen'", "pl.Dense()"],
    ),
    (
        "learned positions",
        {"stages": 2, "model": GPT(positions="learned")},
        ["layer 'positions'", "positions='learned'", "positions='rope'", "pl.Dense()"],
    ),
    ("odd head width", {"model": GPT(d_model=12, n_head=4)}, ["d_model/n_head=3", "change n_head or d_model"]),
    ("heads do not divide", {"model": GPT(d_model=128, n_head=3)}, ["d_model=128", "n_head=3", "divisors"]),
    ("batch not divisible", {"batch_size": 10, "micro_batches": 4}, ["batch_size=10", "micro_batches=4", "divisor of 10"]),
    ("digits with a GPT", {"data": "digits"}, ["'digits'", "GPT", "pl.MLP(widths=[64, 96, 10])"]),
    ("text with an MLP", {"model": MLP((64, 10))}, ["'stdlib'", "MLP", "pl.GPT"]),
    ("wrong widths for digits", {**MLP_SPEC, "model": MLP((32, 10))}, ["[32, 10]", "widths=[64, ..., 10]"]),
    ("one width", {**MLP_SPEC, "model": MLP((64,))}, ["[64]", "input and an output width"]),
    ("width below one", {**MLP_SPEC, "model": MLP((64, 0, 10))}, ["[64, 0, 10]", ">= 1"]),
    ("MLP with a subspace", {**MLP_SPEC, "boundary": Subspace(4)}, ["boundary=Subspace", "MLP", "boundary=pl.Dense()"]),
    ("no attesters", {"attesters": ()}, ["attesters=()", "at least one", "None"]),
    ("an attester twice", {"attesters": ("alice", "bob", "alice")}, ["'alice', 'bob', 'alice'", "once"]),
    ("an attester without a name", {"attesters": ("alice", " ")}, ["' '", "name the accounts"]),
    ("attesters as one string", {"attesters": "alice"}, ["attesters='alice'", "tuple"]),
    ("unknown field", {"step": 3}, ["step=3", "steps"]),
    ("a field named self", {"self": 3}, ["self=3"]),
    ("wrong type", {"steps": "three"}, ["steps='three'", "integer"]),
    ("a fraction of a step", {"steps": 2.5}, ["steps=2.5", "integer"]),
    ("below the range", {"replicas": 0}, ["replicas=0", "greater than or equal to 1"]),
    ("above the range", {"replicas": 65}, ["replicas=65", "less than or equal to 64"]),
    ("more than can send to each", {"replicas": 17}, ["replicas=17", "at most 16", 'transport="butterfly"']),
    ("more than can exchange", {"replicas": 17, "sync": DiLoCo()}, ["replicas=17", "at most 16", 'transport="butterfly"']),
    ("another schedule", {"schedule": "gossip"}, ["schedule='gossip'", "'sync'", "'async'"]),
    ("nothing under way", {"in_flight": 0}, ["in_flight=0", "greater than or equal to 1"]),
    ("a variant of the other schedule", {"stashing": False}, ["stashing=False", 'schedule="async"']),
    ("a turn of stages apart", {"schedule": "async", **TURNING}, ["refresh_every=50", 'schedule="sync"']),
    ("a turn of replicas apart", {"sync": SliceSync(), **TURNING}, ["refresh_every=50", "SliceSync", "pl.FullSync()"]),
    ("a turn without boundaries", {**TURNING, "stages": 1}, ["refresh_every=50", "stages=1"]),
    ("a turn's step alone", {"boundary": Subspace(8, refresh_step=0.1), "stages": 2}, ["refresh_step=0.1", "refresh_every=100"]),
    ("a turn each round", {"boundary": {"kind": "subspace", "refresh_every": 1}}, ["refresh_every=1", "2"]),
    ("rounding what is exact", {"precision": "bfloat16", "dtype": "float64"}, ['precision="bfloat16"', 'dtype="float32"']),
    (
        "rounded copies of newest weights",
        {"precision": "bfloat16", "schedule": "async", "stashing": False},
        ['precision="bfloat16"', "stashing=False"],
    ),
    ("compiled newest weights", {"compile": True, "schedule": "async", "stashing": False}, ["compile=True", "stashing=False"]),
    ("another dtype", {"dtype": "float16"}, ["dtype='float16'", "'float32'", "'float64'"]),
    ("no model", {"model": 7}, ["model=7"]),
    ("unknown model kind", {"model": {"kind": "rnn"}}, ["'rnn'", "'gpt'", "'mlp'"]),
    ("unknown field of a part", {"model": {"kind": "gpt", "depth": 3}}, ["depth=3", "n_layer"]),
    ("wrong width type, default boundary", {"stages": 2, "model": {"kind": "gpt", "d_model": "wide"}}, ["d_model='wide'"]),
    ("zero width, default boundary", {"stages": 2, "model": {"kind": "gpt", "d_model": 0}}, ["d_model=0"]),
    ("NaN rate", {"optimizer": {"lr": float("nan")}}, ["lr=nan", "finite"]),
    ("another version of the format", {"version": 2}, ["version=2", "1"]),
]


@pytest.mark.parametrize(("fields", "parts"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_a_bad_spec_is_refused_with_its_value_and_the_remedy(fields, parts):
    with pytest.raises(RunSpecError) as raised:
        RunSpec(**fields)
    message = str(raised.value)
    for part in parts:
        assert part in message
    for noise in ("pydantic", "http", "Value error", "validation error", "\n", "input_type"):
        assert noise not in message
    assert raised.value.__cause__ is None
    assert isinstance(raised.value, PluralisError)
    assert isinstance(raised.value, ValueError)


def test_all_faults_are_named_at_once():
    with pytest.raises(RunSpecError) as raised:
        RunSpec(steps=0, seed=-1)
    assert "steps=0" in str(raised.value)
    assert "seed=-1" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"steps": NaN}', b"\xff", "[" * 100_000, '{"stages": 9}'])
def test_a_malformed_file_is_refused_with_a_spec_error(text):
    with pytest.raises(RunSpecError):
        RunSpec.from_json(text)


def test_what_breaks_the_subspace_is_allowed_where_it_cannot():
    assert RunSpec(stages=2, boundary=Dense(), model=GPT(positions="learned", write_norm="trainable")).stages == 2
    assert RunSpec(stages=1, model=GPT(positions="learned")).boundary == Dense()
    assert RunSpec(stages=2, model=GPT(write_norm="frozen")).boundary == Subspace(16)


@pytest.mark.parametrize(
    ("fields", "boundary"),
    [
        ({"stages": 3}, Subspace(16)),
        ({"stages": 3, "model": GPT(d_model=8, n_head=2)}, Subspace(8)),
        ({"stages": 1}, Dense()),
        ({**MLP_SPEC, "stages": 2}, Dense()),
        ({"stages": 2, "model": {"kind": "gpt", "d_model": 8, "n_head": 1}}, Subspace(8)),
        ({"stages": 2, "data": "digits", "model": {"kind": "mlp", "widths": [64, 9, 10]}}, Dense()),
    ],
)
def test_the_default_boundary_fits_the_model_and_is_written_out(fields, boundary):
    spec = RunSpec(**fields)
    assert spec.boundary == boundary
    written = json.loads(spec.to_json())["boundary"]
    assert written == {name: value for name, value in boundary.model_dump().items() if not name.startswith("refresh")}
    assert RunSpec(**fields, boundary=boundary).hash == spec.hash


# --- canonical form and hash -------------------------------------------------------------------------------------------

small = st.integers(1, 9)
optimizers = st.builds(
    AdamW,
    lr=st.floats(1e-6, 1.0),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.99),
    eps=st.floats(1e-12, 1e-3),
    weight_decay=st.floats(0, 1),
    warmup=st.integers(0, 50),
)
gpts = st.builds(
    GPT,
    n_layer=st.integers(3, 8),
    n_head=st.sampled_from([1, 2, 4]),
    d_model=st.sampled_from([16, 32, 64]),
    context=st.integers(2, 300),
    write_norm=st.sampled_from(["none", "frozen"]),
)
FIELDS = {
    "model": gpts,
    "data": st.one_of(st.just("stdlib"), st.text(min_size=1).filter(str.strip).map("path:{}".format), st.just("hf:wikitext")),
    "stages": st.integers(1, 3),
    "replicas": st.integers(1, 16),
    "boundary": st.one_of(
        st.builds(Dense, wire=st.sampled_from(["same", "bfloat16"])),
        st.builds(Subspace, rank=st.integers(1, 16), wire=st.sampled_from(["same", "bfloat16"])),
    ),
    "optimizer": optimizers,
    "steps": st.integers(1, 10**6),
    "batch_size": st.integers(1, 9).map(lambda n: n * 12),
    "micro_batches": st.sampled_from([1, 2, 3, 4, 6, 12]),
    "epoch_rounds": st.integers(1, 10**6),
    "emission": st.integers(1, 10**12),
    "attesters": st.one_of(st.none(), st.lists(st.sampled_from("abcdef"), min_size=1, unique=True).map(tuple)),
    "dtype": st.sampled_from(["float32", "float64"]),
    "seed": st.integers(0, 2**63 - 1),
    "eval_every": st.integers(0, 10**6),
    "eval_batches": st.integers(1, 4096),
    "checkpoint_every": st.integers(1, 10**6),
    "schedule": st.just("sync"),
    "in_flight": st.one_of(st.none(), st.integers(1, 1024)),
    "stashing": st.just(True),
    "precision": st.just("same"),
    "compile": st.booleans(),
    "own_data": st.just(0.0),
}
ONE_VALUE_ONLY = {"version", "sync", "policy", "aggregator"}
ASYNC = {
    "schedule": st.sampled_from(["async", "sync"]),
    "stashing": st.booleans(),
    "compile": st.just(False),
}
ROUNDED = {"precision": st.sampled_from(["same", "bfloat16"]), "dtype": st.just("float32")}
POOLED = {"own_data": st.sampled_from([0.0, 0.5, 1.0]), "stages": st.integers(2, 3)}
specs = st.one_of(
    st.builds(RunSpec, **{**FIELDS, **POOLED}),
    st.builds(RunSpec, **FIELDS),
    st.builds(RunSpec, **{**FIELDS, **ASYNC, "schedule": st.just("async")}),
    st.builds(RunSpec, **{**FIELDS, **ROUNDED}),
)


def test_what_came_later_changes_no_older_specs_hash():
    # Of the version before there were a precision and compiled blocks.
    assert RunSpec().hash == "c9aea87459dcb376fdd3d12ba48954919ba920c353a7c889951ee5d000ef3c01"
    assert RunSpec(boundary=Subspace(8), stages=2).hash == "24fd1f9f5d15645383c60179851b4167513ff62adc5236f1692314176f97fabf"
    assert b"in_flight" not in RunSpec().to_json()
    assert b'"in_flight":7' in RunSpec(in_flight=7).to_json()
    turning = RunSpec(**TURNING)
    assert b'"refresh_every":50' in turning.to_json()
    assert RunSpec.from_json(turning.to_json()) == turning
    folded = RunSpec(sync=FullSync(transport="butterfly"))
    assert b'"transport":"butterfly"' in folded.to_json()
    assert RunSpec.from_json(folded.to_json()) == folded
    assert folded.hash != RunSpec().hash
    nesterov = RunSpec(optimizer=NAdam())
    assert nesterov.hash == "98d117337462ad18ad3d3a030222dbd3bde6084e9353869a6c252321aed4af30"
    slowed = RunSpec(optimizer=NAdam(delay_power=1.0))
    assert b'"delay_power":1.0' in slowed.to_json()
    assert RunSpec.from_json(slowed.to_json()) == slowed
    changed = RunSpec(schedule="async", in_flight=7)
    assert b'"in_flight":7' in changed.to_json()
    assert RunSpec.from_json(changed.to_json()) == changed


def test_the_strategies_cover_every_field():
    assert set(FIELDS) | ONE_VALUE_ONLY == set(RunSpec.model_fields)
    single = RunSpec(schedule="sync", sync=FullSync(), policy=Work(), aggregator=Mean())
    assert single.hash == RunSpec().hash


@pytest.mark.parametrize("field", sorted(FIELDS))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_hash_changes_with_every_field(field, data):
    is_of_async, is_rounded = field in ASYNC and field != "compile", field == "precision"
    variant = {"schedule": st.just("async"), "compile": st.just(False)} if is_of_async else ROUNDED if is_rounded else {}
    variant = POOLED if field == "own_data" else variant
    spec = data.draw(st.builds(RunSpec, **{**FIELDS, **variant}))
    value = data.draw({**FIELDS, **(ASYNC if is_of_async else variant)}[field])
    other = spec.replace(**{field: value})
    assert getattr(other, field) == value
    assert (other.hash == spec.hash) == (value == getattr(spec, field))


@pytest.mark.parametrize("field", [name for name in GPT.model_fields if name != "kind"])
def test_the_hash_changes_with_every_field_of_the_model(field):
    change = {
        "n_layer": 7,
        "n_head": 2,
        "d_model": 64,
        "context": 64,
        "write_norm": "frozen",
        "positions": "learned",
    }[field]
    assert RunSpec(model=GPT(**{field: change})).hash != RunSpec().hash


@settings(max_examples=60, deadline=None)
@given(spec=specs)
def test_a_spec_survives_its_json_form(spec):
    again = RunSpec.from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert again.hash == spec.hash
    assert RunSpec.from_json(spec.to_json().decode()).hash == spec.hash


def test_the_canonical_form_is_sorted_ascii_without_blanks_and_does_not_drift():
    spec = RunSpec(data="path:/tmp/Zürich", attesters=("alice",))
    text = spec.to_json()
    assert text.isascii()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()
    # These hashes are in signed statements: a change of the form needs a new SPEC_VERSION.
    assert RunSpec().hash == "c9aea87459dcb376fdd3d12ba48954919ba920c353a7c889951ee5d000ef3c01"
    assert (
        RunSpec(stages=3, replicas=2, boundary=Subspace(16), steps=200).hash
        == "3961ade7ace95b3fa92fedca56282704af69bf0cebdcc377e6a870b3631acfbc"
    )


def test_the_order_of_the_fields_and_the_process_do_not_matter():
    code = "from pluralis_lab.spec import RunSpec; print(RunSpec(**{'steps': 7, 'seed': 3, 'stages': 2}).hash)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"})
    assert out.stdout.strip() == RunSpec(stages=2, seed=3, steps=7).hash


# --- immutability, documentation, sizes --------------------------------------------------------------------------------


def test_a_spec_and_its_parts_cannot_be_changed():
    spec = RunSpec(stages=2)
    with pytest.raises(ValidationError, match="frozen"):
        spec.steps = 7
    with pytest.raises(ValidationError, match="frozen"):
        spec.model.n_layer = 7
    assert spec.replace(steps=7).steps == 7
    assert spec.steps == 300


def test_replace_checks_the_whole_again():
    with pytest.raises(RunSpecError, match="stages=7"):
        RunSpec(stages=2).replace(stages=7)
    with pytest.raises(RunSpecError, match="step=1"):
        RunSpec().replace(step=1)


def test_every_field_of_the_spec_and_its_parts_is_documented():
    for cls in (RunSpec, GPT, MLP, Dense, Subspace, FullSync, AdamW, Work, Mean):
        assert cls.__doc__
        for name, field in cls.model_fields.items():
            assert name == "kind" or field.description, f"{cls.__name__}.{name}"


def test_the_schema_that_a_form_is_built_from_describes_every_field():
    schema = RunSpec.model_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(RunSpec.model_fields)
    assert all(entry["description"] for entry in schema["properties"].values())
    assert schema["properties"]["model"]["discriminator"]["propertyName"] == "kind"
    assert {"GPT", "MLP", "Subspace", "Dense", "AdamW"} <= set(schema["$defs"])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["stages"]["maximum"] == 1024


def test_sizes_follow_from_the_fields():
    spec = RunSpec(stages=3, replicas=2, batch_size=12, micro_batches=4, steps=101, epoch_rounds=25, model=GPT(context=32))
    assert (spec.num_workers, spec.num_micro_batches, spec.micro_batch_size) == (6, 8, 3)
    assert (spec.tokens_per_micro_batch, spec.num_epochs, spec.num_blocks) == (96, 5, 6)
    assert [spec.stage_of(worker) for worker in range(6)] == [0, 0, 1, 1, 2, 2]
    mlp = RunSpec(**MLP_SPEC, batch_size=12, micro_batches=4)
    assert (mlp.tokens_per_micro_batch, mlp.num_blocks) == (3, 2)
