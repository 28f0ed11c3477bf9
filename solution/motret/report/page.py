"""The error browser: what was asked, what was answered and how it moves, as one HTML page that needs nothing beside it.

`write` turns a `Report` into the page; the report is made by `browser`. Markup, style and script stand in web/ and are put into one
file by jinja2, which writes every caption as text. The page's own policy forbids it the network and any script but its own.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from motret import skeleton
from motret.data import features
from motret.data.features import FeatureConfig
from motret.errors import DataError
from motret.formats import motion_files
from motret.report import pose_codec
from motret.report.pose_codec import PackedMotion
from motret.utils import files, progress

WEB = Path(__file__).parent / "web"


@dataclass(frozen=True)
class MemberRow:
    """A part of an ensemble: its name, its weight (None: not known) and what it scores alone, in words."""

    name: str
    weight: float | None = None
    score: str = ""


@dataclass(frozen=True)
class Overview:
    """The head of a report.

    facts: what is known, as (name, value), of which the first `large` stand out; recall: share of queries found at rank <= k, for
    k = 1, 2, ... (empty: not known); chance: the same for a random order; note: what a reader should know about the choice of queries.
    """

    facts: tuple[tuple[str, str], ...] = ()
    recall: tuple[float, ...] = ()
    chance: tuple[float, ...] = ()
    members: tuple[MemberRow, ...] = ()
    note: str = ""
    large: int = 1


@dataclass(frozen=True)
class CandidateView:
    """A motion in the answer to a query: rank from 1; score: larger is better; captions: its own, where they are known."""

    motion: str
    path: Path
    rank: int
    score: float
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueryView:
    """A question and its answer: candidates best first, of `search` that were ranked; truth: the right motion, where it is known;
    disagreement: how differently the members of an ensemble rank the candidates, as `browser.disagreement` has it."""

    id: str
    captions: tuple[str, ...]
    candidates: tuple[CandidateView, ...]
    gallery: int
    truth: str | None = None
    disagreement: float | None = None

    @property
    def rank(self) -> int | None:
        """Rank of the right motion, from 1; None where it is not known or not among the candidates."""
        return next((candidate.rank for candidate in self.candidates if candidate.motion == self.truth), None)


@dataclass(frozen=True)
class PageContent:
    """What a page shows. settings: how its motions are read."""

    title: str
    overview: Overview
    queries: tuple[QueryView, ...]
    config: FeatureConfig = field(default_factory=FeatureConfig)


def read_packed_motion(path: Path, config: FeatureConfig) -> PackedMotion:
    """The motion in a file, packed; repaired where it has to be, and nothing but a point on the floor where it cannot be read."""
    try:
        positions = skeleton.split_columns(motion_files.read_motion(path, repairs=[]), config.body)[0]
    except (DataError, KeyError):
        positions = np.zeros((2, 1, len(config.body.joints), 3), np.float32)
    return pose_codec.pack_motion(features.upright(positions, config), config.fps, skeleton=config.body)


def write_page(path: Path, report: PageContent, read: Callable[[Path, FeatureConfig], PackedMotion] = read_packed_motion) -> int:
    """Writes the page, whole or not at all; returns its size in bytes. read: reads a motion."""
    text = render(report, pack_all(report, read))
    files.write_text(path, text)
    return path.stat().st_size


def pack_all(report: PageContent, read: Callable[[Path, FeatureConfig], PackedMotion] = read_packed_motion) -> dict[Path, PackedMotion]:
    """Every motion of the report, packed once."""
    paths = dict.fromkeys(candidate.path for query in report.queries for candidate in query.candidates)
    return {path: read(path, report.config) for path in progress.progress_bar(paths, desc="motions of the page")}


def render(report: PageContent, motions: dict[Path, PackedMotion]) -> str:
    """The page as HTML."""
    around = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (WEB / "page.js").read_text(encoding="utf-8")
    return around.get_template("page.html.j2").render(
        title=report.title,
        overview=report.overview,
        curve=recall_curve(report.overview),
        queries=len(report.queries),
        data=page_data(report, motions),
        style=Markup((WEB / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def page_data(report: PageContent, motions: dict[Path, PackedMotion]) -> dict[str, Any]:
    """The data that the page's script reads: queries, and motions by number, each once."""
    number = {path: place for place, path in enumerate(motions)}
    body = report.config.body
    marked = {name: body.joint(name if name in body.joints else "head") for name in ("head", "neck", "left_shoulder", "right_shoulder")}
    return {
        "count": len(body.joints),
        "chains": list(body.limbs.values()),
        "joint": marked,
        "fps": pose_codec.FPS,
        "step": pose_codec.STEP,
        "motions": [asdict(own) for own in motions.values()],
        "queries": [_query_data(query, number) for query in report.queries],
    }


def _query_data(query: QueryView, number: dict[Path, int]) -> dict[str, Any]:
    shown = [
        {
            "motion": candidate.motion,
            "at": number[candidate.path],
            "rank": candidate.rank,
            "score": round(candidate.score, 4),
            "captions": candidate.captions,
            "right": candidate.motion == query.truth,
        }
        for candidate in query.candidates
    ]
    told = {"id": query.id, "captions": query.captions, "gallery": query.gallery, "rank": query.rank}
    return told | {"disagreement": query.disagreement, "candidates": shown}


def recall_curve(overview: Overview) -> dict[str, Any] | None:
    """Where the lines and points of the recall curve stand, in the units of its drawing; None where recall is not known."""
    if not overview.recall:
        return None
    left, right, high, low = 52, 580, 28, 196

    def across(place: int) -> float:
        return round(left + 24 + place * (right - left - 48) / max(1, len(overview.recall) - 1), 1)

    def up(share: float) -> float:
        return round(low - share * (low - high), 1)

    points = [{"k": k, "x": across(k - 1), "y": up(share), "label": f"{share:.0%}"} for k, share in enumerate(overview.recall, start=1)]
    return {
        "width": 600,
        "height": 232,
        "left": left,
        "right": right,
        "points": points,
        "recall": " ".join(f"{point['x']},{point['y']}" for point in points),
        "chance": " ".join(f"{across(place)},{up(share)}" for place, share in enumerate(overview.chance)),
        "lines": [{"y": up(share), "label": f"{share:.0%}"} for share in (0, 0.25, 0.5, 0.75, 1)],
    }
