"""The words of the generated challenge: captions that leave things unsaid, what each of them states, and part descriptions.

A caption keeps the structured content it states, so that a reader who understands every word can be computed: `consistent`
tells whether a scene could be the one a caption speaks of.
"""

from dataclasses import dataclass

import numpy as np

from motret.skeleton import PARTS
from motret.synthetic.motion import Act, Scene

SAY_OTHER, SAY_BOTH, SAY_NEXT, SAY_RELATION = 0.25, 0.8, 0.45, 0.15
"""How often a caption tells of the other person, says that both do the same, tells of both things a person does, how they stand."""
SAY_SIDE, SAY_SPEED, SAY_COUNT = 0.4, 0.15, 0.2
"""How often a caption tells with which side, how fast (where that is not normal) and how many times."""

PHRASES = {
    "wave": ("waves", "waves with the {side} hand", "waves a hand", "waves the {side} hand"),
    "raise": ("raises an arm", "raises the {side} arm", "lifts an arm up", "lifts the {side} arm up"),
    "point": ("points forward", "points forward with the {side} hand", "points ahead", "points ahead with the {side} arm"),
    "punch": ("punches", "punches with the {side} hand", "throws a punch", "throws a punch with the {side} fist"),
    "clap": ("claps", "claps the hands", "applauds"),
    "circles": ("circles both arms", "swings the arms in circles", "spins the arms"),
    "head": ("puts the hands on the head", "holds the head with both hands"),
    "hips": ("puts the hands on the hips", "rests the hands on the waist"),
    "stretch": ("stretches both arms up", "stretches upward", "reaches up with both arms"),
    "kick": ("kicks", "kicks with the {side} leg", "kicks forward", "kicks forward with the {side} foot"),
    "knee": ("raises a knee", "raises the {side} knee", "lifts a knee", "lifts the {side} knee"),
    "squat": ("squats", "squats down", "does a squat"),
    "jump": ("jumps", "jumps up", "hops up"),
    "march": ("marches in place", "marches on the spot"),
    "bow": ("bows", "bows down", "bends forward"),
    "lean": ("leans sideways", "leans to the {side}", "bends sideways", "bends to the {side}"),
    "twist": ("twists the torso", "twists the upper body"),
    "walk_forward": ("walks forward", "walks ahead", "steps forward"),
    "walk_backward": ("walks backward", "steps backward", "backs away"),
    "sidestep": ("steps sideways", "steps sideways to the {side}", "sidesteps", "sidesteps to the {side}"),
    "turn": ("turns around", "turns around to the {side}", "turns round", "turns round to the {side}"),
    "stand": ("stands still", "does nothing", "keeps still"),
}
"""Of each action what one person does; where an action has a side, each phrase is followed by the one that says it."""

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
PAIR = ("one person {} while the other {}", "a person {} and the other person {}", "someone {} while the other one {}")
BOTH = ("both people {}", "two people {}", "the two people both {}")
NEXT = ("{} and then {}", "{}, then {}", "{} and after that {}")
PLACE = ("two people are {1}, {0}", "{0}, the two are {1}", "{1}, {0}")

PART_WORDS = {
    "wave": {"arm": "waves with the hand up"},
    "raise": {"arm": "is raised high"},
    "point": {"arm": "points forward"},
    "punch": {"arm": "punches forward", "other_arm": "stays bent in guard", "torso": "twists a little with the punch"},
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
    "sidestep": {"leg": "steps sideways", "other_leg": "follows sideways", "torso": "moves to the {side}"},
    "turn": {"legs": "steps around", "torso": "turns around to the {side}"},
    "stand": {},
}
"""What an action does to the parts of the body: to each arm or leg (arms, legs), or to that of its side and to the other; to the torso."""


@dataclass(frozen=True)
class Mention:
    """What a caption states of an act; None is unsaid."""

    action: str
    side: str | None = None
    speed: str | None = None
    count: int | None = None

    def fits(self, act: Act) -> bool:
        """Whether the act is as stated."""
        said = ((self.side, act.side), (self.speed, act.speed), (self.count, act.count))
        return self.action == act.action and all(told is None or told == true for told, true in said)


@dataclass(frozen=True)
class Content:
    """What a caption states: of up to two persons the acts in their order, whether the first of these holds for both, the relation."""

    persons: tuple[tuple[Mention, ...], ...]
    both: bool = False
    relation: str | None = None


@dataclass(frozen=True)
class Caption:
    """A caption and what it states."""

    text: str
    content: Content


def does(mentions: tuple[Mention, ...], acts: tuple[Act, ...]) -> bool:
    """Whether a person who does these acts does what is mentioned, in this order, whatever else besides."""
    left = iter(acts)
    return all(any(mention.fits(act) for act in left) for mention in mentions)


