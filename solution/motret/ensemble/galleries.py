"""Embeddings that an ensemble is fitted on and applied to, as plain arrays.

No file and no model is opened here. A held-out gallery is what one fold holds out: C captions and M
motions, embedded by models that were not trained on them. Embeddings are kept, not similarities: of
6,000 motions and 18,000 captions those of one fold and one member take a few megabytes.
Similarities are formed one fold at a time.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce

import numpy as np

from motret.ensemble import query_bank
from motret.ensemble.query_bank import QueryBank
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.z_score import ZScore

Views = tuple[str, ...]
"""Kinds of test-time views, such as ("mirror", "speed")."""
Mixture = tuple[float, ...]
"""The weight of each member."""


@dataclass(frozen=True, eq=False)
class ViewEmbeddings:
    """Embeddings of a held-out gallery in a test-time view.

    text: (C, d), zero for a caption that cannot be mirrored; motion: (M, d); their products are
    similarities. deviation: the standard deviation of these, as a multiple of that of the plain
    ones. cache_key: changes with the model and the rules they come from.
    """

    text: np.ndarray
    motion: np.ndarray
    deviation: float
    cache_key: str


@dataclass(frozen=True, eq=False)
class BankEmbeddings:
    """Embeddings (B, d) of a query bank's captions: as they are, and in each view of each kind."""

    plain: np.ndarray
    views: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def in_views(self, kinds: Views) -> list[np.ndarray]:
        """The plain embeddings, then those in the views of some kinds."""
        return [self.plain, *(text for kind in kinds for text in self.views.get(kind, ()))]


@dataclass(frozen=True, eq=False)
class MemberGallery:
    """A held-out gallery as one member embeds it.

    text: (C, d) and motion: (M, d), whose products are similarities; views: kind -> its views;
    bank: of a query bank's captions, None where nothing needs it.
    """

    text: np.ndarray
    motion: np.ndarray
    views: Mapping[str, tuple[ViewEmbeddings, ...]] = field(default_factory=dict)
    bank: BankEmbeddings | None = None

    def embeddings(self, kinds: Views = ()) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) whose products are the plain similarities plus those in views."""
        views = self._views_of(kinds)
        return concat_views(self.text, self.motion, views) if views else (self.text, self.motion)

    def bank_embeddings(self, kinds: Views = ()) -> np.ndarray:
        """(B, v) of the query bank, to be compared with the motions of `embeddings`."""
        assert self.bank is not None
        return scale_views(
            self.bank.in_views(kinds), [view.deviation for view in self._views_of(kinds)]
        )

    def caption_bank(self, caption_idx: np.ndarray) -> BankEmbeddings:
        """Some of its own captions (B,) as a query bank."""
        views = {
            kind: tuple(view.text[caption_idx] for view in views)
            for kind, views in self.views.items()
        }
        return BankEmbeddings(self.text[caption_idx], views)

    def similarity(self, kinds: Views = ()) -> np.ndarray:
        """(C, M) similarities on the member's own scale."""
        text, motion = self.embeddings(kinds)
        return np.asarray(text @ motion.T)

    def _views_of(self, kinds: Views) -> list[ViewEmbeddings]:
        return [view for kind in kinds for view in self.views.get(kind, ())]


@dataclass(frozen=True, eq=False)
class ExternalGallery:
    """A held-out gallery as a member made elsewhere scores it.

    scores: (C, M) similarities, NaN for pairs that it has not scored. It has no views and no query
    bank.
    """

    scores: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """(C, M) pairs that it has scored."""
        return np.asarray(~np.isnan(self.scores))

    @property
    def scale(self) -> ZScore:
        """That of the pairs it has scored."""
        return ZScore.of(self.scores[self.scored])


