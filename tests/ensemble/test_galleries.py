"""Held-out galleries: views on one scale, and query-bank normalisation as its formula has it."""

from dataclasses import replace

import numpy as np

from helpers import unit
from motret.ensemble import query_bank
from motret.ensemble.galleries import (
    BankEmbeddings,
    ExternalGallery,
    FoldGallery,
    MemberGallery,
    ViewEmbeddings,
)
from motret.evaluation import metrics
from motret.evaluation.z_score import ZScore

MOTION_IDX = np.repeat(np.arange(10), 2)


def gallery_with_view(seed: int = 0) -> MemberGallery:
    """Ten motions of two captions each, which are nearer to their motions in the view."""
    rng = np.random.default_rng(seed)
    text, motion, view_motion = unit(rng, 20, 6), unit(rng, 10, 6), unit(rng, 10, 6)
    view_text = 3 * view_motion[MOTION_IDX] + unit(rng, 20, 6)
    deviation = float((view_text @ view_motion.T).std() / (text @ motion.T).std())
    return MemberGallery(
        text, motion, {"speed": (ViewEmbeddings(view_text, view_motion, deviation, ""),)}
    )


def fold_gallery(*members: MemberGallery | ExternalGallery) -> FoldGallery:
    return FoldGallery(MOTION_IDX, np.arange(10), members)


def test_a_member_with_a_view_is_the_mean_of_both_on_one_scale() -> None:
    gallery = gallery_with_view()
    (view,) = gallery.views["speed"]
    both = [gallery.text.astype(float) @ gallery.motion.T, view.text.astype(float) @ view.motion.T]
    mean = np.mean(
        [(similarity - similarity.mean()) / similarity.std() for similarity in both], axis=0
    )
    in_views = fold_gallery(gallery).standardized_similarity(0, ("speed",))
    np.testing.assert_allclose(in_views, mean / mean.std(), atol=1e-5)
    assert not np.allclose(in_views, fold_gallery(gallery).standardized_similarity(0), atol=0.1)


def test_a_kind_that_a_member_lacks_changes_nothing() -> None:
    gallery = gallery_with_view()
    np.testing.assert_array_equal(gallery.similarity(("mirror",)), gallery.similarity())


def test_the_plain_similarity_counts_once_more_for_a_caption_that_cannot_be_mirrored() -> None:
    gallery, absent = gallery_with_view(), [1, 4]
    (view,) = gallery.views["speed"]
    view.text[absent] = 0
    plain, in_views = gallery.similarity(), gallery.similarity(("speed",))
    expected = plain + view.text @ view.motion.T / view.deviation
    expected[absent] = 2 * plain[absent]
    np.testing.assert_allclose(in_views, expected, atol=1e-5)
    others = [caption for caption in range(20) if caption not in absent]
    assert (
        0.5 < in_views[absent].std() / in_views[others].std() < 2
    )  # on one scale with the other captions


def test_a_query_bank_normalises_each_mixture_as_the_formula_has_it() -> None:
    rng = np.random.default_rng(0)
    members = [
        replace(gallery_with_view(seed), bank=BankEmbeddings(rng.normal(size=(50, 6))))
        for seed in (0, 1)
    ]
    mixture = (0.3, 0.7)
    ranks = fold_gallery(*members).bank_ranks({mixture}, ())[mixture]
    queries = captions = np.zeros(())
    for member, weight in zip(members, mixture, strict=True):
        assert member.bank is not None
        similarity = member.text @ member.motion.T
        scale = ZScore.of(similarity)
        queries = queries + weight * scale(similarity)
        captions = captions + weight * scale(member.bank.plain @ member.motion.T)
    hubs = np.unique(captions.argmax(axis=1))
    for beta in query_bank.BETAS:
        normalised = np.exp(beta * queries) / np.exp(beta * captions).sum(axis=0)
        expected = np.where(np.isin(queries.argmax(axis=1), hubs)[:, None], normalised, queries)
        np.testing.assert_allclose(
            ranks[beta].values(), metrics.caption_scores(expected, MOTION_IDX)
        )


def test_a_member_made_elsewhere_is_added_after_the_normalisation() -> None:
    rng = np.random.default_rng(0)
    model = replace(gallery_with_view(), bank=BankEmbeddings(3 * rng.normal(size=(50, 6))))
    scores, mixture = rng.normal(size=(20, 10)), (0.6, 0.4)
    gallery = fold_gallery(model, ExternalGallery(scores))
    alone = fold_gallery(model)
    for beta in query_bank.BETAS:
        # a model's share of the mixture scales its similarities, and so beta
        ((_, similarity, bank),) = alone._with_banks([(0.6,)], ())
        expected = bank.normalize(similarity, beta) + 0.4 * ZScore.of(scores)(scores)
        np.testing.assert_allclose(gallery.ensemble_similarity(mixture, (), beta), expected)
        ranks = gallery.bank_ranks({mixture}, ())[mixture][beta]
        np.testing.assert_allclose(ranks.values(), metrics.caption_scores(expected, MOTION_IDX))


def test_a_query_bank_is_compared_in_the_same_views_as_the_captions() -> None:
    """A bank that is the gallery's own captions has their similarities, plain and in views."""
    gallery = gallery_with_view()
    (view,) = gallery.views["speed"]
    gallery = replace(gallery, bank=BankEmbeddings(gallery.text, {"speed": (view.text,)}))
    for kinds in ((), ("speed",)):
        text, motion = gallery.embeddings(kinds)
        np.testing.assert_array_equal(gallery.bank_embeddings(kinds) @ motion.T, text @ motion.T)
