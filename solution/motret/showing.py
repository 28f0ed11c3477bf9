"""Which views the members of an ensemble have, and what their models say in them of the motions they had not seen."""

from collections.abc import Sequence
from dataclasses import replace

from motret import dataset, views
from motret.config import VIEWS, EnsembleSettings
from motret.dataset import TrainingData
from motret.encode import Encoder
from motret.faults import SettingFault
from motret.features import FeatureSettings
from motret.folds import Folds
from motret.members import ForeignMember, Member
from motret.views import Showing

Found = dict[str, tuple[Showing, ...]]
"""Of a member: kind -> its views of that kind; those it does not have are not there."""


def find(
    members: Sequence[Member | ForeignMember], data: TrainingData, folds: Folds, settings: EnsembleSettings, encoder: Encoder
) -> list[Found]:
    """The views of each member; a file has none. What the models say in them is made where it is not kept from an earlier call.

    SettingFault where a kind is named that no member has.
    """
    kinds = wanted(settings)
    seen_as: dict[FeatureSettings, TrainingData] = {}
    mirrors: dict[FeatureSettings, tuple[Showing, ...]] = {}
    found: list[Found] = []
    for member in members:
        own: Found = {}
        if isinstance(member, Member):
            kind = member.features
            if kind not in seen_as:
                seen_as[kind] = dataset.as_seen(data, kind, settings.data, settings.machine.jobs)
                mirrors[kind] = views.mirror(seen_as[kind], is_named(settings)) if "mirror" in kinds else ()
            own = {"mirror": mirrors[kind], "speed": views.speed(), "swap": views.swap(next(iter(member.folds.values())))}
        found.append({kind: own[kind] for kind in kinds if own.get(kind)})
    if is_named(settings) and (missing := [kind for kind in kinds if not any(kind in own for own in found)]):
        raise SettingFault(views.FLAG, f"no member has the view {missing[0]}", "leave it out")
    for member, own in zip(members, found, strict=True):
        if own:
            encoder.keep_views(shown(member, own, kinds), seen_as[member.features], folds)
    return found


def shown(member: Member | ForeignMember, own: Found, kinds: Sequence[str]) -> Member | ForeignMember:
    """A member with those of its own views that are of these kinds."""
    return replace(member, views=tuple(view for kind in kinds for view in own.get(kind, ()))) if own else member


def wanted(settings: EnsembleSettings) -> tuple[str, ...]:
    """The kinds of views that are named, or all; none where none is wanted."""
    return VIEWS if settings.views == "auto" else () if settings.views == "none" else tuple(dict.fromkeys(settings.views.split(",")))


def is_named(settings: EnsembleSettings) -> bool:
    """Whether the command names the views that are taken."""
    return settings.views not in ("auto", "none")
