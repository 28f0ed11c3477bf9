"""The error browser: queries and their ranked, moving candidates as one self-contained HTML page.

`write_page` turns a `PageContent` into the page; `browser` makes the content. Markup, style and
script are in web/. jinja2 puts them into one file and escapes every caption. The page's content
security policy forbids the network and all scripts but its own.
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
    """A member of an ensemble: its name, weight (None: not known) and own score, as text."""

    name: str
    weight: float | None = None
    score: str = ""


@dataclass(frozen=True)
class Overview:
    """The summary at the top of a page.

    facts: (name, value) pairs, of which the first `large` stand out; recall: Recall@k for
    k = 1, 2, ... (empty: not known); chance: the same for a random order; note: which queries are
    listed, and the like.
    """

    facts: tuple[tuple[str, str], ...] = ()
    recall: tuple[float, ...] = ()
    chance: tuple[float, ...] = ()
    members: tuple[MemberRow, ...] = ()
    note: str = ""
    large: int = 1


@dataclass(frozen=True)
class CandidateView:
    """A ranked motion. rank: from 1; score: larger is better; captions: empty if not known."""

    motion: str
    path: Path
    rank: int
    score: float
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueryView:
    """A query and its ranking.

    candidates: the listed ones, best first, of `gallery` that were ranked; truth: the matching
    motion, if known; disagreement: how differently the members of an ensemble rank the candidates
    (`browser.disagreement`).
    """

    id: str
    captions: tuple[str, ...]
    candidates: tuple[CandidateView, ...]
    gallery: int
    truth: str | None = None
    disagreement: float | None = None

    @property
    def rank(self) -> int | None:
        """Rank of the matching motion, from 1; None if it is not known or not listed."""
        ranks = (item.rank for item in self.candidates if item.motion == self.truth)
        return next(ranks, None)


@dataclass(frozen=True)
class PageContent:
    """What a page shows. config: how its motions are read."""

    title: str
    overview: Overview
    queries: tuple[QueryView, ...]
    config: FeatureConfig = field(default_factory=FeatureConfig)


def read_packed_motion(path: Path, config: FeatureConfig) -> PackedMotion:
    """Reads and packs a motion, repaired where it has to be.

    A file that cannot be read gives a point on the floor.
    """
    try:
        columns = motion_files.read_motion(path, repairs=[])
        positions = skeleton.split_columns(columns, config.body)[0]
    except (DataError, KeyError):
        positions = np.zeros((2, 1, len(config.body.joints), 3), np.float32)
    upright = features.upright(positions, config)
    return pose_codec.pack_motion(upright, config.fps, skeleton=config.body)


ReadMotion = Callable[[Path, FeatureConfig], PackedMotion]


def write_page(
    path: Path, content: PageContent, read_motion: ReadMotion = read_packed_motion
) -> int:
    """Writes the page, whole or not at all; returns its size in bytes."""
    files.write_text(path, render(content, pack_all(content, read_motion)))
    return path.stat().st_size


def pack_all(
    content: PageContent, read_motion: ReadMotion = read_packed_motion
) -> dict[Path, PackedMotion]:
    """Packs every motion of the page once."""
    paths = dict.fromkeys(
        candidate.path for query in content.queries for candidate in query.candidates
    )
    bar = progress.progress_bar(paths, desc="motions of the page")
    return {path: read_motion(path, content.config) for path in bar}


def render(content: PageContent, motions: dict[Path, PackedMotion]) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (WEB / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        title=content.title,
        overview=content.overview,
        curve=recall_curve(content.overview),
        n_queries=len(content.queries),
        data=page_data(content, motions),
        style=Markup((WEB / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def page_data(content: PageContent, motions: dict[Path, PackedMotion]) -> dict[str, Any]:
    """The JSON that the page's script reads: the queries, and each motion once, by index."""
    motion_index = {path: index for index, path in enumerate(motions)}
    body = content.config.body
    head_joints = ("head", "neck", "left_shoulder", "right_shoulder")
    return {
        "nJoints": len(body.joints),
        "chains": list(body.limbs.values()),
        "joints": {
            name: body.joint(name if name in body.joints else "head") for name in head_joints
        },
        "fps": pose_codec.FPS,
        "metresPerStep": pose_codec.STEP,
        "motions": [asdict(motion) for motion in motions.values()],
        "queries": [_query_data(query, motion_index) for query in content.queries],
    }


def _query_data(query: QueryView, motion_index: dict[Path, int]) -> dict[str, Any]:
    candidates = [
        {
            "motion": candidate.motion,
            "motionIndex": motion_index[candidate.path],
            "rank": candidate.rank,
            "score": round(candidate.score, 4),
            "captions": candidate.captions,
            "match": candidate.motion == query.truth,
        }
        for candidate in query.candidates
    ]
    return {
        "id": query.id,
        "captions": query.captions,
        "gallery": query.gallery,
        "rank": query.rank,
        "disagreement": query.disagreement,
        "candidates": candidates,
    }


def recall_curve(overview: Overview) -> dict[str, Any] | None:
    """The recall curve in the units of its SVG drawing; None where recall is not known."""
    if not overview.recall:
        return None
    width, height, left, right, top, bottom = 600, 232, 52, 580, 28, 196

    def x(index: int) -> float:
        steps = max(1, len(overview.recall) - 1)
        return round(left + 24 + index * (right - left - 48) / steps, 1)

    def y(recall: float) -> float:
        return round(bottom - recall * (bottom - top), 1)

    def polyline(recalls: tuple[float, ...]) -> str:
        return " ".join(f"{x(index)},{y(recall)}" for index, recall in enumerate(recalls))

    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "points": [
            {"k": index + 1, "x": x(index), "y": y(recall), "label": f"{recall:.0%}"}
            for index, recall in enumerate(overview.recall)
        ],
        "recall": polyline(overview.recall),
        "chance": polyline(overview.chance),
        "grid": [
            {"y": y(fraction), "label": f"{fraction:.0%}"} for fraction in (0, 0.25, 0.5, 0.75, 1)
        ],
    }
