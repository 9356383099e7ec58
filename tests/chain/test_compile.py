"""The artifacts that ship are what the sources compile to."""

import pytest

from pluralis_lab.chain import compile as compile_module
from pluralis_lab.chain.contract_files import CONTRACTS, load_artifact
from pluralis_lab.errors import ChainError


@pytest.mark.system("npm")
def test_a_rebuild_gives_the_same_bytecode(require_system):
    try:
        compile_module.install(compile_module.default_cache())
    except ChainError as error:
        require_system("npm registry", False, str(error))
    assert compile_module.main(["--check"]) == 0


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_fits_its_limits(contract):
    artifact = load_artifact(contract)
    assert len(artifact["deployed_bytecode"]) // 2 - 1 < 24_576  # EIP-170
    assert artifact["compiler"].startswith("0.8.37")
    # Nobody owns, pauses, upgrades or initialises these contracts.
    names = {entry.get("name", "") for entry in artifact["abi"]}
    assert not names & {"owner", "transferOwnership", "pause", "upgradeTo", "upgradeToAndCall", "initialize", "grantRole"}
