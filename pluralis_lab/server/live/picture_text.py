"""A picture as JSON, made once for all viewers; what of it has not changed since the last one is kept as text."""

from typing import Any

from pluralis_lab.server.encoding import to_json
from pluralis_lab.server.live.figures import Figures
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_spark, run_payload, worker_parts


class PictureText:
    """Makes the JSON of one run's pictures, four times a second; for one thread at a time.

    Most of the text of a large run is that of its workers, and in a quarter of a second few of them have news.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[dict[str, Any], bytes]] = {}

    def of(self, picture: RunPicture, figures: Figures) -> bytes:
        """Return what `live_payload` would give, with each worker's `figures` added, as JSON."""
        workers = []
        for own, moving in worker_parts(picture, live_spark(picture)):
            name = own["name"]
            kept = self._kept.get(name)
            if kept is None or kept[0] is not own:
                kept = self._kept[name] = (own, to_json(own)[:-1])
            workers.append(kept[1] + b"," + to_json(moving | figures.get(name, {}))[1:])
        return to_json(run_payload(picture))[:-1] + b',"workers":[' + b",".join(workers) + b"]}"
