"""Submissions: the file, its similarities, what went into it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from motret import files, foreign, rank, runs, standing, submission, submission_log
from motret.blend import Blend
from motret.challenge import Query
from motret.config import EnsembleSettings
from motret.foreign import Foreign
from motret.fusion import Fusion
from motret.holdout import MARKER
from motret.members import ForeignMember, Member
from motret.verdict import Verdict


@dataclass(frozen=True)
class Published:
    """A submission written: the file to upload, and the dated one that is kept (the same where validation queries were ranked).

    again: it is the same as one that was kept and logged before.
    """

    file: Path
    kept: Path
    again: bool = False


def publish(
    settings: EnsembleSettings,
    fusion: Fusion,
    fixed: Sequence[tuple[Foreign, float]],
    queries: Sequence[Query],
    found: Blend,
    verdict: Verdict,
    test_dir: Path,
) -> Published:
    """Writes the ranking to the file to upload and, with its similarities (.npz, those of each member too) and what went into it
    (.json), as a dated one.

    The log grows by a row, unless the same submission is kept already. With `fixed` files, which no score counts, there is no local
    score, neither in the name nor in the log. Validation queries (those of `validate.py make_batches`) are no submission: their ranking
    goes to --out, by default ranked.csv beside them, and nowhere else.
    """
    now, local = datetime.now(), fusion.local
    ranked = rank.ranking(queries, found.together)
    entries = _members(fusion, fixed)
    by_name = sorted(entries, key=lambda entry: entry["run"])  # the order in which runs are named makes no other submission
    mixed = files.digest(by_name, fusion.beta, settings.fold, sorted(ranked.items()))[:6]
    validation = (test_dir / MARKER).is_file()
    names = [str(entry["run"]) for entry in entries]
    label = names[0].removesuffix(".npz").removesuffix(".csv") if len(names) == 1 else f"ensemble-of-{len(names)}"
    file = settings.out or (test_dir / "ranked.csv" if validation else settings.submissions_dir / "submission.csv")
    score = "unscored" if fixed else f"cv{local.score.mean:.4f}"
    kept = settings.submissions_dir / f"{now:%Y-%m-%d_%H-%M-%S}_{label}_{score}_{mixed}.csv"
    kept = file if validation else kept
    log = settings.submissions_dir / "log.csv"
    earlier = None if validation else submission_log.find(log, mixed)
    for path in dict.fromkeys((file, kept)):
        submission.write_submission(path, ranked, settings.candidate_format, settings.top_k)
        submission.read_submission(path, queries, settings.top_k)
        if path == file and earlier is not None and earlier.read_bytes() == file.read_bytes():
            submission_log.move_last(log, earlier.name)
            return Published(file, earlier, again=True)
    foreign.save(kept.with_suffix(".npz"), queries, found.together, list(zip(names, found.alone, strict=True)))
    true = next((row.true for row in verdict.rows[-1:] if row.true is not None), None)
    told = asdict(local.score) | {"by_fold": {fold: asdict(score) for fold, score in local.by_fold.items()}}
    about = {
        "members": entries,
        "views": list(fusion.views),
        "query_bank": fusion.beta,
        "fold": settings.fold,
        "local_score": None if fixed else told,
        **({"local_score_of_the_other_members": told} if fixed else {}),
        "true_score": asdict(submission.mean(true)) if true is not None else None,
        **verdict.about(),
        **_belongs(fusion),
        "git": runs.git_commit(),
    }
    files.write_json(kept.with_suffix(".json"), about)
    if not validation:
        scores = ("", "") if fixed else (f"{local.score.mean:.4f}", f"{local.score.error:.4f}")
        row = (f"{now:%Y-%m-%d %H:%M:%S}", kept.name, *scores, " ".join(names), mixed, about["git"] or "", "")
        submission_log.append(log, row)
    return Published(file, kept)


def _members(fusion: Fusion, fixed: Sequence[tuple[Foreign, float]]) -> list[dict[str, Any]]:
    """What took part, each with its weight and the local score it earns alone."""
    left = 1 - sum(share for _, share in fixed)
    entries = []
    for member, weight, alone in zip(fusion.members, fusion.weights, fusion.alone, strict=True):
        entry: dict[str, Any] = {"run": member.name, "weight": round(float(weight) * left, 6), "local_score": asdict(standing.score(alone))}
        if isinstance(member, Member):
            folds = [fold for _, fold in member.models if fold is not None]
            entry |= {"folds": folds, "full": (None in [fold for _, fold in member.models]), "runs": list(member.runs)}
            entry["settings"] = runs.settings_hash(member.models[0][0].settings)
        entries.append(entry)
    return entries + [{"run": one.name, "weight": share} for one, share in fixed]


def _belongs(fusion: Fusion) -> dict[str, str]:
    run = next(member.models[0][0] for member in fusion.members if not isinstance(member, ForeignMember))
    return {"data": run.data, "folds": run.folds}
