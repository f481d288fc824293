"""The page as a browser on a phone lays it out, and what its policy keeps a browser from doing."""

import json
import re
import shutil
import struct
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from wash_fl.report.page import POLICY, Page, Section, paragraph
from wash_fl.report.run_page import run_page
from wash_fl.runs.record import RunRecord

CHROMIUM = shutil.which("chromium")
PHONE = (360, 800)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; on Debian: apt install chromium"),
]

# Writes into the title what a test asks of the layout; and opens what is folded, which must fit as well.
PROBE = """<script>
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const boxes = (what) => [...document.querySelectorAll(what)].map((each) => each.getBoundingClientRect());
const tooWide = (each) => each.scrollWidth > each.clientWidth + 1;
parent.document.title = JSON.stringify({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  answer: boxes(".answer")[0].bottom,
  scrolling: [...document.querySelectorAll(".wide")].filter(tooWide).length,
  pictures: boxes("svg").map((each) => each.width),
  ink: getComputedStyle(document.body).color,
  drawn: [...new Set([...document.querySelectorAll("svg text")].map((each) => getComputedStyle(each).fill))],
  letters: Math.min(...boxes("svg text").map((each) => Math.max(each.height, each.width))),
});
</script>"""


def chromium(page: Path, *options: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--hide-scrollbars", f"--user-data-dir={page.parent / 'profile'}"]
    command += [f"--window-size={PHONE[0]},{PHONE[1]}", *options, page.as_uri()]
    process = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return process.stdout.decode()


def title_of(document: str) -> str:
    match = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    assert match is not None
    return unescape(match[1])


def laid_out(tmp_path: Path, markup: str, *options: str, size: tuple[int, int] = PHONE) -> dict[str, Any]:
    relaxed = markup.replace(POLICY, f"{POLICY}; script-src 'unsafe-inline'")
    probed = escape(relaxed.replace("</body>", f"{PROBE}</body>"))
    path = tmp_path / "probed.html"
    # In a frame, because a window is never as narrow as a phone.
    frame = f'<iframe style="border: 0; width: {size[0]}px; height: {size[1]}px" srcdoc="{probed}"></iframe>'
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><title></title>{frame}", encoding="utf-8")
    layout: dict[str, Any] = json.loads(title_of(chromium(path, "--dump-dom", *options)))
    assert layout["width"] == size[0]
    return layout


@pytest.mark.parametrize("finished", [True, False])
def test_on_a_phone_the_answer_is_on_the_first_screen_and_only_tables_scroll(make_run, tmp_path, finished):
    named = {"members": {"0": {"accuracy": 0.5, "a metric with a name of some length": 1.0}}}
    folder = make_run(
        "a-name-" * 12,
        finished=finished,
        changed={4: named},
        task="/a/path/that/is/long/and/has/no/blanks/" + "x" * 60 + ".py",
    )
    layout = laid_out(tmp_path, run_page(RunRecord.read(folder.path)).html())
    assert layout["page"] == PHONE[0], "the page is wider than the phone"
    assert 100 < layout["answer"] < PHONE[1]
    assert layout["scrolling"] >= 1, "nothing here was wide enough to tell"
    assert len(layout["pictures"]) == 3 and all(300 < width <= PHONE[0] for width in layout["pictures"])
    assert layout["letters"] >= 9


def test_on_a_desk_figures_stand_side_by_side(make_run, tmp_path):
    layout = laid_out(tmp_path, run_page(RunRecord.read(make_run().path)).html(), size=(1200, 800))
    assert layout["page"] == 1200 and all(width < 600 for width in layout["pictures"])


def shot(page: Path, name: str, *options: str) -> Any:
    from matplotlib import image

    path = page.parent / name
    chromium(page, f"--screenshot={path}", *options)
    assert struct.unpack(">II", path.read_bytes()[16:24]) == PHONE
    return image.imread(path)[..., :3]


def test_the_page_is_light_on_a_light_screen_and_dark_on_a_dark_one(make_run, tmp_path):
    markup = run_page(RunRecord.read(make_run().path)).html()
    path = tmp_path / "page.html"
    path.write_text(markup, encoding="utf-8")
    light, dark = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
    assert shot(path, "light.png", light)[0, 0].min() > 0.9
    assert shot(path, "dark.png", dark)[0, 0].max() < 0.2
    by_day, by_night = (laid_out(tmp_path, markup, option) for option in (light, dark))
    assert by_day["ink"] != by_night["ink"]
    for layout in (by_day, by_night):
        assert layout["drawn"] == [layout["ink"]], "a figure is drawn in the ink of its page"


def test_the_policy_keeps_even_what_slipped_in_from_running_or_loading(tmp_path):
    (tmp_path / "local.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    harm = '<script>document.title = "ran"</script><img src="local.svg" onload="document.title = 1">'
    markup = Page("quiet", "", [paragraph("answer")], [Section("S", [])]).html()
    path = tmp_path / "page.html"
    for policy, title in ((POLICY, "quiet"), ("img-src *; script-src 'unsafe-inline'", "1")):
        path.write_text(markup.replace(POLICY, policy).replace("</body>", f"{harm}</body>"), encoding="utf-8")
        assert title_of(chromium(path, "--dump-dom")) == title