@dataclass(frozen=True, eq=False)
class FoldGallery:
    """What one fold holds out, as every member sees it.

    motion_idx: (C,) motion of each caption; group: (M,) groups of the motions, for standard errors;
    members: one gallery each. Pairs that a member has not scored count for none (`compared`).
    """

    motion_idx: np.ndarray
    group: np.ndarray
    members: tuple[MemberGallery | ExternalGallery, ...]

    @cached_property
    def compared(self) -> np.ndarray | None:
        """(C, M) pairs that all members have scored; None: all."""
        scored = [each.scored for each in self.members if isinstance(each, ExternalGallery)]
        return None if all(each.all() for each in scored) else np.all(scored, axis=0)

    def standardized_similarity(self, member_idx: int, kinds: Views = ()) -> np.ndarray:
        """(C, M) similarities of a member, with mean 0 and deviation 1 over the gallery; 0 for
        pairs that it has not scored."""
        member = self.members[member_idx]
        if isinstance(member, ExternalGallery):
            return np.asarray(np.nan_to_num(member.scale(member.scores), nan=0.0))
        scores = member.similarity(kinds)
        return ZScore.of(scores)(scores)

    def mixture_similarity(self, mixture: Mixture, kinds: Views = ()) -> np.ndarray:
        """(C, M) similarities under a mixture of the members in these views, for all pairs."""
        used = self._used([mixture])
        return mix(mixture, {idx: self.standardized_similarity(idx, kinds) for idx in used})

    def compared_similarity(self, mixture: Mixture, kinds: Views = ()) -> np.ndarray:
        """The same, -inf for pairs that some member has not scored."""
        similarity = self.mixture_similarity(mixture, kinds)
        return similarity if self.compared is None else np.where(self.compared, similarity, -np.inf)

    def mixture_ranks(
        self, mixtures: Collection[Mixture], kinds: Views = ()
    ) -> dict[Mixture, GalleryRanks]:
        """Ranks of the right motions under each mixture of the members in these views."""
        scores = {idx: self.standardized_similarity(idx, kinds) for idx in self._used(mixtures)}
        return {mixture: self._ranks(mix(mixture, scores)) for mixture in mixtures}

    def bank_ranks(
        self, mixtures: Collection[Mixture], kinds: Views = ()
    ) -> dict[Mixture, dict[float, GalleryRanks]]:
        """Ranks of the right motions under each mixture and each beta of query-bank normalisation.

        Members made elsewhere have no bank: they are added after the normalisation.
        """
        ranks = {}
        for mixture, similarity, bank in self._with_banks(mixtures, kinds):
            external = self._external_similarity(mixture)
            ranks[mixture] = {
                beta: self._ranks(bank.normalize(similarity, beta) + external)
                for beta in bank.offset
            }
        return ranks

    def ensemble_similarity(self, mixture: Mixture, kinds: Views, beta: float | None) -> np.ndarray:
        """(C, M) similarities of an ensemble: `mixture_similarity`, normalised where beta is given.

        Members made elsewhere are added after the normalisation.
        """
        if beta is None:
            return self.mixture_similarity(mixture, kinds)
        ((_, similarity, bank),) = self._with_banks([mixture], kinds)
        return bank.normalize(similarity, beta) + self._external_similarity(mixture)

    def _with_banks(
        self, mixtures: Collection[Mixture], kinds: Views
    ) -> Iterator[tuple[Mixture, np.ndarray, QueryBank]]:
        """Each mixture with the similarities (C, M) of its models and their query bank.

        The similarities of the bank are formed for a chunk of motions at a time.
        """
        galleries = {
            idx: gallery
            for idx in self._used(mixtures)
            if isinstance(gallery := self.members[idx], MemberGallery)
        }
        embeddings = {idx: gallery.embeddings(kinds) for idx, gallery in galleries.items()}
        scales = {idx: ZScore.of(text @ motion.T) for idx, (text, motion) in embeddings.items()}
        banks = {idx: gallery.bank_embeddings(kinds) for idx, gallery in galleries.items()}

        def mixed(texts: Mapping[int, np.ndarray], mixture: Mixture, motions: slice) -> np.ndarray:
            scores = {
                idx: scales[idx](texts[idx] @ embeddings[idx][1][motions].T)
                for idx in embeddings
                if mixture[idx]
            }
            return mix(mixture, scores)

        texts = {idx: text for idx, (text, _) in embeddings.items()}
        for mixture in mixtures:
            bank = query_bank.build_query_bank(partial(mixed, banks, mixture), len(self.group))
            yield mixture, mixed(texts, mixture, slice(None)), bank

    def _external_similarity(self, mixture: Mixture) -> np.ndarray | float:
        """(C, M) of the members made elsewhere, times their weights; 0 where there is none."""
        scores = {
            idx: self.standardized_similarity(idx)
            for idx in self._used([mixture])
            if isinstance(self.members[idx], ExternalGallery)
        }
        return mix(mixture, scores) if scores else 0.0

    def _used(self, mixtures: Collection[Mixture]) -> list[int]:
        """Members with a weight in some mixture."""
        return [
            idx for idx in range(len(self.members)) if any(mixture[idx] for mixture in mixtures)
        ]

    def _ranks(self, similarity: np.ndarray) -> GalleryRanks:
        return GalleryRanks.of(similarity, self.motion_idx, self.group, self.compared)


