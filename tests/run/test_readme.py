"""The README's own Python runs, from its first line to its last."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run.conftest import Kernel

StartKernel = Callable[..., Kernel]
README = Path(__file__).parents[2] / "README.md"
SMALLER = {
    "steps=300": "steps=4",
    "replicas=2": "replicas=1",
    "batch_size=16": "batch_size=4",
    "d_model=128": "d_model=32",
    "context=128": "context=32",
}


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_servers_configuration_is_what_the_server_takes() -> None:
    from traitlets.config import Config

    from pluralis_lab.server.extension import PluralisLabExtension

    (code,) = [block for block in python_blocks() if "c.PluralisLabExtension" in block]
    config = Config()
    exec(code, {"c": config})
    extension = PluralisLabExtension(config=config)
    given = dict(config.PluralisLabExtension)
    assert set(given) == {"read_only", "roots", "allowed_chains", "interpreter"}
    assert {name: getattr(extension, name) for name in given} == given


@pytest.mark.timeout(150)
def test_the_twenty_lines_run_in_a_cell_and_no_library_has_a_word_in_it(home: Path, kernel: StartKernel) -> None:
    (code,) = [block for block in python_blocks() if "pl.launch(" in block]
    for full, small in SMALLER.items():
        assert code.count(full) == 1, full
        code = code.replace(full, small)
    called = set(re.findall(r"\b(?:run|token|pl)\.(\w+)\(", code))
    assert {"launch", "watch", "wait", "audit", "tokenize", "pay", "claim", "open_run"} <= called
    starter = kernel()
    trained = starter.run(code)  # which asserts that nothing is on standard error
    assert "hivemind" not in trained.stdout
    assert starter.run("print(report.ok, token.status()['paid_wei']); run.stop();").stdout == "True 1000000000000000000\n"
    assert starter.run("run.delete(); run").displays[0]["text/plain"].endswith(" deleted>")
    time.sleep(0.5)  # late output of a thread would come with the next cell
    assert starter.run("1;").stdout == ""


def test_every_command_that_the_readme_names_exists() -> None:
    from typer.main import get_command

    from pluralis_lab.cli import app

    commands = set(get_command(app).list_commands(None))  # type: ignore[attr-defined,arg-type]
    text = README.read_text()
    named = set(re.findall(r"pluralis-lab ([a-z]+)", text))
    (row,) = re.findall(r"pluralis-lab ((?:[a-z]+ \| )+[a-z]+)", text)
    assert named | set(row.split(" | ")) <= commands
    targets = set(re.findall(r"^([a-z]+):", README.with_name("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?! `)", " ".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)))) <= targets
