"""A factory of blocks: found by its name, or made from its source text, and called with seeded random numbers."""

import hashlib
import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pluralis_lab.errors import RunSpecError
from pluralis_lab.models.seeded import generator
from pluralis_lab.parts import Blocks


def blocks_of(model: Blocks, seed: int) -> Iterator[nn.Module]:
    """Yield the blocks of `model` in order, with initial weights that follow from `seed` and torch's generator alone.

    A factory that yields its blocks is asked for one after the other, each with random numbers of its own: whoever keeps some
    never holds them all. A factory that returns a list has made all of them by then.

    Raises RunSpecError, with what the factory said, when it fails or gives something else.
    """
    function = _function(model)
    iterator = _seeded(model, seed, "factory", lambda: iter(function(**model.options)))
    index = 0
    while (block := _seeded(model, seed, index, lambda: next(iterator, None))) is not None:
        if not isinstance(block, nn.Module):
            raise RunSpecError(f"{model.factory} gave {block!r:.80} as block {index}; give torch.nn.Module objects")
        yield block
        index += 1


def _seeded(model: Blocks, seed: int, name: str | int, act: Callable[[], Any]) -> Any:
    """Call a piece of the factory's code with random numbers of its own, and leave those of this process alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "blocks", name).integers(2**63)))
        try:
            return act()
        except Exception as error:
            raise RunSpecError(f"the factory {model.factory} failed with {type(error).__name__}: {error}") from error


def _function(model: Blocks) -> Callable[..., Any]:
    """Return the factory itself."""
    if model.source is not None:
        module, name = _module_of(model.source), model.factory
    else:
        home, _, name = model.factory.partition(":")
        try:
            module = importlib.import_module(home)
        except Exception as error:
            raise RunSpecError(
                f"factory={model.factory!r}: importing {home} failed with {type(error).__name__}: {error}; every worker must be "
                "able to import it, or use pl.Blocks.from_source(factory), which sends its text along"
            ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RunSpecError(f"factory={model.factory!r}: {module.__name__} has no function {name}; use 'package.module:function'")
    found: Callable[..., Any] = function
    return found


def _module_of(source: str) -> ModuleType:
    """Return a module that `source` was executed in, once a process; a traceback shows its lines."""
    digest = hashlib.sha256(source.encode()).hexdigest()
    name = f"pluralis_lab_blocks_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    file = f"<blocks {digest[:16]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType(name)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise RunSpecError(
            f"the factory's source text fails alone with {type(error).__name__}: {error}; it must bring what it needs"
        ) from error
    return module
