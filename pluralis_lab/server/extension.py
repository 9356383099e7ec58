"""The extension as Jupyter's server loads it: its traits, and the handlers it adds."""

import sys
from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Float, Int, List, TraitError, Unicode, validate

from pluralis_lab.server.handlers import PREFIX, NoSuchRoute, make_handlers
from pluralis_lab.server.lab import Lab
from pluralis_lab.server.live_handler import PATTERN, LiveHandler
from pluralis_lab.server.routes import ROUTES
from pluralis_lab.server.settings import Settings
from pluralis_lab.store import lab_home


class PluralisLabExtension(ExtensionApp):
    """Shows the runs of pluralis_lab, live and past, and starts and ends them.

    ``c.PluralisLabExtension.read_only = True`` makes it a window on a shared hub: GETs, the live socket, spec/check and audit
    (which compute, and change nothing) are answered; launch, stop, resume, attach, invite, detach, kill, generate, delete,
    tokenize, pay and claim are not.
    """

    name = "pluralis_lab"
    load_other_extensions = True
    lab: Lab

    roots = List(Unicode(), help="Homes whose runs are shown; runs are started in the first. Default: the lab home.").tag(
        config=True
    )
    read_only = Bool(False, help="Refuse whatever changes a run or spends money.").tag(config=True)
    allowed_chains = List(
        Unicode(),
        default_value=["embedded"],
        help="'embedded', or URLs of nodes that may be asked for ownership. Runs are started on the embedded chain only: an "
        "account of another chain is behind a passphrase, which belongs into no server.",
    ).tag(config=True)
    interpreter = Unicode(sys.executable, help="The Python that checks specs, launches and pays.").tag(config=True)
    max_request_bytes = Int(262_144, min=1_024, help="Bytes of a request's body.").tag(config=True)
    max_launches = Int(2, min=1, help="Child processes for launches and the like at a time.").tag(config=True)
    max_live_runs = Int(16, min=1, help="Runs followed at a time.").tag(config=True)
    max_viewers = Int(200, min=1, help="Live sockets at a time.").tag(config=True)
    max_events = Int(5_000, min=1, help="Events in one reply.").tag(config=True)
    grace_s = Float(30.0, min=0.0, help="Seconds that a run's picture is kept after its last viewer left.").tag(config=True)

    @validate("roots")
    def _absolute(self, proposal: Any) -> list[str]:
        for root in proposal["value"]:
            if not Path(root).expanduser().is_absolute():
                raise TraitError(f"PluralisLabExtension.roots: {root!r} is relative; give the absolute path of a lab home")
        return list(proposal["value"])

    def initialize_settings(self) -> None:
        """Make what the handlers share, once Jupyter has read the configuration."""
        super().initialize_settings()  # type: ignore[no-untyped-call]
        roots = tuple(Path(root).expanduser() for root in self.roots) or (lab_home(),)
        names = (
            "read_only",
            "interpreter",
            "max_request_bytes",
            "max_launches",
            "max_live_runs",
            "max_viewers",
            "max_events",
            "grace_s",
        )
        values = {name: getattr(self, name) for name in names}
        self.lab = Lab(Settings(roots=roots, allowed_chains=tuple(self.allowed_chains), **values), self.log)

    def initialize_handlers(self) -> None:
        """Add the handlers of the table, the live socket, and an answer for everything else below our prefix."""
        super().initialize_handlers()  # type: ignore[no-untyped-call]
        shared = {"lab": self.lab}
        self.handlers.append((PATTERN, LiveHandler, shared))
        self.handlers += [(pattern, handler, shared) for pattern, handler in make_handlers(ROUTES)]
        self.handlers.append((f"{PREFIX}(?:/.*)?", NoSuchRoute, shared))

    async def stop_extension(self) -> None:
        """End what was started here."""
        await self.lab.close()
