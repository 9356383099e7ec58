"""The errors that pluralis_lab raises on purpose, all under one base class."""

from pluralis_lab.markup import facts


class PluralisError(Exception):
    """Base of every error that a user can act on: the message names the value that was wrong and the remedy."""

    def _repr_html_(self) -> str:
        return facts(type(self).__name__, [("what", str(self))])


class RunSpecError(PluralisError, ValueError):
    """A run was described in a way that cannot work; nothing was started."""


class CorpusError(PluralisError):
    """Training data could not be read, or is too small for the model that shall learn from it."""


class RunError(PluralisError):
    """A run could not be started, found or commanded, or one of its workers failed."""


class WireError(PluralisError):
    """Bytes from a peer are not a message of this protocol: too large, malformed, or for another run."""


class EvidenceError(PluralisError):
    """A signed statement, key or signature is malformed or does not verify."""


class ChainError(PluralisError):
    """The chain refused, could not be reached, or is not the one the run was launched with."""


class StoreError(PluralisError):
    """A run directory is damaged, locked by another writer, or not there."""


class DoctorError(PluralisError):
    """A check of this machine found something that would make runs fail."""
