"""The words of the generated challenge: captions and part descriptions.

A caption does not state everything. It has the content that it states in structured form, so that a
perfect reader can be computed: `is_consistent` says whether a caption may be about a scene.
"""

from dataclasses import dataclass

import numpy as np

from motret.skeleton import PARTS
from motret.synthetic.motion import Act, Scene

# Probability that a caption states ...
P_OTHER = 0.25  # the acts of the other person
P_BOTH = 0.8  # that both do the same
P_NEXT = 0.45  # both acts of a person
P_RELATION = 0.15  # how the two stand
P_SIDE = 0.4
P_SPEED = 0.15  # where it is not normal
P_COUNT = 0.2  # the number of times

PHRASES = {
    "wave": ("waves", "waves with the {side} hand", "waves a hand", "waves the {side} hand"),
    "raise": (
        "raises an arm",
        "raises the {side} arm",
        "lifts an arm up",
        "lifts the {side} arm up",
    ),
    "point": (
        "points forward",
        "points forward with the {side} hand",
        "points ahead",
        "points ahead with the {side} arm",
    ),
    "punch": (
        "punches",
        "punches with the {side} hand",
        "throws a punch",
        "throws a punch with the {side} fist",
    ),
    "clap": ("claps", "claps the hands", "applauds"),
    "circles": ("circles both arms", "swings the arms in circles", "spins the arms"),
    "head": ("puts the hands on the head", "holds the head with both hands"),
    "hips": ("puts the hands on the hips", "rests the hands on the waist"),
    "stretch": ("stretches both arms up", "stretches upward", "reaches up with both arms"),
    "kick": (
        "kicks",
        "kicks with the {side} leg",
        "kicks forward",
        "kicks forward with the {side} foot",
    ),
    "knee": ("raises a knee", "raises the {side} knee", "lifts a knee", "lifts the {side} knee"),
    "squat": ("squats", "squats down", "does a squat"),
    "jump": ("jumps", "jumps up", "hops up"),
    "march": ("marches in place", "marches on the spot"),
    "bow": ("bows", "bows down", "bends forward"),
    "lean": ("leans sideways", "leans to the {side}", "bends sideways", "bends to the {side}"),
    "twist": ("twists the torso", "twists the upper body"),
    "walk_forward": ("walks forward", "walks ahead", "steps forward"),
    "walk_backward": ("walks backward", "steps backward", "backs away"),
    "sidestep": (
        "steps sideways",
        "steps sideways to the {side}",
        "sidesteps",
        "sidesteps to the {side}",
    ),
    "turn": (
        "turns around",
        "turns around to the {side}",
        "turns round",
        "turns round to the {side}",
    ),
    "stand": ("stands still", "does nothing", "keeps still"),
}
"""What one person does, for each action.

Of an action with a side, each phrase without the side is followed by one with it.
"""

SPEED_WORDS = {"slow": "slowly", "fast": "quickly"}
COUNT_WORDS = {1: ("once",), 2: ("twice", "two times"), 3: ("three times",)}
RELATION_WORDS = {
    "facing": ("facing each other", "face to face"),
    "side": ("side by side", "next to each other"),
    "back": ("back to back", "with their backs to each other"),
    "behind": ("one behind the other", "in a line"),
    "apart": ("far apart", "far away from each other"),
}
ONE = ("one person {}", "a person {}", "someone {}")
PAIR = (
    "one person {} while the other {}",
    "a person {} and the other person {}",
    "someone {} while the other one {}",
)
BOTH = ("both people {}", "two people {}", "the two people both {}")
NEXT = ("{} and then {}", "{}, then {}", "{} and after that {}")
PLACEMENT = ("two people are {1}, {0}", "{0}, the two are {1}", "{1}, {0}")

