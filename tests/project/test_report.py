"""Open the reports of a small workflow in a browser, in a frame as MLflow does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Frame, Page

from docs.take_screenshots import find_chromium, open_browser
from tests.conftest import MakeOnce
from tests.project.conftest import Place
from tests.project.test_entry_points import TINY_TRAINING

pytestmark = pytest.mark.process

SHOW_IN_FRAME = """html => {
    const frame = document.createElement('iframe');
    frame.setAttribute('sandbox', 'allow-scripts');
    frame.style = 'position: fixed; inset: 0; width: 100%; height: 100%; border: 0';
    frame.src = URL.createObjectURL(new Blob([html], {type: 'text/html'}));
    document.body.append(frame);
}"""
"""JavaScript that shows a page as MLflow shows an HTML artifact."""
GET_SIZES = """elements => elements.map(element => {
    const box = element.getBoundingClientRect();
    return [box.width, box.height];
})"""
IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def workflow(make_once: MakeOnce) -> dict[str, str]:
    """The reports of `main` and `promote` by their entry points."""

    def build(folder: Path) -> None:
        place = Place(folder, {"XDG_STATE_HOME": str(folder / "state")})
        parameters = ("gate_episodes=50", "episodes=5", "video=true")
        done = place.mlflow_run("main", *TINY_TRAINING, *parameters)
        assert done.returncode == 0, done.stderr

    reports = {}
    for run in Place(make_once("report", build)).runs():
        path = Path(run.info.artifact_uri, "report.html")
        if path.exists():
            reports[run.data.tags["mlflow.project.entryPoint"]] = path.read_text()
    return reports


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with open_browser(find_chromium()) as context:
        yield context


def show(browser: BrowserContext, html: str) -> tuple[Page, Frame, list[str]]:
    """Show a report in a frame. Return the page, the frame, and what the console said."""
    page, problems = browser.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url[:100]))
    page.evaluate(SHOW_IN_FRAME, html)
    page.wait_for_function("window.frames.length === 1")
    frame = page.frames[-1]
    frame.wait_for_load_state("load")
    frame.wait_for_selector("footer")
    return page, frame, problems


@pytest.mark.parametrize("entry_point", ["main", "promote"])
def test_a_report_is_readable_in_a_frame_and_loads_nothing(
    workflow: dict[str, str], browser: BrowserContext, entry_point: str
) -> None:
    page, frame, problems = show(browser, workflow[entry_point])

    picture = Image.open(io.BytesIO(page.screenshot()))
    sizes = frame.locator("figure svg").evaluate_all(GET_SIZES)
    assert len(set(picture.convert("RGB").getdata())) > 50
    assert frame.locator("h1").is_visible()
    assert len(sizes) >= 3
    assert min(min(size) for size in sizes) > 200
    assert not frame.evaluate(IS_TOO_WIDE)
    assert [text for text in problems if not text.startswith(("blob:null/", "data:video/"))] == []


def test_the_report_of_main_shows_the_steps_and_plays_the_video(
    workflow: dict[str, str], browser: BrowserContext
) -> None:
    _, frame, _ = show(browser, workflow["main"])

    headings = frame.locator("h2").all_inner_texts()
    frame.wait_for_function("document.querySelector('video').readyState >= 2", timeout=10_000)
    assert headings[:2] == ["cartpole-v1-ppo/1 against a uniform random policy", "Training"]
    assert headings[2:4] == ["Evaluation of cartpole-v1-ppo/1", "Video"]
    assert headings[-1] == "Steps"
    assert frame.evaluate("document.querySelector('video').duration") > 0


def test_a_report_stays_small(workflow: dict[str, str]) -> None:
    assert sorted(workflow) == ["main", "promote"]
    assert max(len(html) for html in workflow.values()) < 1_000_000
