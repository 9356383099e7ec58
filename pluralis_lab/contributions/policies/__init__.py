"""Policies: how counted work becomes integer units. One a file, one signature, named in the spec."""

from pluralis_lab.contributions.policies.policy import Policy
from pluralis_lab.contributions.policies.work import work_units

POLICIES: dict[str, Policy] = {"work": work_units}
"""The policy for each `spec.policy.kind`."""

__all__ = ["POLICIES", "Policy", "work_units"]
