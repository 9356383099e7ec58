"""The JSON that viewers get: made of parts that are kept, and yet what it would be if it were made at once."""

import json
from pathlib import Path

from pluralis_lab.server.live.picture_text import PictureText
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload
from tests.views.made_up_run import event_rows, make_run, write_rows


def test_kept_parts_give_the_same_picture_as_all_made_afresh(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=['say "hi"', "\u2028</script>", *(f"w{i}" for i in range(6))], stages=4, replicas=2)
    events = write_rows(run, event_rows(run)).events()
    text, followed = PictureText(), RunPicture.of(run, read=False)
    for start in range(0, len(events), 61):
        followed.update(events[start : start + 61])
        figures = {"w1": {"cpu_percent": start / 7, "memory_bytes": start}} if start % 2 else {}
        wanted = live_payload(RunPicture.of(run, read=False).update(events[: start + 61]))
        for worker in wanted["workers"]:
            worker.update(figures.get(worker["name"], {}))
        made = text.of(followed, figures)
        assert json.loads(made) == wanted
        assert made.isascii()
    assert len(events) > 300
