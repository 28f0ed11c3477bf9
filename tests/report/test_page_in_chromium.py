"""The page in a real browser. Skipped where no Chromium or Chrome is installed."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import rest_pose, sixes
from motret.report import page
from motret.report.page import CandidateView, MemberRow, Overview, PageContent, QueryView
from motret.skeleton import join_columns

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: pip install -r tests/requirements.txt"
)
expect = playwright.expect  # waits until the condition holds
BROWSER = next(
    filter(
        None,
        map(
            shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        ),
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no browser: install chromium, or run bash tests/run.sh --install_browser",
)

ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NASTY = (
    "</script><script>document.title = 'taken'</script>"
    "<img src=x onerror=\"document.title = 'taken'\">"
)
WORDS = ("two people wave", "they bow to each other", NASTY, "one of them squats")
TWO_FRAMES = (
    "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
)
CANVAS = "#candidates li:nth-child({}) canvas"

FIGURE_POSITIONS = """s => {
    const canvas = document.querySelector(s), sums = [[0, 0], [0, 0]];
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) {
        const warm = data[i] - data[i + 2];
        if (data[i + 3] === 255 && Math.abs(warm) > 80) {
            const person = sums[warm > 0 ? 0 : 1];
            person[0] += (i / 4) % canvas.width / canvas.width;
            person[1] += 1;
        }
    }
    return sums.map(([sum, count]) => count && sum / count);
}"""
"""Horizontal position of each person's figure, 0 (left) to 1, by its color."""


def walk(seed: int, persons: int = 2) -> np.ndarray:
    """A raw motion of 2 s: persons 1 m apart, each in the rest pose, who walk 1 m to the right."""
    there = np.linspace(0, 1, 60)[:, None] * np.array([1, 0, 0]) + [0, 0.95, 0.05 * seed]
    bodies = [rest_pose() + there[:, None] + [person, 0, 0] for person in range(persons)]
    return join_columns(np.stack(bodies, axis=1), sixes(60, persons)).astype(np.float32)


