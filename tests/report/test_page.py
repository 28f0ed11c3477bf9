"""The page as a file: self-contained, captions as text, each motion once."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers import motion
from motret.report import page
from motret.report.page import CandidateView, MemberRow, Overview, PageContent, QueryView

NASTY = (
    '</script><script>document.title = "taken"</script>'
    '<img src=x onerror="document.title = 1">&amp;'
)


def make_content(folder: Path, caption: str = "two people wave", **overview) -> PageContent:
    """Two queries whose candidates are the same three motions."""
    paths = [folder / f"{number}.npy" for number in range(3)]
    for number, path in enumerate(paths):
        np.save(path, motion(12 + 6 * number, seed=number))
    candidates = tuple(
        CandidateView(f"m{rank}", path, rank, 3.0 - rank, (caption,))
        for rank, path in enumerate(paths, start=1)
    )
    queries = (
        QueryView("q1", (caption, "in other words"), candidates, 3, "m2"),
        QueryView("q2", ("they bow",), candidates[:2], 40),
    )
    return PageContent(
        caption, Overview(**{"facts": (("Score", caption),), "note": caption, **overview}), queries
    )


def data_in(html: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    )


def test_a_written_page_holds_queries_and_each_motion_once(tmp_path: Path) -> None:
    size = page.write_page(tmp_path / "report" / "index.html", make_content(tmp_path))
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert size == len(html.encode())
    data = data_in(html)
    assert len(data["motions"]) == 3 and [item["frames"] for item in data["motions"]] == [4, 6, 8]
    first, second = data["queries"]
    assert (first["id"], first["rank"], first["gallery"]) == ("q1", 2, 3) and second["rank"] is None
    assert [item["match"] for item in first["candidates"]] == [False, True, False]
    assert [item["motionIndex"] for item in second["candidates"]] == [0, 1]
    assert sorted(joint for chain in data["chains"] for joint in chain[1:]) == list(
        range(1, 22)
    )  # every bone once


def test_html_in_captions_is_escaped(tmp_path: Path) -> None:
    page.write_page(
        tmp_path / "page.html",
        make_content(tmp_path, NASTY, members=(MemberRow(NASTY, 0.5, NASTY),)),
    )
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img" not in html and html.count("</script>") == 2 and "<script>" not in html
    assert data_in(html)["queries"][0]["captions"][0] == NASTY
    assert data_in(html)["queries"][0]["candidates"][0]["captions"] == [NASTY]


def test_the_page_requests_nothing_and_its_policy_allows_only_its_own_script(
    tmp_path: Path,
) -> None:
    page.write_page(tmp_path / "page.html", make_content(tmp_path))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        not re.search(r'(src|href)="(?!#|data:)', html)
        and "url(" not in html
        and "@import" not in html
    )
    script = re.search(r'<script type="module">(.*?)</script>', html, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; script-src 'sha256-{allowed}'; "
        "style-src 'unsafe-inline'; img-src data:" in html
    )


def test_the_overview_draws_recall_where_it_is_known(tmp_path: Path) -> None:
    recall = tuple(np.linspace(0.1, 1, 10))
    curve = page.recall_curve(Overview(recall=recall, chance=(0.5,) * 10))
    heights = [point["y"] for point in curve["points"]]
    zero, full = curve["grid"][0]["y"], curve["grid"][-1]["y"]
    assert [(zero - height) / (zero - full) for height in heights] == pytest.approx(
        recall, abs=0.001
    )
    assert [point["label"] for point in curve["points"]][::9] == ["10%", "100%"]
    assert {float(pair.split(",")[1]) for pair in curve["chance"].split()} == {(zero + full) / 2}
    assert page.recall_curve(Overview()) is None
    page.write_page(
        tmp_path / "page.html",
        make_content(tmp_path, members=(MemberRow("one", 0.25), MemberRow("two", None))),
    )
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<svg" not in html and "0.250" in html and "None" not in html


@pytest.mark.parametrize(("large", "expected"), [(0, []), (1, ["one"]), (2, ["one", "two"])])
def test_the_first_facts_stand_out(tmp_path: Path, large: int, expected: list[str]) -> None:
    page.write_page(
        tmp_path / "page.html",
        make_content(tmp_path, facts=(("one", "1"), ("two", "2"), ("three", "3")), large=large),
    )
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"<dt>(.*?)</dt>", html) == ["one", "two", "three"]
    assert (
        re.findall(
            r"<dt>(.*?)</dt>",
            "".join(re.findall(r'<dl class="facts scores">(.*?)</dl>', html, re.DOTALL)),
        )
        == expected
    )


def test_an_unreadable_motion_is_a_point_and_one_with_gaps_is_repaired(tmp_path: Path) -> None:
    content = make_content(tmp_path)
    whole = page.pack_all(content)
    (tmp_path / "1.npy").write_bytes(b"nothing")
    gap = np.load(tmp_path / "2.npy")
    gap[3] = np.nan
    np.save(tmp_path / "2.npy", gap)
    packed = page.pack_all(content)
    assert (
        packed[tmp_path / "1.npy"].radius == 0
        and packed[tmp_path / "2.npy"].frames == whole[tmp_path / "2.npy"].frames
    )
    assert page.write_page(tmp_path / "page.html", content) > 1000
