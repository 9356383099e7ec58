"""The compiled contracts that ship with the package."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pluralis_lab.errors import ChainError

CONTRACTS = ("ContributionLedger", "ModelToken")
ARTIFACTS_FOLDER = Path(__file__).parent / "artifacts"


@cache
def load_artifact(contract: str) -> dict[str, Any]:
    """A contract's artifact: abi, bytecode, deployed_bytecode, compiler, sources_sha256. Raises ChainError when it is missing."""
    path = ARTIFACTS_FOLDER / f"{contract}.json"
    try:
        artifact: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ChainError(f"{path} is missing; a developer builds it with `python -m pluralis_lab.chain.compile`") from None
    return artifact