def report(
    folder: Path, persons: int = 2, queries: int = 4, truth: bool = True, margins: bool = False
) -> PageContent:
    paths = [folder / f"{persons}-{number}.npy" for number in range(3)]
    for number, path in enumerate(paths):
        np.save(path, walk(number, persons))
    views = []
    for number in range(queries):
        candidates = tuple(
            CandidateView(
                f"m{(position + number) % 3}",
                paths[(position + number) % 3],
                position + 1,
                score,
                (WORDS[number], "and so on"),
            )
            for position, score in enumerate(
                (2.0, (1.5, 1.0, 1.9, 1.4)[number] if margins else 1.5, 1.0)
            )
        )
        right = candidates[(0, 2, 1, 0)[number]].motion if truth else None
        disagreement = (0.25, 0.1, 1.5, 0.75)[number] if truth else None
        views.append(
            QueryView(
                f"q{number + 1}",
                (WORDS[number], "in other words"),
                candidates,
                32,
                right,
                disagreement,
            )
        )
    overview = Overview(
        (("Score", "0.700 ± 0.010"),),
        (0.5, 0.75, 1.0),
        (0.1, 0.2, 0.3),
        (MemberRow("one", 0.6), MemberRow(NASTY, 0.4)),
        "A note.",
    )
    return PageContent("errors of a test", overview, tuple(views))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages: four queries, without ground truth, with margins, of one person, of a search."""
    folder = tmp_path_factory.mktemp("pages")
    page.write_page(folder / "errors.html", report(folder))
    page.write_page(folder / "unknown.html", report(folder, truth=False))
    page.write_page(folder / "margins.html", report(folder, margins=True))
    page.write_page(folder / "alone.html", report(folder, persons=1))
    page.write_page(
        folder / "search.html",
        replace(report(folder, queries=1, truth=False), overview=Overview((("Model", "one"),))),
    )
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=BROWSER, headless=True, args=list(ARGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def tab(browser: "playwright.Browser") -> "playwright.Page":
    """One tab for all tests: opening a new one takes longer than most of them."""
    view = browser.new_page()
    view.set_default_timeout(20_000)
    return view


@pytest.fixture
def show(tab: "playwright.Page", pages: Path) -> Iterator[Callable[..., "playwright.Page"]]:
    """Opens a page by its file name; checks that it had no errors and requested only itself."""
    requests, errors = [], []
    listeners = {
        "request": lambda request: requests.append(request.url),
        "console": lambda message: errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: errors.append(str(error)),
    }

    def opened(
        name: str = "errors", scheme: str = "light", calm: bool = True, width: int = 1280
    ) -> "playwright.Page":
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce" if calm else "no-preference")
        tab.set_viewport_size({"width": width, "height": 900})
        file, sign, position = name.partition("#")
        tab.goto((pages / f"{file}.html").as_uri() + sign + position)
        return tab

    for event, listener in listeners.items():
        tab.on(event, listener)
    yield opened
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    tab.evaluate("localStorage.clear()")
    tab.goto("about:blank")
    assert errors == []
    assert requests and all(
        url.startswith(("file:", "data:")) and url.partition("#")[0].endswith((".html", "data:,"))
        for url in requests
    )


def listed_ids(view: "playwright.Page") -> list[str]:
    """Ids in the list of queries, as they stand there."""
    return [under.split(" ")[0] for under in view.locator("#queries .details").all_inner_texts()]


def painted(view: "playwright.Page", position: int = 1) -> str:
    return view.locator(CANVAS.format(position)).evaluate("canvas => canvas.toDataURL()")


def until_painted(view: "playwright.Page", position: int = 1) -> str:
    """The picture of a candidate, once there is one."""
    has_ink = """s => {
        const canvas = document.querySelector(s);
        if (!canvas) return false;
        const context = canvas.getContext("2d");
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value) => value);
    }"""
    view.wait_for_function(has_ink, arg=CANVAS.format(position))
    return painted(view, position)


def until_other(view: "playwright.Page", before: str, position: int = 1) -> str:
    view.wait_for_function(
        "([s, old]) => document.querySelector(s).toDataURL() !== old",
        arg=[CANVAS.format(position), before],
    )
    return painted(view, position)


def scrub(view: "playwright.Page", seconds: float) -> None:
    view.locator("#scrub").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        seconds,
    )


def focused(view: "playwright.Page") -> str:
    return view.evaluate("document.activeElement.id")


# ---- overview and list


def test_the_overview_shows_score_recall_and_members(show) -> None:
    view = show()
    assert view.title() == view.locator("h1").inner_text() == "errors of a test"
    assert "0.700 ± 0.010" in view.locator(".facts").inner_text()
    assert view.get_by_role("img", name="Recall at k: 1: 50%, 2: 75%, 3: 100%").is_visible()
    assert view.locator(".members tbody tr").all_inner_texts()[0].split() == ["one", "0.600"]
    assert view.locator("#query").is_hidden()


def test_the_list_has_every_query_with_the_rank_of_its_matching_motion(show) -> None:
    view = show()
    assert listed_ids(view) == ["q2", "q3", "q1", "q4"]  # hardest first
    assert view.locator("#queries .details").first.inner_text() == "q2 · rank 3 of 32"
    assert view.locator("#count").inner_text() == "4 queries"


def test_a_search_lists_the_queries_with_all_words(show) -> None:
    view = show()
    for words, expected in (
        ("people WAVE", ["q1"]),
        ("q3", ["q3"]),
        ("other t", ["q2", "q3", "q1", "q4"]),
        ("dance", []),
    ):
        view.get_by_label("Search").fill(words)
        assert listed_ids(view) == expected
        assert view.locator("#count").inner_text() == f"{len(expected)} of 4 queries"
    view.get_by_label("Search").fill("")
    assert len(listed_ids(view)) == 4


def test_the_list_can_be_sorted(show) -> None:
    view = show()
    for order, expected in (
        ("easiest first", "q1 q4 q3 q2"),
        ("by id", "q1 q2 q3 q4"),
        ("by caption", "q3 q4 q2 q1"),
    ):
        view.get_by_label("Sort").select_option(order)
        assert listed_ids(view) == expected.split()


@pytest.mark.parametrize(
    ("order", "expected", "value", "meaning"),
    [
        (
            "smallest margin first",
            "q3 q1 q4 q2",
            "margin 0.10",
            "Margin: the score of the first candidate minus that of the second.",
        ),
        (
            "most disagreement first",
            "q3 q4 q1 q2",
            "disagreement 1.50",
            "1 minus Spearman's rank correlation, averaged over all pairs",
        ),
    ],
)
def test_the_list_can_be_sorted_by_uncertainty_and_explains_it(
    show, order: str, expected: str, value: str, meaning: str
) -> None:
    view = show("margins")
    assert view.locator("#sort-help").is_hidden()
    view.get_by_label("Sort").select_option(order)
    assert listed_ids(view) == expected.split()
    assert view.locator("#queries .details").first.inner_text() == f"q3 · rank 2 of 32 · {value}"
    assert meaning in view.locator("#sort-help").inner_text()
    view.get_by_label("Sort").select_option("by id")
    assert (
        view.locator("#sort-help").is_hidden()
        and view.locator("#queries .details").first.inner_text() == "q1 · rank 1 of 32"
    )


def test_without_members_there_is_no_order_by_disagreement(show) -> None:
    orders = show("unknown").locator("#sort option").all_inner_texts()
    assert "smallest margin first" in orders and "most disagreement first" not in orders


def test_without_ground_truth_the_list_shows_the_best_motion(show) -> None:
    view = show("unknown")
    assert view.locator("#queries .details").first.inner_text() == "q1 · best of 32: m0"
    view.locator("#queries a").first.click()
    assert view.locator("#result").inner_text() == "q1: 32 motions ranked"
    assert view.locator("#show-match").is_hidden() and view.locator(".badge").count() == 0


# ---- a query


def test_a_query_shows_its_candidates_best_first_and_marks_the_match_in_words(show) -> None:
    view = show()
    view.get_by_role("link", name="they bow to each other").click()
    assert (
        view.locator("#caption").inner_text() == "they bow to each other"
        and focused(view) == "caption"
    )
    assert view.locator("#captions").inner_text() == "in other words"
    assert view.locator("#result").inner_text() == "q2: matching motion ranked 3 of 32"
    assert view.locator("#candidates .rank").all_inner_texts() == ["1.", "2.", "3."]
    assert view.locator("#candidates .name").all_inner_texts() == ["m1", "m2", "m0"]
    assert [
        card.inner_text().count("✓ match") for card in view.locator("#candidates > li").all()
    ] == [0, 0, 1]
    assert (
        view.get_by_role(
            "img", name="Rank 3, matching motion: m0, two persons as stick figures, 2.0 seconds"
        ).count()
        == 1
    )
    assert view.locator("#candidates .motion-captions").first.inner_text().split("\n") == [
        "they bow to each other",
        "and so on",
    ]
    widths = [
        bar.evaluate("bar => bar.getBoundingClientRect().width / bar.parentNode.clientWidth")
        for bar in view.locator(".bar i").all()
    ]
    assert widths == pytest.approx([1, 0.75, 0.5], abs=0.01)
    assert view.locator("#queries a[aria-current]").inner_text().startswith("they bow")
    view.get_by_role("button", name="Show match").click()
    assert view.evaluate("document.activeElement.className") == "match"


def test_html_in_captions_is_shown_as_text(show) -> None:
    view = show("errors#query-2")
    assert view.locator("#caption").inner_text() == NASTY
    assert view.locator("#candidates .motion-captions li").first.inner_text() == NASTY
    assert NASTY in view.locator("#queries").inner_text()
    view.get_by_role("link", name="Overview").click()
    assert NASTY in view.locator(".members").inner_text()
    assert view.title() == "errors of a test" and view.locator("img").count() == 0


def test_a_search_shows_its_one_query_at_once(show) -> None:
    view = show("search")
    assert view.locator("#caption").inner_text() == "two people wave"
    assert view.locator("nav").is_hidden() and view.locator("#overview").is_visible()
    until_painted(view)


# ---- motions


def test_playing_moves_the_figures_and_pausing_holds_them(show) -> None:
    view = show("errors#query-0", calm=False)
    first = until_painted(view)
    assert view.get_by_role("button", name="Pause").is_visible()  # it plays from the start
    until_other(view, until_other(view, first))
    view.get_by_role("button", name="Pause").click()
    view.evaluate(TWO_FRAMES)
    paused = painted(view)
    view.evaluate(TWO_FRAMES)
    assert painted(view) == paused


def test_with_reduced_motion_nothing_moves_until_it_is_played(show) -> None:
    view = show("errors#query-0")
    first = until_painted(view)
    assert (
        view.locator("#play").inner_text() == "Play"
        and view.locator("#time").inner_text() == "0.0 of 1.9 s"
    )
    view.get_by_role("button", name="Play").click()
    until_other(view, first)


def test_one_clock_moves_all_figures(show) -> None:
    view = show("errors#query-0")
    before = [until_painted(view, position) for position in (1, 2, 3)]
    scrub(view, 1.0)
    assert view.locator("#time").inner_text() == "1.0 of 1.9 s"
    for position, old in enumerate(before, start=1):
        until_other(view, old, position)


@pytest.mark.parametrize(("name", "colors"), [("errors", 2), ("alone", 1)])
def test_a_walk_to_the_right_goes_to_the_right(show, name: str, colors: int) -> None:
    view = show(f"{name}#query-0")
    old = until_painted(view)
    start = view.evaluate(FIGURE_POSITIONS, CANVAS.format(1))
    scrub(view, 1.9)
    until_other(view, old)
    end = view.evaluate(FIGURE_POSITIONS, CANVAS.format(1))
    assert len([position for position in start if position]) == colors
    assert np.mean([start[:colors], end[:colors]]) == pytest.approx(
        0.5, abs=0.03
    )  # the middle of the way is that of the picture
    assert all(
        after - before > 0.1 for before, after in zip(start[:colors], end[:colors], strict=True)
    )
    if colors == 2:
        assert start[0] < start[1]  # the first person stands on the left
    assert view.locator("#legend").is_visible() == (colors == 2)


def test_dragging_one_figure_turns_all_of_them_and_the_view_can_be_reset(show) -> None:
    view = show("errors#query-0")
    first = [until_painted(view, position) for position in (1, 2)]
    box = view.locator(CANVAS.format(1)).bounding_box()
    view.mouse.move(box["x"] + 80, box["y"] + 80)
    view.mouse.down()
    view.mouse.move(box["x"] + 150, box["y"] + 90)
    view.mouse.up()
    turned = [until_other(view, old, position) for position, old in enumerate(first, start=1)]
    view.mouse.move(box["x"] + 20, box["y"] + 20)  # no button is down any more
    view.get_by_role("button", name="Reset view").click()
    assert [
        until_other(view, old, position) for position, old in enumerate(turned, start=1)
    ] == first
    view.get_by_role("button", name="Turn the view left").click()
    until_other(view, first[0])


def test_a_camera_that_follows_keeps_a_walk_in_the_middle(show) -> None:
    view = show("alone#query-0")
    old = until_painted(view)
    view.get_by_role("button", name="Follow").click()
    assert view.get_by_role("button", name="Follow").get_attribute("aria-pressed") == "true"
    followed = until_other(view, old)
    start = view.evaluate(FIGURE_POSITIONS, CANVAS.format(1))[0]
    scrub(view, 1.9)
    until_other(view, followed)
    assert view.evaluate(FIGURE_POSITIONS, CANVAS.format(1))[0] == pytest.approx(start, abs=0.02)


# ---- keyboard, colors, sizes


def test_arrows_go_through_the_list_and_space_plays(show) -> None:
    view = show()
    view.keyboard.press("ArrowRight")
    expect(view.locator("#position")).to_have_text("1 of 4")
    assert view.locator("#previous").is_disabled()
    view.keyboard.press("ArrowRight")
    expect(view.locator("#caption")).to_have_text(NASTY)
    assert view.locator("#announcement").inner_text().startswith("Query 2 of 4: </script>")
    view.keyboard.press("ArrowLeft")
    expect(view.locator("#position")).to_have_text("1 of 4")
    view.keyboard.press("ArrowLeft")  # there is none before the first
    assert view.locator("#caption").inner_text() == "they bow to each other"
    view.keyboard.press(" ")
    assert view.locator("#play").inner_text() == "Pause"
    view.keyboard.press(" ")
    assert view.locator("#play").inner_text() == "Play"
    view.get_by_role("button", name="Next").click()
    expect(view.locator("#position")).to_have_text("2 of 4")
    view.keyboard.press("Escape")
    view.locator("#overview").wait_for()


def test_in_the_list_the_focus_goes_along(show) -> None:
    view = show()
    view.locator("#queries a").nth(1).focus()
    view.keyboard.press("Enter")
    view.locator("#query").wait_for()
    view.locator("#queries a").nth(1).focus()
    view.keyboard.press("ArrowDown")
    assert view.locator("#caption").inner_text() == "two people wave"
    assert view.evaluate("document.activeElement.getAttribute('aria-current')") == "true"


def test_keys_are_letters_while_somebody_writes(show) -> None:
    view = show("errors#query-0")
    view.keyboard.press("/")
    assert focused(view) == "search"
    view.keyboard.type("two p")
    view.keyboard.press("ArrowLeft")
    assert view.get_by_label("Search").input_value() == "two p"
    assert (
        view.locator("#caption").inner_text() == "two people wave"
        and view.locator("#play").inner_text() == "Play"
    )
    assert listed_ids(view) == ["q1"]


def test_enter_in_the_search_opens_the_first_that_is_found(show) -> None:
    view = show()
    view.keyboard.press("/")
    view.keyboard.type("one of them")
    view.keyboard.press("Enter")
    expect(view.locator("#caption")).to_have_text("one of them squats")
    assert focused(view) == "caption"
    view.keyboard.press("/")
    view.keyboard.press("Enter")  # it is open already
    assert focused(view) == "caption"
    view.keyboard.press("/")
    view.get_by_label("Search").fill("nothing of that kind")
    view.keyboard.press("Enter")
    assert (
        focused(view) == "search" and view.locator("#caption").inner_text() == "one of them squats"
    )


def test_arrows_in_the_search_go_through_what_is_found_while_one_can_write_on(show) -> None:
    view = show()
    view.keyboard.press("/")
    view.keyboard.type("the")  # they bow to each other, in other words; all have the latter
    for key, caption in (
        ("ArrowDown", "they bow to each other"),
        ("ArrowDown", NASTY),
        ("ArrowUp", "they bow to each other"),
    ):
        view.keyboard.press(key)
        expect(view.locator("#caption")).to_have_text(caption)
        assert focused(view) == "search"
    view.keyboard.type("m squats")
    assert listed_ids(view) == ["q4"]
    view.keyboard.press("ArrowDown")
    expect(view.locator("#caption")).to_have_text("one of them squats")
    assert view.locator("#queries a[aria-current]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colors_follow_the_system_until_they_are_chosen(show, scheme: str) -> None:
    view = show("errors#query-0", scheme=scheme)
    until_painted(view)
    lightness = """getComputedStyle(document.body).backgroundColor
        .match(/[0-9.]+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0)"""
    before, picture = view.evaluate(lightness), painted(view)
    assert (before > 380) == (scheme == "light")
    view.get_by_role("button", name="Dark colors" if scheme == "light" else "Light colors").click()
    assert (view.evaluate(lightness) > 380) != (scheme == "light")
    until_other(view, picture)


@pytest.mark.parametrize("name", ["errors", "errors#query-2", "search"])
def test_a_phone_shows_it_without_scrolling_sideways(show, name: str) -> None:
    view = show(name, width=400)
    assert view.evaluate("document.documentElement.scrollWidth") <= 400
    assert view.locator("nav").is_visible() == (name == "errors")


def test_every_control_has_a_name(show) -> None:
    view = show("errors#query-0")
    nameless = """[...document.querySelectorAll("button, input, select, canvas, a")].filter(
        (element) => !(element.getAttribute("aria-label") || element.labels?.length
            || element.textContent.trim())).length"""
    assert view.evaluate(nameless) == 0
