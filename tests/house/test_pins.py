"""The places that repeat each other agree: pyproject.toml, environment.yml, .ci/run, Makefile, and what the code imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pluralis_lab

ROOT = Path(__file__).parents[2]


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _normal(texts: list[str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Return name -> (bounds, extras); SpecifierSet's text is sorted, so that the order of bounds does not matter."""
    parsed = [Requirement(text) for text in texts]
    return {canonicalize_name(one.name): (str(one.specifier), frozenset(one.extras)) for one in parsed}


def test_environment_yml_has_the_pins_of_pyproject() -> None:
    project = _project()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert _normal(pip) == _normal(project["dependencies"] + project["optional-dependencies"]["dev"])
    python = next(Requirement(entry) for entry in conda if entry.startswith("python"))
    assert str(python.specifier) == str(Requirement(f"python{project['requires-python']}").specifier)


def test_the_package_knows_its_version() -> None:
    assert pluralis_lab.__version__ == _project()["version"]


def test_every_library_the_package_imports_is_declared() -> None:
    extras = _project()["optional-dependencies"]
    optional = [requirement for name, those in extras.items() if name != "dev" for requirement in those]
    declared = set(_normal(_project()["dependencies"] + optional))
    owners = packages_distributions()
    undeclared = {}
    for path in (ROOT / "pluralis_lab").rglob("*.py"):
        if "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"pluralis_lab"}:
                distributions = {canonicalize_name(owner) for owner in owners.get(top, [top])}
                if not distributions & declared:
                    undeclared[f"{path.relative_to(ROOT)}: {top}"] = sorted(distributions)
    assert not undeclared


def test_make_and_ci_install_the_same_torch_and_it_is_within_the_bounds() -> None:
    specs = {re.search(r"TORCH_SPEC[^\n]*?(torch==[0-9.]+)", (ROOT / name).read_text()) for name in ("Makefile", ".ci/run")}
    found = {match.group(1) for match in specs if match}
    assert len(found) == 1
    pinned = Requirement(found.pop()).specifier
    (torch,) = [Requirement(text) for text in _project()["dependencies"] if Requirement(text).name == "torch"]
    assert torch.specifier.contains(str(pinned).removeprefix("=="))


def test_environment_and_readme_say_which_systems_work() -> None:
    for name in ("environment.yml", "README.md"):
        text = (ROOT / name).read_text()
        assert all(word in text for word in ("3.11", "3.13", "Linux", "macOS", "WSL2", "not tested")), name