PART_WORDS = {
    "wave": {"arm": "waves with the hand up"},
    "raise": {"arm": "is raised high"},
    "point": {"arm": "points forward"},
    "punch": {
        "arm": "punches forward",
        "other_arm": "stays bent in guard",
        "torso": "twists a little with the punch",
    },
    "clap": {"arms": "claps before the chest"},
    "circles": {"arms": "swings in circles"},
    "head": {"arms": "is bent with the hand on the head"},
    "hips": {"arms": "is bent with the hand on the hip"},
    "stretch": {"arms": "stretches up", "torso": "stretches upright"},
    "kick": {"leg": "kicks forward", "other_leg": "carries the body"},
    "knee": {"leg": "is lifted with the knee bent", "other_leg": "carries the body"},
    "squat": {"arms": "reaches forward", "legs": "bends deeply", "torso": "sinks down"},
    "jump": {"arms": "swings up", "legs": "bends and jumps", "torso": "goes up and down"},
    "march": {"arms": "swings", "legs": "is lifted again and again"},
    "bow": {"torso": "bends forward"},
    "lean": {"torso": "leans to the {side}"},
    "twist": {"arms": "swings with the body", "torso": "twists left and right"},
    "walk_forward": {"arms": "swings", "legs": "steps forward", "torso": "moves forward"},
    "walk_backward": {"arms": "swings", "legs": "steps backward", "torso": "moves backward"},
    "sidestep": {
        "leg": "steps sideways",
        "other_leg": "follows sideways",
        "torso": "moves to the {side}",
    },
    "turn": {"legs": "steps around", "torso": "turns around to the {side}"},
    "stand": {},
}
"""What the parts of the body do in each action.

arms, legs: each of them; arm, leg: that of the action's side; other_arm, other_leg: the other one.
"""


@dataclass(frozen=True)
class Mention:
    """What a caption states of an act; None where it states nothing."""

    action: str
    side: str | None = None
    speed: str | None = None
    count: int | None = None

    def fits(self, act: Act) -> bool:
        """Whether the act is as stated."""
        details = ((self.side, act.side), (self.speed, act.speed), (self.count, act.count))
        return self.action == act.action and all(
            stated is None or stated == actual for stated, actual in details
        )


@dataclass(frozen=True)
class Content:
    """What a caption states of a scene.

    persons: the mentioned acts of one or two persons, in order; both: whether the acts of the first
    hold for both persons; relation: how the two stand, None where it is not stated.
    """

    persons: tuple[tuple[Mention, ...], ...]
    both: bool = False
    relation: str | None = None


@dataclass(frozen=True)
class Caption:
    """A caption and what it states."""

    text: str
    content: Content


# ---- truth


def is_consistent(content: Content, scene: Scene) -> bool:
    """Whether all that is stated is true of the scene, whichever of its persons is meant."""
    if content.relation not in (None, scene.relation):
        return False
    true_of = [[_are_done(mentions, acts) for acts in scene.actors] for mentions in content.persons]
    if content.both:
        return all(true_of[0])
    if len(true_of) == 2:
        first, second = true_of
        return (first[0] and second[1]) or (first[1] and second[0])
    return all(any(actors) for actors in true_of)


def _are_done(mentions: tuple[Mention, ...], acts: tuple[Act, ...]) -> bool:
    """Whether a person who does these acts does what is mentioned, in this order."""
    remaining = iter(acts)
    return all(any(mention.fits(act) for act in remaining) for mention in mentions)


# ---- drawing what a caption states


def draw_content(scene: Scene, rng: np.random.Generator) -> Content:
    """Random content that is true of a scene; it never states only that a person stands still."""
    relation = scene.relation if rng.random() < P_RELATION else None
    first, second = (scene.actors[int(index)] for index in rng.permutation(2))
    if first == second:
        return Content((_draw_mentions(first, rng),), bool(rng.random() < P_BOTH), relation)
    if first == (Act("stand"),):
        first, second = second, first
    mentioned = (first, second) if rng.random() < P_OTHER else (first,)
    return Content(tuple(_draw_mentions(acts, rng) for acts in mentioned), relation=relation)


