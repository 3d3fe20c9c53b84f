"""Take screenshots of MLflow's pages after each step of a short story about CartPole agents.

Usage: ``python -m docs.take_screenshots [--folder docs/images/screens] [--only NAME ...]``. The
script starts an ``mlflow server`` with an empty store in a temporary folder, calls the entry points
of the project, and opens the pages in a headless Chromium. It writes ``<picture>.png``, and
``<picture>-below.png`` if the page is longer than the window. The console output of each call is in
``<stage>.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.server import process
from docs.screenshot_stages import EXPERIMENT, Stage, Store, list_stages, select_stages

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PROJECT = Path(__file__).parents[1]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WINDOW_WIDTH, WINDOW_HEIGHT = 1280, 800
"""Size of the pictures in pixels."""
RENDER_TIMEOUT = 60_000.0
"""Milliseconds that a page may take until it is complete."""
SETTLE_TIME = 1_000.0
"""Milliseconds of animation after a page is complete: charts grow, and tool tips disappear."""
USER_SETTINGS = """
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.telemetry.info.alert.dismissed_v1', 'true');
"""
"""JavaScript that selects the menu for model training, and keeps MLflow's assistant closed."""
HIDE_ASSISTANT = "[data-assistant-ui] { display: none; }"
"""CSS that hides the button of MLflow's assistant."""
IS_COMPLETE = """() => {
    const main = document.querySelector('main');
    const placeholders = document.querySelectorAll(
        '[class*="skeleton" i], [role="progressbar"], [aria-busy="true"]'
    );
    return main !== null
        && main.innerText.trim().length > 100
        && ![...placeholders].some(element => element.checkVisibility());
}"""
"""JavaScript that returns whether a page has its content and shows no placeholder."""
SCROLL_DOWN = """() => {
    const long = [...document.querySelectorAll('main, main *')].filter(element =>
        element.scrollHeight - element.clientHeight > 20
        && ['auto', 'scroll'].includes(getComputedStyle(element).overflowY)
    );
    long.forEach((element, index) =>
        element.scrollBy(0, index === 0 ? element.clientHeight - 40 : element.scrollHeight)
    );
    return long.length > 0;
}"""
"""JavaScript that scrolls a page down by one window, and the tables in it to their end.

It returns whether there was more to show. MLflow's pages scroll inside their elements, so that a
picture of the full page would not show more than the window does.
"""


def build_environment(folder: Path, uri: str) -> dict[str, str]:
    """Return the environment variables of the server and of the steps.

    Args:
        folder: Temporary folder for everything that the steps keep on this machine.
        uri: Address of the server.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "XDG_STATE_HOME": str(folder / "state"),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


@contextmanager
def run_server(folder: Path) -> Iterator[Store]:
    """Run an ``mlflow server`` with an empty store until the context ends."""
    port = process.find_free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with process.run_server(
        command,
        ready=lambda: process.is_reachable(f"{uri}/health"),
        log=folder / "server.log",
        variables=build_environment(folder, uri),
    ):
        yield Store(uri)


def run_stage(stage: Stage, output: Path, variables: dict[str, str]) -> None:
    """Call the entry point of a stage, and write its console output to a file.

    Raises:
        click.ClickException: The entry point failed.
    """
    command = [sys.executable, "-m", "mlflow", "run", ".", "-e", stage.entry_point]
    command += ["--env-manager", "local", "--experiment-name", EXPERIMENT]
    command += [part for parameter in stage.parameters for part in ("-P", parameter)]
    with output.open("w") as file:
        done = subprocess.run(
            command, cwd=PROJECT, env=variables, stdout=file, stderr=file, check=False
        )
    if done.returncode != 0:
        raise click.ClickException(
            f"The step {stage.name!r} ended with code {done.returncode}. See {output}."
        )


def find_chromium() -> str:
    """Return the path of an installed Chromium or Chrome.

    Raises:
        click.ClickException: None is installed.
    """
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    raise click.ClickException(
        f"No browser is on the PATH ({', '.join(CHROMIUM_NAMES)}). Install Chromium."
    )


@contextmanager
def open_browser(executable: str) -> Iterator[BrowserContext]:
    """Run a headless browser until the context ends."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise click.ClickException(
            "playwright is not installed. Run pip install -r tests/requirements.txt."
        ) from error
    with sync_playwright() as playwright:
        # The sandbox of Chromium does not start as root or in most containers.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": WINDOW_WIDTH, "height": WINDOW_HEIGHT})
        yield context
        browser.close()


def take_pictures(context: BrowserContext, address: str, path: Path) -> None:
    """Save a picture of a page, and one of what is below if it is longer than the window.

    Args:
        context: The browser.
        address: Address of the page.
        path: File of the first picture. The name of the other one ends with ``-below``.
    """
    below = path.with_stem(f"{path.stem}-below")
    below.unlink(missing_ok=True)
    page = context.new_page()
    page.goto(address, timeout=RENDER_TIMEOUT)
    wait_until_complete(page)
    page.screenshot(path=path, style=HIDE_ASSISTANT)
    if page.evaluate(SCROLL_DOWN):
        wait_until_complete(page)
        page.screenshot(path=below, style=HIDE_ASSISTANT)
    page.close()


def wait_until_complete(page: Page) -> None:
    """Wait until a page has its content and its animations have ended."""
    page.wait_for_timeout(SETTLE_TIME)
    page.wait_for_function(IS_COMPLETE, timeout=RENDER_TIMEOUT)
    page.wait_for_timeout(SETTLE_TIME)


@click.command()
@click.option(
    "--folder",
    default=PROJECT / "docs" / "images" / "screens",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pictures and the console output.  [default: docs/images/screens]",
)
@click.option("--only", multiple=True, help="Name of a picture to take. Repeat it for more.")
def main(folder: Path, only: Sequence[str]) -> None:
    """Take screenshots of MLflow's pages for the documentation."""
    stages = select_stages(list_stages(), only)
    executable = find_chromium()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        open_browser(executable) as context,
        run_server(Path(temporary)) as store,
    ):
        context.add_init_script(USER_SETTINGS)
        variables = build_environment(Path(temporary), store.uri)
        for stage in stages:
            click.echo(f"{stage.name} ...")
            run_stage(stage, folder / f"{stage.name}.txt", variables)
            for picture in stage.pictures:
                address = f"{store.uri}/#{picture.find_page(store)}"
                take_pictures(context, address, folder / f"{picture.name}.png")


if __name__ == "__main__":
    main()