def consistent(content: Content, scene: Scene) -> bool:
    """Whether everything stated is true of the scene, whichever of its persons is meant; what is unsaid may be anything."""
    if content.relation not in (None, scene.relation):
        return False
    true = [[does(mentions, acts) for acts in scene.actors] for mentions in content.persons]
    if content.both:
        return all(true[0])
    if len(true) == 2:
        return (true[0][0] and true[1][1]) or (true[0][1] and true[1][0])
    return all(any(of_actor) for of_actor in true)


def pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of the options, all alike likely."""
    return options[int(rng.integers(len(options)))]


def plural(phrase: str) -> str:
    """What several people do, from what one does: "waves a hand" becomes "wave a hand"."""
    verb, _, rest = phrase.partition(" ")
    verb = verb[:-2] if verb.endswith(("ches", "oes")) else verb[:-1]
    return f"{verb} {rest}".strip()


def mention(act: Act, rng: np.random.Generator) -> Mention:
    """What a caption states of this act: always the action, now and then how it is done."""
    side, speed, count = rng.random(3) < (SAY_SIDE, SAY_SPEED, SAY_COUNT)
    return Mention(
        act.action, act.side if side else None, act.speed if speed and act.speed in SPEED_WORDS else None, act.count if count else None
    )


def phrase(told: Mention, many: bool, rng: np.random.Generator) -> str:
    """The words for a mention, of one person or of several."""
    options = PHRASES[told.action]
    if any("{side}" in option for option in options):
        options = options[1::2] if told.side else options[::2]
    words = pick(options, rng).format(side=told.side)
    words = plural(words) if many else words
    words = f"{SPEED_WORDS[told.speed]} {words}" if told.speed else words
    return f"{words} {pick(COUNT_WORDS[told.count], rng)}" if told.count else words


def choose(acts: tuple[Act, ...], rng: np.random.Generator) -> tuple[Mention, ...]:
    """What a caption states of a person: all the acts, or one of them."""
    if len(acts) > 1 and rng.random() >= SAY_NEXT:
        acts = (acts[int(rng.integers(len(acts)))],)
    return tuple(mention(act, rng) for act in acts)


def clause(mentions: tuple[Mention, ...], many: bool, rng: np.random.Generator) -> str:
    """The words for all that is stated of a person."""
    words = [phrase(told, many, rng) for told in mentions]
    return pick(NEXT, rng).format(*words) if len(words) == 2 else words[0]


def draw_content(scene: Scene, rng: np.random.Generator) -> Content:
    """What a caption of this scene states; that a person stands still is never all of it."""
    relation = scene.relation if rng.random() < SAY_RELATION else None
    first, second = (scene.actors[int(index)] for index in rng.permutation(2))
    if first == second:
        return Content((choose(first, rng),), bool(rng.random() < SAY_BOTH), relation)
    if first == (Act("stand"),):
        first, second = second, first
    told = (first, second) if rng.random() < SAY_OTHER else (first,)
    return Content(tuple(choose(acts, rng) for acts in told), relation=relation)


def wording(content: Content, rng: np.random.Generator) -> str:
    """A sentence that states the content."""
    form = BOTH if content.both else ONE if len(content.persons) == 1 else PAIR
    text = pick(form, rng).format(*(clause(mentions, content.both, rng) for mentions in content.persons))
    if content.relation:
        text = pick(PLACE, rng).format(text, pick(RELATION_WORDS[content.relation], rng))
    return f"{text}."


def draw_captions(scene: Scene, rng: np.random.Generator, count: int = 3) -> tuple[Caption, ...]:
    """`count` captions of a scene, no two with the same words."""
    captions: dict[str, Caption] = {}
    while len(captions) < count:
        content = draw_content(scene, rng)
        text = wording(content, rng)
        captions.setdefault(text, Caption(text, content))
    return tuple(captions.values())


def part_of_actor(part: str, acts: tuple[Act, ...]) -> str:
    """What one person's part of the body does, or "" where it does nothing of note."""
    side, _, limb = part.partition("_")  # the torso has no side

    def of_act(act: Act) -> str:
        words = PART_WORDS[act.action]
        own = limb if side == act.side else f"other_{limb}"
        return (words.get(part) or words.get(f"{limb}s") or words.get(own, "")).format(side=act.side)

    return ", then ".join(filter(None, map(of_act, acts)))


def describe_parts(scene: Scene) -> dict[str, str]:
    """For each of the five parts what it does in both persons, or "undefined" where it does nothing of note in either."""

    def describe(part: str) -> str:
        name = part.replace("_", " ")
        done = [words for acts in scene.actors if (words := part_of_actor(part, acts))]
        if len(done) == 2 and done[0] == done[1]:
            return f"the {name} of both people {done[0]}"
        return (
            "; ".join(f"the {name} of {who} {words}" for who, words in zip(("one person", "the other"), done, strict=False)) or "undefined"
        )

    return {part: describe(part) for part in PARTS}