def _draw_mentions(acts: tuple[Act, ...], rng: np.random.Generator) -> tuple[Mention, ...]:
    """What a caption states of a person: all the acts, or one of them."""
    if len(acts) > 1 and rng.random() >= P_NEXT:
        acts = (acts[int(rng.integers(len(acts)))],)
    return tuple(_draw_mention(act, rng) for act in acts)


def _draw_mention(act: Act, rng: np.random.Generator) -> Mention:
    """What a caption states of an act: always the action, sometimes how it is done."""
    side, speed, count = rng.random(3) < (P_SIDE, P_SPEED, P_COUNT)
    return Mention(
        act.action,
        act.side if side else None,
        act.speed if speed and act.speed in SPEED_WORDS else None,
        act.count if count else None,
    )


# ---- words


def draw_captions(scene: Scene, rng: np.random.Generator, count: int = 3) -> tuple[Caption, ...]:
    """`count` random captions of a scene, each with other words."""
    captions: dict[str, Caption] = {}
    while len(captions) < count:
        content = draw_content(scene, rng)
        text = _write_sentence(content, rng)
        captions.setdefault(text, Caption(text, content))
    return tuple(captions.values())


def _write_sentence(content: Content, rng: np.random.Generator) -> str:
    """A sentence that states the content."""
    forms = BOTH if content.both else ONE if len(content.persons) == 1 else PAIR
    form = _pick(forms, rng)
    text = form.format(*(_write_clause(acts, content.both, rng) for acts in content.persons))
    if content.relation:
        form = _pick(PLACEMENT, rng)
        text = form.format(text, _pick(RELATION_WORDS[content.relation], rng))
    return f"{text}."


def _write_clause(mentions: tuple[Mention, ...], is_plural: bool, rng: np.random.Generator) -> str:
    """The words for all that is stated of a person, or of several."""
    phrases = [_write_phrase(mention, is_plural, rng) for mention in mentions]
    return _pick(NEXT, rng).format(*phrases) if len(phrases) == 2 else phrases[0]


def _write_phrase(mention: Mention, is_plural: bool, rng: np.random.Generator) -> str:
    """The words for a mention, of one person or of several."""
    options = PHRASES[mention.action]
    if any("{side}" in option for option in options):
        options = options[1::2] if mention.side else options[::2]
    words = _pick(options, rng).format(side=mention.side)
    words = plural(words) if is_plural else words
    words = f"{SPEED_WORDS[mention.speed]} {words}" if mention.speed else words
    return f"{words} {_pick(COUNT_WORDS[mention.count], rng)}" if mention.count else words


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of the options, all with the same probability."""
    return options[int(rng.integers(len(options)))]


def plural(phrase: str) -> str:
    """A phrase for several people from that for one: "waves a hand" becomes "wave a hand"."""
    verb, _, rest = phrase.partition(" ")
    verb = verb[:-2] if verb.endswith(("ches", "oes")) else verb[:-1]
    return f"{verb} {rest}".strip()


# ---- part descriptions


def describe_parts(scene: Scene) -> dict[str, str]:
    """What each part does in both persons; "undefined" where it does nothing of note."""
    return {part: _describe_part(part, scene) or "undefined" for part in PARTS}


def _describe_part(part: str, scene: Scene) -> str:
    name = part.replace("_", " ")
    texts = [text for acts in scene.actors if (text := _part_of_person(part, acts))]
    if len(texts) == 2 and texts[0] == texts[1]:
        return f"the {name} of both people {texts[0]}"
    persons = ("one person", "the other")
    return "; ".join(
        f"the {name} of {person} {text}" for person, text in zip(persons, texts, strict=False)
    )


def _part_of_person(part: str, acts: tuple[Act, ...]) -> str:
    """What one person's part does, or "" where it does nothing of note."""
    side, _, limb = part.partition("_")  # the torso has no side

    def part_in_act(act: Act) -> str:
        words = PART_WORDS[act.action]
        of_side = words.get(limb if side == act.side else f"other_{limb}", "")
        return (words.get(part) or words.get(f"{limb}s") or of_side).format(side=act.side)

    return ", then ".join(filter(None, map(part_in_act, acts)))
