"""When a run's subspace is turned towards its gradients, by how much, and what becomes of weights inside it.

The boundary's gradient has energy outside of Col(U), which no weight before the boundary can follow. With S the sum of ``g gᵀ``
over the tokens of a round, at the tail's entry, ``-tr(Uᵀ S U)`` is minimised over subspaces by a Riemannian gradient step and a
QR retraction (subspace networks, arXiv 2506.01260; Absil, Mahony, Sepulchre, Optimization Algorithms on Matrix Manifolds, 4.8)::

    U' = qf(U + η (I - U Uᵀ) S U / λmax(S))                 (signs fixed: R's diagonal is positive)

Weights inside the subspace are then expressed in U', which loses what they wrote outside of it: ``Z' = Z Uᵀ U'``. So the function
changes, once, by an amount that η bounds; boundaries are exact before and after.

S is gathered in the last of every N rounds (`gathers`). Tail replicas agree on it as on their gradients; U' goes back with the
next round's gradients, and with the step of that round (`switches`) all stages turn: one step for all, and no other message.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pluralis_lab.errors import WireError
from pluralis_lab.learning.payload import CODES
from pluralis_lab.learning.turns import gathers, switches
from pluralis_lab.learning.update_rule import UpdateRule
from pluralis_lab.models.stage import Stage, torch_dtype
from pluralis_lab.parts import GPT, Subspace
from pluralis_lab.spec import RunSpec

ENERGY, BASIS = "s", "u"
"""Names of the two arrays beside a gradient: S `[d_model, d_model]` and U' `[d_model, rank]`."""
ORTHONORMAL_WITHIN = {torch.float32: 1e-4, torch.float64: 1e-9}


def extra_layout(spec: RunSpec, stage: int, round_: int) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return the layout of what a contribution of `stage` to `round_` carries behind its gradient."""
    if not isinstance(spec.boundary, Subspace) or not isinstance(spec.model, GPT):
        return ()
    code, width = CODES[torch_dtype(spec)], spec.model.d_model
    energy = ((ENERGY, code, (width, width)),) if gathers(spec, round_) and stage == spec.stages - 1 else ()
    return energy + (((BASIS, code, (width, spec.boundary.rank)),) if switches(spec, round_) else ())


def energy_of(gradient: Tensor) -> Tensor:
    """Return Σ g gᵀ `[d_model, d_model]` of a boundary's `gradient` `[batch, time, d_model]`."""
    rows = gradient.flatten(0, -2)
    return rows.T @ rows


def turned(basis: Tensor, energy: Tensor, step: float) -> Tensor:
    """Return U' for U = `basis` `[d_model, rank]` and S = `energy`; see the module. In float64, rounded last."""
    U, S = basis.double().cpu().numpy(), energy.double().cpu().numpy()
    largest = float(np.linalg.eigvalsh(S)[-1])
    if largest <= 0:  # nothing came back at all
        return basis.clone()
    towards = S @ U
    q, r = np.linalg.qr(U + step / largest * (towards - U @ (U.T @ towards)))
    return torch.from_numpy(q * np.sign(np.diag(r))).to(basis)


def check_basis(arrays: Mapping[str, Tensor], spec: RunSpec) -> Tensor:
    """Return the U' among `arrays`. Raises WireError where there is none, or it is no orthonormal basis of this run's size."""
    assert isinstance(spec.boundary, Subspace)
    assert isinstance(spec.model, GPT)
    basis, dtype = arrays.get(BASIS), torch_dtype(spec)
    if basis is None:
        raise WireError(
            "a gradient of a round in which the subspace turns came without the new one; the peer runs another version"
        )
    shape = (spec.model.d_model, spec.boundary.rank)
    if basis.shape != shape or basis.dtype != dtype:
        raise WireError(f"a basis of shape {tuple(basis.shape)} and dtype {basis.dtype} came, expected {shape}, {dtype}")
    error = (basis.double().T @ basis.double() - torch.eye(shape[1], dtype=torch.float64)).abs().max().item()
    if not error <= ORTHONORMAL_WITHIN[dtype]:
        raise WireError(f"a basis came whose columns are not orthonormal, by {error:.1e}; the peer is at fault")
    return basis


def rebase(stage: Stage, optimizer: UpdateRule, old: Tensor, new: Tensor) -> None:
    """Express the stage's weights inside the subspace, and the optimizer's moments of them, in another basis `[d_model, rank]`.

    A weight's gradient is the ambient one times U. So first moments turn as the weights do, and momentum goes on in the direction
    that it had. Second moments are of single coordinates: they turn as those of uncorrelated ones, ``v' = v (UᵀU')²`` by element.
    To forget them all instead would make steps of the full rate along one gradient's signs.
    """
    turn = (old.double().T @ new.double()).to(new.dtype)
    with torch.no_grad():
        for weight in stage.confined():
            turn = turn.to(weight.device)
            weight.copy_(weight @ turn)
            for key, moment in optimizer.state.get(weight, {}).items():
                if key in ("exp_avg", "momentum_buffer"):
                    moment.copy_(moment @ turn)
                elif key == "exp_avg_sq":
                    moment.copy_(moment @ turn.square())
    stage.take_basis(new)
