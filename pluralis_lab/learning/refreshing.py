"""What a stage replica keeps for the turns of its subspace, and the codecs of the subspaces that its neighbours may be in."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pluralis_lab.errors import RunError, WireError
from pluralis_lab.learning.codecs import Codec, build_codec
from pluralis_lab.learning.payload import CODES
from pluralis_lab.learning.refresh import BASIS, ENERGY, check_basis, extra_layout, rebase, turned
from pluralis_lab.learning.turns import basis_version, gathers, is_refreshed, switches
from pluralis_lab.learning.update_rule import UpdateRule
from pluralis_lab.learning.usable import check_usable
from pluralis_lab.models.gpt import StreamBasis
from pluralis_lab.models.stage import Stage, stream_basis, torch_dtype
from pluralis_lab.parts import Subspace
from pluralis_lab.spec import RunSpec

VERSION = "v"
"""Name of the array beside an activation that says how often its sender's subspace had turned."""


class Codecs:
    """The codec of the run's boundaries; where the subspace turns, also those of before the last turn and after the next.

    Training needs only the newest: all stages of a round are in one subspace. A text, or a held-out loss that somebody asks for,
    goes through stages that can be a round apart, and is read in the subspace that its sender was in. A sender that has turned
    already did so when all of this stage had agreed on their contributions, which have the next basis.
    """

    def __init__(self, spec: RunSpec, vocab: int, device: torch.device) -> None:
        self.spec, self.device, self.dtype = spec, device, torch_dtype(spec)
        self._stream = stream_basis(spec, vocab)
        if self._stream is not None:
            self._stream = self._stream.to(device)
        self.current: Codec = build_codec(spec, self._stream, self.dtype)
        self.version = 0
        self._others: dict[int, Codec] = {}

    @property
    def basis(self) -> Tensor:
        """The newest basis `[d_model, rank]`, in the host's memory."""
        assert self._stream is not None
        return self._stream.basis.cpu()

    def turn(self, basis: Tensor, version: int) -> None:
        """Encode in another `basis` `[d_model, rank]` from now on."""
        self._others = {self.version: self.current}
        self._stream = self._in(basis)
        self.current, self.version = build_codec(self.spec, self._stream, self.dtype), version

    def expect(self, basis: Tensor, version: int) -> None:
        """Be able to read what a neighbour sends that has turned already."""
        self._others.setdefault(version, build_codec(self.spec, self._in(basis), self.dtype))

    def _in(self, basis: Tensor) -> StreamBasis:
        assert self._stream is not None
        return StreamBasis(self._stream.fixed, basis.to(self.device))

    def mark(self) -> list[tuple[str, Tensor]]:
        """Return what an activation carries along for `of`."""
        return [(VERSION, torch.tensor([self.version], dtype=torch.int32))] if is_refreshed(self.spec) else []

    def of(self, arrays: Mapping[str, Tensor]) -> Codec | None:
        """Return the codec that an activation was encoded with; None where this stage has it no more, or not yet."""
        if not is_refreshed(self.spec):
            return self.current
        said = arrays.get(VERSION)
        if said is None or said.shape != (1,) or said.dtype != torch.int32:
            raise WireError("an activation does not say in which subspace it is; the peer runs another version")
        return self.current if int(said) == self.version else self._others.get(int(said))


class Refreshing:
    """One replica's part in the turns. Of a run whose subspace stays, nothing here does anything.

    module, optimizer : what is expressed in the new subspace, in place
    codecs : told of each turn
    """

    def __init__(self, spec: RunSpec, module: Stage, optimizer: UpdateRule, codecs: Codecs, *, stage: int) -> None:
        self.spec, self.module, self.optimizer, self.codecs, self.stage = spec, module, optimizer, codecs, stage
        self.is_on = is_refreshed(spec)
        self.basis = codecs.basis if self.is_on else None
        self._pending: Tensor | None = None
        self._heard: dict[int, Tensor] = {}

    def wants_energy(self, round_: int) -> bool:
        """Say whether S is to be added up here."""
        return self.stage == self.spec.stages - 1 and gathers(self.spec, round_)

    def beside_gradient(self, round_: int) -> list[tuple[str, Tensor]]:
        """Return what goes along with a gradient of `round_` to the stage before: the next basis, if it is taken then."""
        return [(BASIS, self._next(round_))] if switches(self.spec, round_) else []

    def hear(self, round_: int, arrays: Mapping[str, Tensor]) -> None:
        """Note the next basis that came with a gradient. Raises WireError where it should have and did not."""
        if switches(self.spec, round_):
            self._heard.setdefault(round_, check_basis(arrays, self.spec))

    def beside_sum(self, round_: int, energy: Tensor | None) -> list[tuple[str, Tensor]]:
        """Return what this replica's contribution to `round_` carries; see `extra_layout`."""
        if switches(self.spec, round_):
            self.codecs.expect(self._next(round_), basis_version(self.spec, round_ + 1))
        own = [] if energy is None else [(ENERGY, energy)]
        return own + self.beside_gradient(round_)

    def check(self, round_: int, extras: Mapping[str, Tensor]) -> None:
        """Raise WireError where what came with a replica's contribution is not what belongs there."""
        expected = extra_layout(self.spec, self.stage, round_)
        found = tuple((name, CODES[array.dtype], tuple(array.shape)) for name, array in extras.items())
        if found != expected:
            raise WireError(f"a contribution to round {round_} carries {found} beside its gradient, expected {expected}")
        if switches(self.spec, round_):
            self.codecs.expect(check_basis(extras, self.spec), basis_version(self.spec, round_ + 1))
        if ENERGY in extras:
            check_usable(extras[ENERGY], f"the gradient's energy in round {round_}")

    def after_step(self, round_: int, extras: Sequence[Mapping[str, Tensor]]) -> bool:
        """Do what is due after the step of `round_`, made from contributions with `extras`; say whether the subspace turned.

        Replicas may have found U' on processors that differ in the last bit: all take the first contribution's.
        """
        if self.wants_energy(round_):
            assert isinstance(self.spec.boundary, Subspace)
            assert self.basis is not None
            energy = torch.stack([part[ENERGY].double() for part in extras]).sum(dim=0)
            self._pending = turned(self.basis, energy, self.spec.boundary.refresh_step)
        is_due = switches(self.spec, round_)
        if is_due:
            assert self.basis is not None
            old, self.basis = self.basis, extras[0][BASIS]
            rebase(self.module, self.optimizer, old, self.basis)
            self.codecs.turn(self.basis, basis_version(self.spec, round_ + 1))
            self._pending = None
            self._heard.clear()
        return is_due

    def _next(self, round_: int) -> Tensor:
        basis = self._heard.get(round_, self._pending)
        if basis is None:
            raise RunError(f"round {round_} ends with another subspace that nobody told this stage; report this as a bug")
        return basis

    def dump(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to keep, by name."""
        kept = {"basis": self.basis, "next": self._pending}
        return {f"subspace/{name}": array.clone() for name, array in kept.items() if array is not None}

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Take up what `dump` returned after `version` rounds. Raises WireError, and changes nothing, for no such basis."""
        if not self.is_on:
            return
        if "subspace/basis" not in tensors:
            raise WireError("a state without 'subspace/basis', which a run needs whose subspace turns")
        basis, pending = (
            None if (array := tensors.get(f"subspace/{name}")) is None else check_basis({BASIS: array}, self.spec)
            for name in ("basis", "next")
        )
        assert basis is not None
        self.basis, self._pending = basis, pending
        self._heard.clear()
        self.module.take_basis(self.basis)
        self.codecs.turn(self.basis, basis_version(self.spec, version))
