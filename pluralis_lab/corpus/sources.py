"""Names of training data: which kinds of source there are, and whether a name is well formed.

Nothing is read here, so that a spec can be checked before numpy or a data set is touched.
"""

from dataclasses import dataclass
from typing import Literal

from pluralis_lab.errors import CorpusError

KNOWN_SOURCES = ('"stdlib"', '"digits"', '"path:FILE_OR_FOLDER"', '"hf:NAME"')

SourceKind = Literal["stdlib", "digits", "path", "hf"]


@dataclass(frozen=True)
class Source:
    """A parsed source: its kind and, for ``path`` and ``hf``, what follows the colon."""

    kind: SourceKind
    argument: str = ""

    @property
    def holds(self) -> Literal["tokens", "vectors"]:
        """Say what a micro-batch of this source is made of."""
        return "vectors" if self.kind == "digits" else "tokens"


def check_source(source: str) -> Source:
    """Parse `source` without reading anything.

    Raises CorpusError for an unknown kind (naming the known ones) and for ``path:`` or ``hf:`` with nothing behind it.
    """
    kind, colon, argument = source.partition(":")
    if not colon and kind == "stdlib":
        return Source("stdlib")
    if not colon and kind == "digits":
        return Source("digits")
    if colon and kind in ("path", "hf"):
        if not argument.strip():
            raise CorpusError(f'data="{source}" names nothing after the colon; use one of {", ".join(KNOWN_SOURCES)}')
        return Source("path", argument) if kind == "path" else Source("hf", argument)
    raise CorpusError(f'data="{source}" is not a known source; use one of {", ".join(KNOWN_SOURCES)}')
