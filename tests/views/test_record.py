"""The stored record: text, HTML, PNG and JSON of one picture."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from made_up_run import event_rows, make_run, write_rows
from matplotlib.figure import Figure
from PIL import Image

from pluralis_lab.store import RunDirectory
from pluralis_lab.views.chart import _loss, png_record
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import MIME_TYPE
from pluralis_lab.views.record import html_record, record, sparkline, text_record
from pluralis_lab.views.series import Series

HOSTILE = "<script>alert(1)</script>"
HOSTILE_ATTRIBUTE = '"><img src=x onerror=alert(2)>'


class _Text(HTMLParser):
    """What remains of HTML when every tag, attribute, style and image is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parsed(html: str) -> _Text:
    parser = _Text()
    parser.feed(html)
    parser.close()
    return parser


def _hostile(tmp_path: Path) -> RunPicture:
    names = [HOSTILE, HOSTILE_ATTRIBUTE, "line\nbreak\ttab", "$\\frac{1}{0}$", "worker-4", "‮evil"]
    run = make_run(tmp_path, rounds=30, names=names, participants=(HOSTILE, "<b>bold</b>", "&amp;"))
    return RunPicture.of(write_rows(run, event_rows(run)))


def test_html_without_styles_and_images_holds_the_figures_in_tables(finished_run: RunDirectory) -> None:
    picture = RunPicture.of(finished_run)
    html = html_record(picture, png_record(picture))
    parsed = _parsed(re.sub(r'\s(style|src)="[^"]*"', "", html))
    text = " ".join(parsed.text)
    assert parsed.tags.count("table") == 3
    assert "svg" not in parsed.tags
    assert "style" not in parsed.tags
    for expected in (
        "finished",
        "200 of 200",
        "3.245 nats",
        "worker-3",
        "died 1×",
        "lab-b",
        "2,740,333.36",
        "34.3 %",
        "worker-3 died in round 87",
    ):
        assert expected in text
    assert all(name in text for name in picture.workers)
    assert f"{picture.loss.last:.3f} nats" in text


def test_hostile_names_stay_text_in_html(tmp_path: Path) -> None:
    parsed = _parsed(html_record(_hostile(tmp_path)))
    assert "script" not in parsed.tags
    assert "img" not in parsed.tags
    assert "b" not in parsed.tags
    assert HOSTILE in "".join(parsed.text)
    assert HOSTILE_ATTRIBUTE in "".join(parsed.text)


def test_hostile_names_do_not_break_the_chart_or_the_lines_of_text(tmp_path: Path) -> None:
    picture = _hostile(tmp_path)
    assert Image.open(io.BytesIO(png_record(picture))).size == (1728, 1152)
    assert "line break tab" in text_record(picture)


def test_the_png_has_the_expected_size_and_is_small_enough_for_a_notebook(finished_run: RunDirectory) -> None:
    png = png_record(RunPicture.of(finished_run))
    image = Image.open(io.BytesIO(png))
    image.verify()
    assert image.size == (1728, 1152)
    assert len(png) < 150_000


def test_the_png_shows_the_data_and_not_an_empty_frame(finished_run: RunDirectory, half_run: RunDirectory) -> None:
    done, half = (Image.open(io.BytesIO(png_record(RunPicture.of(run)))).convert("RGB") for run in (finished_run, half_run))
    assert done.tobytes() != half.tobytes()
    colours = {colour for _, colour in done.getcolors(1 << 24) or []}
    for wanted in ((0, 114, 178), (230, 159, 0), (0, 158, 115)):
        assert any(all(abs(a - b) < 12 for a, b in zip(wanted, colour, strict=True)) for colour in colours)


def test_the_axis_of_the_loss_reaches_to_the_last_validation(half_run: RunDirectory) -> None:
    """Which is made after the last round, and would else lie upon its label."""
    picture = RunPicture.of(half_run)
    picture.validation.put(120, 3.0)
    axes = Figure().add_subplot()
    _loss(axes, picture)
    assert axes.get_xlim() == (0, 120)


def test_a_validation_loss_says_on_which_side_of_the_unigram_entropy_it_is(half_run: RunDirectory) -> None:
    picture = RunPicture.of(half_run)
    for nats, told in ((1.0, "below unigram by 2.2"), (4.2, "above unigram by 1.0")):
        picture.unigram_nats = 3.2
        picture.validation.put(picture.validation.x[-1] + 1, nats)
        assert told in " ".join(" ".join(_parsed(html_record(picture, b"")).text).split())


def test_before_the_first_round_the_png_is_one_line(empty_run: RunDirectory) -> None:
    width, height = Image.open(io.BytesIO(png_record(RunPicture.of(empty_run)))).size
    assert width == 1728
    assert height < 150


def test_the_lines_of_the_text_tables_are_aligned(finished_run: RunDirectory) -> None:
    lines = text_record(RunPicture.of(finished_run)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("worker "))
    table = lines[start : start + 8]
    assert len({len(line) for line in table}) == 1
    assert set(table[1]) == {"─", " "}
    gaps = [i for i, sign in enumerate(table[1]) if sign == " "]
    assert all(line[i] == " " for line in table for i in gaps)


def test_a_sparkline_follows_its_values() -> None:
    assert sparkline(Series([0, 1, 2, 3], [0.0, 1.0, 2.0, 7.0])) == "▁▂▃█"
    assert sparkline(Series([0, 1], [2.0, 2.0])) == "▄▄"
    assert sparkline(Series()) == ""
    assert len(sparkline(Series(list(range(1000)), [float(i) for i in range(1000)]), 16)) == 16


def test_the_record_is_one_bundle_of_four_forms(half_run: RunDirectory) -> None:
    bundle = record(RunPicture.of(half_run))
    assert set(bundle) == {MIME_TYPE, "image/png", "text/html", "text/plain"}
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle[MIME_TYPE]["run"] == half_run.id
    assert "✕ dead" in bundle["text/plain"]


def test_nothing_of_pyplot_is_loaded_by_the_chart(half_run: RunDirectory) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pluralis_lab.store import RunDirectory; from pluralis_lab.views.chart import png_record;"
        "from pluralis_lab.views.fold import RunPicture; png_record(RunPicture.of(RunDirectory(sys.argv[1])));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(half_run.path)], check=True)
