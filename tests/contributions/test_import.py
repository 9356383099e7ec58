import subprocess
import sys

HEAVY = ("torch", "hivemind", "web3", "pandas", "matplotlib", "plotly", "eth_account", "eth_abi")
MODULES = ("", ".keys", ".receipts", ".attestation", ".merkle", ".tally", ".shares", ".closing", ".audit", ".agreement")


def test_no_module_loads_a_heavy_library_before_it_is_used():
    imports = "; ".join(f"import pluralis_lab.contributions{name}" for name in MODULES)
    code = f"import sys; {imports}; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert loaded == "[]"
