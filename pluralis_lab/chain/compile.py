"""Build the contracts with npm's solc: `python -m pluralis_lab.chain.compile [--check]`, for developers only.

The artifacts (ABI, bytecode, hash of all sources) are part of the package, so users need neither Node nor a compiler.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pluralis_lab.chain.contract_files import ARTIFACTS_FOLDER, CONTRACTS
from pluralis_lab.errors import ChainError

CONTRACTS_FOLDER = Path(__file__).parent / "contracts"
SETTINGS: dict[str, Any] = {
    "evmVersion": "cancun",
    "optimizer": {"enabled": True, "runs": 200},
    "metadata": {"bytecodeHash": "none"},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}

# solc from npm is a JavaScript library; its output is written without process.exit, which would cut a pipe at 64 kB.
_SOLC_SCRIPT = """
const fs = require("fs"), path = require("path"), modules = process.argv[1];
const solc = require(path.join(modules, "solc"));
const input = JSON.parse(fs.readFileSync(0, "utf8"));
const read = name => {
  try { return {contents: fs.readFileSync(path.join(modules, name), "utf8")}; } catch (e) { return {error: String(e)}; }
};
const output = JSON.parse(solc.compile(JSON.stringify(input), {import: read}));
process.stdout.write(JSON.stringify({version: solc.version(), output}));
"""


def default_cache() -> Path:
    """Where the compiler is kept: in the user's cache, so that no node_modules ever ends up in a wheel."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluralis_lab" / "contracts"


def install(cache: Path) -> Path:
    """Install the pinned compiler and library with npm into `cache` and return its node_modules folder."""
    package = (CONTRACTS_FOLDER / "package.json").read_text()
    modules, stamp = cache / "node_modules", cache / "node_modules" / ".pluralis-package.json"
    if stamp.exists() and stamp.read_text() == package:
        return modules
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "package.json").write_text(package)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ChainError("npm is not installed; compiling the contracts needs Node 20 or later") from error
    if done.returncode:
        raise ChainError(f"npm install failed in {cache}: {done.stderr.strip()[-400:]}")
    stamp.write_text(package)
    return modules


def compile_contracts(modules: Path) -> dict[str, dict[str, Any]]:
    """Compile all contracts and return their artifacts by name; a warning in our own sources is an error."""
    sources = {f"{name}.sol": (CONTRACTS_FOLDER / f"{name}.sol").read_text() for name in CONTRACTS}
    request = {"language": "Solidity", "settings": SETTINGS, "sources": {n: {"content": s} for n, s in sources.items()}}
    done = subprocess.run(
        ["node", "-e", _SOLC_SCRIPT, str(modules.resolve())],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChainError(f"solc failed: {done.stderr.strip()[-400:]}")
    answer = json.loads(done.stdout)
    problems = [
        problem["formattedMessage"]
        for problem in answer["output"].get("errors", [])
        if problem["severity"] == "error" or not problem.get("sourceLocation", {}).get("file", "").startswith("@")
    ]
    if problems:
        raise ChainError("solc: " + "\n".join(problems))
    package = (CONTRACTS_FOLDER / "package.json").read_text()
    digest = hashlib.sha256((json.dumps(request, sort_keys=True) + package).encode()).hexdigest()
    artifacts = {}
    for name in CONTRACTS:
        built = answer["output"]["contracts"][f"{name}.sol"][name]
        artifacts[name] = {
            "contract": name,
            "compiler": answer["version"],
            "sources_sha256": digest,
            "abi": built["abi"],
            "bytecode": "0x" + built["evm"]["bytecode"]["object"],
            "deployed_bytecode": "0x" + built["evm"]["deployedBytecode"]["object"],
        }
    return artifacts


def main(arguments: list[str] | None = None) -> int:
    """Compile and write the artifacts, or with --check compare them with what is there; 1 when they differ."""
    parser = argparse.ArgumentParser(prog="python -m pluralis_lab.chain.compile", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for node_modules (default: %(default)s)")
    options = parser.parse_args(arguments)
    different = []
    for name, artifact in compile_contracts(install(options.cache)).items():
        path, text = ARTIFACTS_FOLDER / f"{name}.json", json.dumps(artifact, indent=1, sort_keys=True) + "\n"
        size = len(artifact["deployed_bytecode"]) // 2 - 1
        if options.check:
            if not path.exists() or path.read_text() != text:
                different.append(name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        print(f"{name}: {size} bytes of code" + (", DIFFERS from the artifact" if name in different else ""))
    if different:
        print("run `python -m pluralis_lab.chain.compile` and commit the artifacts", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ChainError as error:
        sys.exit(str(error))
