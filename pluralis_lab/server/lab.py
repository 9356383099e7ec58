"""What all handlers of one server share."""

from logging import Logger

from pluralis_lab.server.children import Children
from pluralis_lab.server.live.hub import Hub
from pluralis_lab.server.metering import Meters
from pluralis_lab.server.receipts import ReceiptIndex
from pluralis_lab.server.roots import Roots
from pluralis_lab.server.rows import Rows
from pluralis_lab.server.settings import Settings


class Lab:
    """The settings and the state of the extension in one server."""

    def __init__(self, settings: Settings, log: Logger) -> None:
        self.settings = settings
        self.log = log
        self.meters = Meters()
        self.roots = Roots(settings.roots)
        self.rows = Rows(settings)
        self.receipts = ReceiptIndex()
        self.hub = Hub(settings, self.meters)
        self.children = Children(settings, self.meters, log)

    async def close(self) -> None:
        """End what was started here: followers and children. Detached runs go on."""
        await self.hub.close()
        await self.children.close()
