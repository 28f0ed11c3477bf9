"""An ensemble from beginning to end: members, weights, the test's candidates, the submission, and what it is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret import blend, dataset, foreign, fusion, members, metrics, publish, rank, run_table, submission, verdict
from motret.blend import Blend, Similarities
from motret.challenge import Query, query_key
from motret.config import EnsembleSettings
from motret.dataset import TrainingData
from motret.encode import Encoder
from motret.faults import SettingFault
from motret.folds import Folds
from motret.foreign import Foreign
from motret.fusion import Fusion
from motret.members import ForeignMember, Member
from motret.publish import Published
from motret.verdict import OnQueries, Verdict


@dataclass(frozen=True)
class Combined:
    """What came of it."""

    queries: int
    fusion: Fusion
    verdict: Verdict
    published: Published
    unscored: tuple[str, ...]
    """Files that took part with a given weight: no local score counts them."""

    def lines(self) -> list[str]:
        """For people: the submission, the table, the scores."""
        took_part = ", ".join(row.name for row in self.verdict.rows if row.weight)
        file, kept = self.published.file, self.published.kept
        beside = f" (kept as {kept.name})" if kept != file else ""
        if self.published.again:
            beside = f" (the same as {kept.name}, logged before)"
        bank = f"query-bank normalisation with beta {self.fusion.beta:g}" if self.fusion.beta else "no query-bank normalisation"
        views = f"views {', '.join(self.fusion.views)}" if self.fusion.views else "no further views"
        said = [f"{self.queries} queries ranked by {took_part}, {views}, {bank}: {file}{beside}", *self.verdict.lines()]
        if self.unscored:
            said.append(
                f"the local score leaves {', '.join(self.unscored)} out, which has no out-of-fold part: nothing tells that of the mix"
            )
        said.append(self.fusion.local.line("local score of the other members" if self.unscored else "local"))
        models = {run.name: run for member in self.fusion.members if isinstance(member, Member) for run in member.folds.values()}
        if chosen := run_table.chosen_there(list(models.values())):
            said.append(chosen)
        true = self.verdict.rows[-1].true
        return said if true is None else [*said, f"true score {submission.mean(true)} ({len(true)} queries)"]


def combine(settings: EnsembleSettings, data: TrainingData, folds: Folds, test_dir: Path) -> Combined:
    """Fits the ensemble, ranks the test folder's candidates, writes the submission."""
    gathered = members.gather(settings, data, folds)
    kinds = {member.features for member in gathered}
    jobs = settings.machine.jobs
    tests = {kind: dataset.load_test(test_dir, kind, settings.data, jobs, not number) for number, kind in enumerate(kinds)}
    queries = next(iter(tests.values())).queries
    scored, fixed = _files(settings, queries, data, folds)
    encoder = Encoder(settings.machine, settings.data.work_dir, data.training.captions)
    fitted = fusion.fit([*gathered, *scored], data, folds, settings, encoder)
    found = blend.blend(fitted, fixed, tests, encoder)
    gt = test_dir / "gt.csv"
    true = _true_scores(found, queries, submission.read_ground_truth(gt)) if gt.is_file() else None
    judged = verdict.judge(fitted, [(one.name, share) for one, share in fixed], true, settings.machine.seed)
    published = publish.publish(settings, fitted, fixed, queries, found, judged, test_dir)
    return Combined(len(queries), fitted, judged, published, tuple(one.name for one, _ in fixed))


def _files(
    settings: EnsembleSettings, queries: Sequence[Query], data: TrainingData, folds: Folds
) -> tuple[list[ForeignMember], list[tuple[Foreign, float]]]:
    """The members made elsewhere: those that a score can weigh, and the others with the weights they are given."""
    told = [foreign.read(path, queries, data, folds) for path in settings.members]
    scored = [ForeignMember(one.name, one) for one in told if one.out_of_fold]
    rest = [one for one in told if not one.out_of_fold]
    if len(rest) != len(settings.member_weight):
        names = ", ".join(one.name for one in rest) or "none of --members"
        wrong = f"{len(settings.member_weight)} weights, and {len(rest)} members without out-of-fold part ({names})"
        raise SettingFault("--member_weight", wrong, "no score can weigh those: give each its share of the mean, as 0.2")
    return scored, list(zip(rest, settings.member_weight, strict=True))


def _true_scores(found: Blend, queries: Sequence[Query], truth: dict[str, int]) -> OnQueries:
    """The score of each query by all that ranks them."""

    def score(similarities: Similarities) -> np.ndarray:
        ranked = rank.ranking(queries, similarities)
        answers = {query_key(query): tuple(order[: metrics.TOP]) for query, order in ranked.items()}
        return metrics.submission_scores(answers, truth)

    network = np.mean([score(own) for own in found.networks], axis=0) if found.networks else None
    viewed = None if found.viewed is None else score(found.viewed)
    return OnQueries(tuple(map(score, found.alone)), network, viewed, score(found.together))