@dataclass(frozen=True, eq=False)
class OofGalleries:
    """Out-of-fold predictions: the held-out galleries of the folds that all members have finished.

    names: of the members; folds: fold -> its gallery.
    """

    names: tuple[str, ...]
    folds: Mapping[int, FoldGallery]

    def select(self, member_idx: Sequence[int]) -> "OofGalleries":
        """The same galleries of some of the members."""
        folds = {
            fold: replace(gallery, members=tuple(gallery.members[idx] for idx in member_idx))
            for fold, gallery in self.folds.items()
        }
        return OofGalleries(tuple(self.names[idx] for idx in member_idx), folds)


@dataclass(frozen=True, eq=False)
class GalleryEmbeddings:
    """Embeddings of a test gallery by one model.

    motion: (G, v); query: (Q, v), the mean over each query's captions; bank: (B, v). scale: of its
    similarities; plain_scale, plain_query (Q, d): the same without views, d being the first columns
    of v.
    """

    scale: ZScore
    plain_scale: ZScore
    motion: np.ndarray
    query: np.ndarray
    plain_query: np.ndarray
    bank: np.ndarray | None = None

    def without_views(self) -> "GalleryEmbeddings":
        """The plain embeddings alone."""
        motion = self.motion[:, : self.plain_query.shape[1]]
        return GalleryEmbeddings(
            self.plain_scale, self.plain_scale, motion, self.plain_query, self.plain_query
        )

    def query_similarity(self, motions: slice = slice(None)) -> np.ndarray:
        """(Q, m) standardized similarities of the queries and some motions of the gallery."""
        return self.scale(self.query @ self.motion[motions].T)

    def bank_similarity(self, motions: slice) -> np.ndarray:
        """(B, m) standardized similarities of the query bank and some motions of the gallery."""
        assert self.bank is not None
        return self.scale(self.bank @ self.motion[motions].T)


def mix(weights: Mixture | np.ndarray, scores: Mapping[int, np.ndarray]) -> np.ndarray:
    """Sum of the scores of the members with a weight, each times its weight."""
    return reduce(np.add, (weights[idx] * array for idx, array in scores.items() if weights[idx]))


def concat_views(
    text: np.ndarray, motion: np.ndarray, views: Sequence[ViewEmbeddings]
) -> tuple[np.ndarray, np.ndarray]:
    """(C, v) and (M, v) whose products are the plain similarities plus those in views.

    Those in views are in units of the plain ones.
    """
    texts = scale_views([text, *(view.text for view in views)], [view.deviation for view in views])
    return texts, np.concatenate([motion, *(view.motion for view in views)], axis=1)


def scale_views(texts: Sequence[np.ndarray], deviations: Sequence[float]) -> np.ndarray:
    """(C, v) caption embeddings, plain and in views, side by side.

    Each view's are divided by the deviation of its similarities. A caption that cannot be mirrored
    has zeros in that view. Its plain similarity then counts once more, which keeps it on the scale
    of the other captions.
    """
    plain, *in_views = texts
    n_absent = np.zeros(len(plain), dtype=int)
    for text in in_views:
        n_absent += ~text.any(axis=1)
    blocks = [text / deviation for text, deviation in zip(in_views, deviations, strict=True)]
    return np.concatenate([plain * (1 + n_absent)[:, None].astype(plain.dtype), *blocks], axis=1)
