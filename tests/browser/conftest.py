"""What the browser tests share: one Chromium, one JupyterLab, and a picture of every page on which a test failed."""

import re

import pytest

from notebooks import run
from sae_lib.cache.artefact import cache_root
from tests.browser import servers

OPEN_PAGES = []


def pytest_configure():
    try:
        servers.chromium()
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for number, page in enumerate(OPEN_PAGES):
            name = re.sub(r"\W+", "_", item.name)
            page.screenshot(path=cache_root() / "browser" / f"{name}_{number}.png")
    return report


@pytest.fixture(scope="session")
def browser():
    with servers.open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="session")
def lab(folder):
    with servers.serve("lab", folder) as address:
        yield address


@pytest.fixture(scope="session")
def source():
    (source,) = run.find_sources(["20_paint_and_explore"])
    return source


@pytest.fixture(scope="module")
def new_page(browser):
    """A function that opens a page in a context of its own; all are closed at the module's end."""
    contexts = []

    def new_page(**settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        OPEN_PAGES.append(page)
        return page

    yield new_page
    for context in contexts:
        OPEN_PAGES.remove(*context.pages)
        context.close()
