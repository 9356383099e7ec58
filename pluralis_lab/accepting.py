"""A model of somebody else's own: what of it would run on this machine, and whether its owner has accepted that.

A text is not all that says what runs. A function's name is enough to have anything imported and called that Python brings along,
``os:system`` for one; and of a harmless text another function can be called, or the same one with other options. So what is
accepted is a hash over all three.
"""

import json
import sys
from collections.abc import Callable

from pluralis_lab.errors import RunError
from pluralis_lab.parts import Blocks

Confirm = Callable[[str, str], bool]
"""(what would run, as a text; its `Blocks.accept_hash`) -> whether it may run here."""

MOST_SHOWN = 1000
"""Characters of the options in an error; at a terminal they are shown whole."""


def check_accepted(model: Blocks, accept: str | None, confirm: Confirm | None) -> None:
    """Return if `model` may run here; nothing of it is imported or run to find out.

    accept : the hash that has been accepted; None: `confirm` is asked

    Raises RunError, with what would run and its hash, if it may not.
    """
    wanted = model.accept_hash
    if accept == wanted:
        return
    if accept is not None:
        raise RunError(f"{_what_runs(model)}; its hash is {wanted}, not the accepted {accept}: accept that one if it may")
    if confirm is None or not confirm(_code_of(model), wanted):
        raise RunError(
            f"{_what_runs(model)}; read it (pluralis-lab join shows all of it in a terminal), and accept its hash: "
            f"pl.join(..., accept={wanted!r}), or --accept with it in a shell"
        )


def confirm_on_terminal(code: str, code_hash: str) -> bool:
    """Show what would run and ask whether it may; no where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{code}\n\nThis is the run's model (hash {code_hash}). It would run on this machine.", file=sys.stderr)
    return input("Run it? [y/N] ").strip().lower() in ("y", "yes")


def _what_runs(model: Blocks) -> str:
    """Say what would run, in one line."""
    options = _options_of(model)
    if len(options) > MOST_SHOWN:
        options = f"{options[:MOST_SHOWN]}… ({len(options):,} characters)"
    if model.source is not None:
        return f"the run brings its model's source, of which this machine would run {_visible(model.factory)} with {options}"
    return f"the run's model is a function that this machine would import and run: {model.factory} with {options}"


def _code_of(model: Blocks) -> str:
    """Return all that says what would run: the source text if there is one, the function, and its options."""
    if model.source is not None:
        return f"{_visible(model.source)}\n\n{_visible(model.factory)} of this text is called with {_options_of(model)}."
    return f"{model.factory} is imported from what is installed here, and called with {_options_of(model)}."


def _options_of(model: Blocks) -> str:
    return json.dumps(model.options, sort_keys=True)


def _visible(text: str) -> str:
    """Return `text` with what a terminal obeys instead of showing it written out, as that could hide lines from whoever reads."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode() for letter in text
    )
