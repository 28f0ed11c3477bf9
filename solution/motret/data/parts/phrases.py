"""What the sums of a motion say in words: a short statement for an arm, a leg or the torso of one person.

Each rule looks for one thing and says it, or says nothing; all numbers that decide about words stand in `LIMITS` and `SWING`.
"""

from dataclasses import dataclass

from motret.data.parts.signals import SignalStats, SignalStatsByName


@dataclass(frozen=True)
class Limits:
    """Where one word ends and the next begins."""

    shortest: float = 0.3  # s: nothing is said of shorter motions
    half_window: float = 0.04  # s: positions are averaged over twice as much
    bone: float = 0.01  # m: a bone shorter than this is not there
    # arms
    still_hand: float = 0.35  # m/s against the pelvis: a hand that is never faster is still
    slight_hand: float = 1.0  # m/s: faster ones move, slower ones stay almost still
    slow_hand: float = 1.8  # m/s: fastest of a hand that is raised or reaches "slowly"
    quick_hand: float = 4.5  # m/s: "quickly"
    above_head: float = 0.12  # m over the head joint
    head_height: float = -0.05  # m over the head joint
    shoulder_height: float = -0.14  # m over the shoulder joint
    gesture_height: float = -0.2  # m over the shoulder joint: hands that wave or punch are higher
    chest_height: float = -0.4  # m over the shoulder joint: hands that clap are higher
    punch_height: float = 0.2  # m over the shoulder joint: hands that punch are lower
    punch_speed: float = 1.5  # m/s
    one_punch_speed: float = 3.0  # m/s: a hand that goes forward once and no faster only reaches
    circle: float = 0.8  # turns of the hand about the shoulder
    touch: float = 0.24  # m between wrist and head or hip
    touch_elbow: float = 70.0  # degrees: an arm whose hand is at the head or the hip is at least so bent
    reach: float = 0.33  # m of the hand before the shoulder
    behind: float = 0.0  # m of the hand before the shoulder: a hand that swings gets further back
    low_hand: float = 0.35  # m over the floor
    bent_elbow: float = 55.0  # degrees
    # legs
    planted: float = 0.3  # m/s over the ground: a foot that is never faster stays planted
    kick_speed: float = 2.2  # m/s of the ankle against the hip
    kick_height: float = 0.28  # m of the ankle over its lowest
    high_kick: float = 0.8  # m
    kick_knee: float = 48.0  # degrees: a kicking leg is straighter
    lifted_thigh: float = 55.0  # degrees from hanging
    lifted_foot: float = 0.15  # m of the ankle over its lowest
    stride: float = 0.25  # m a foot goes in all, to step anywhere
    bent_knee: float = 50.0  # degrees
    deep_knee: float = 75.0  # degrees
    # torso
    slow_walk: float = 0.75  # m/s
    quick_walk: float = 1.5  # m/s
    run: float = 1.9  # m/s
    aslant: float = 0.4  # of the longer leg of a way, the shorter is said too
    short_way: float = 0.8  # m
    look_round: float = 45.0  # degrees of a turn to one side and back
    slight_turn: float = 60.0  # degrees
    quarter_turn: float = 135.0  # degrees
    half_turn: float = 250.0  # degrees
    slight_crouch: float = 0.2  # m the hips are lower than on straight legs
    deep_crouch: float = 0.38  # m
    jump: float = 0.05  # m the hips get higher than on straight legs
    lying: float = 0.45  # m of the neck over the floor
    lean: float = 15.0  # degrees
    bend: float = 35.0  # degrees
    deep_bend: float = 65.0  # degrees
    still_body: float = 0.25  # m/s of the neck


LIMITS = Limits()

SWING = {
    "up": 0.3, "front": 0.2, "wave": 0.07, "thrust": 0.13, "apart": 0.14, "elbow": 38.0,
    "thigh": 38.0, "knee": 38.0, "lift": 0.05, "stride": 0.17,
    "forward": 0.4, "left": 0.4, "turned": 32.0, "pitch": 22.0, "roll": 13.0, "twist": 26.0, "crouch": 0.14, "air": 0.09,
}  # fmt: skip
"""How far a signal of `signals` goes, in its unit, before it has gone up or down once."""

TIMES = ("", "once", "twice", "three times", "four times", "five times")


def _times(number: int, one: str = "") -> str:
    """How often, with a space before it; once only where `one` says so."""
    words = one if number == 1 else TIMES[number] if number < len(TIMES) else "repeatedly"
    return f" {words}" if words else ""


def _pace(fastest: float, slow: float, quick: float) -> str:
    """A space and "slowly" or "quickly", or nothing."""
    return " slowly" if fastest < slow else " quickly" if fastest > quick else ""


def _there_and_back(signal: SignalStats, there: str, back: str) -> str:
    """A verb for each way that a signal went, and how often."""
    if signal.rises and signal.falls:
        return f"{there} and {back}{_times(signal.moves)}"
    return there if signal.rises else back if signal.falls else ""


# ---- arms


def arm(sums: SignalStatsByName, _: SignalStatsByName) -> str:
    """What an arm does: the first statement that holds."""
    rules = (_circle, _clap, _wave, _touch_head, _punch, _raise, _reach_down, _swing, _touch_hip, _reach, _bend_elbow)
    return next(filter(None, (rule(sums) for rule in rules)), None) or _hang(sums)


def _circle(arm: SignalStatsByName) -> str:
    circle = arm["circle"]
    back, ahead = circle.high - circle.first, circle.first - circle.low
    turns = max(back, ahead)
    return f"circles {'backward' if back > ahead else 'forward'}{_times(round(turns))}" if turns > LIMITS.circle else ""


def _clap(arm: SignalStatsByName) -> str:
    claps = arm["apart"].falls >= 2 and arm["head"].high < LIMITS.above_head  # hands that wave over the head meet too
    return f"claps{_times(arm['apart'].falls)}" if claps else ""


def _wave(arm: SignalStatsByName) -> str:
    wave, height = arm["wave"], _height(arm)
    return f"is raised {height} and waves from side to side{_times(wave.moves)}" if height and wave.waves >= 2 else ""


def _touch_head(arm: SignalStatsByName) -> str:
    near = arm["to_head"].low < LIMITS.touch and arm["head"].high < LIMITS.above_head
    return "is bent with the hand at the head" if near else ""


def _touch_hip(arm: SignalStatsByName) -> str:
    return "is bent with the hand at the hip" if arm["to_hip"].low < LIMITS.touch else ""


def _punch(arm: SignalStatsByName) -> str:
    """Counts how often the hand is far from the shoulder, be it at the start."""
    thrust = arm["thrust"]
    level = arm["up"].high < LIMITS.punch_height and arm["elbow_when_front"].high < LIMITS.bent_elbow
    from_far = thrust.rises == thrust.falls and thrust.high - thrust.first < thrust.first - thrust.low
    punches = thrust.moves + from_far
    quick = arm["speed"].high > (LIMITS.punch_speed if punches > 1 else LIMITS.one_punch_speed)
    if not (level and quick and thrust.moves and arm["elbow"].moves):
        return ""
    return f"punches forward{_times(punches, 'once')}"


def _raise(arm: SignalStatsByName) -> str:
    up, height = arm["up"], _height(arm)
    if not height:
        return ""
    if height != "above the head":
        height += " to the front" if arm["front_when_up"].high > arm["out_when_up"].high else " to the side"
    bent = " with the elbow bent" if arm["elbow_when_up"].high > LIMITS.bent_elbow else ""
    pace = _pace(arm["speed"].high, LIMITS.slow_hand, LIMITS.quick_hand)
    if up.rises:
        return f"is{pace} raised {height}{bent}{_times(up.rises)}{' and lowered again' if up.falls else ''}"
    place = height.removeprefix("to ")
    return f"is{pace} lowered from {place}" if up.falls else f"is held {'' if height == place else 'at '}{place}{bent}"


def _height(arm: SignalStatsByName) -> str:
    """How high the hand gets, "" where it stays below the shoulder."""
    if arm["head"].high > LIMITS.above_head:
        return "above the head"
    if arm["head"].high > LIMITS.head_height:
        return "to head height"
    return "to shoulder height" if arm["up"].high > LIMITS.shoulder_height else ""


def _reach_down(arm: SignalStatsByName) -> str:
    return "reaches down to the floor" if arm["floor"].low < LIMITS.low_hand else ""


def _swing(arm: SignalStatsByName) -> str:
    swings = arm["front"].moves >= 2 and arm["front"].low < LIMITS.behind
    return f"swings forward and back{_bent(arm)}" if swings else ""


def _reach(arm: SignalStatsByName) -> str:
    front = arm["front"]
    if front.high < LIMITS.reach or not front.moves:
        return ""
    return f"reaches forward{_pace(arm['speed'].high, LIMITS.slow_hand, LIMITS.quick_hand)}{_times(front.rises)}"


def _bend_elbow(arm: SignalStatsByName) -> str:
    return _there_and_back(arm["elbow"], "bends", "straightens")


def _hang(arm: SignalStatsByName) -> str:
    if arm["speed"].high > LIMITS.slight_hand:
        return f"moves a little{_bent(arm)}"
    return f"stays {'still' if arm['speed'].high < LIMITS.still_hand else 'almost still'}{_bent(arm) or ' at the side'}"


def _bent(arm: SignalStatsByName) -> str:
    return " with the elbow bent" if (arm["elbow"].low + arm["elbow"].high) / 2 > LIMITS.bent_elbow else ""


# ---- legs


def leg(sums: SignalStatsByName, trunk: SignalStatsByName) -> str:
    """What a leg does: a kick, and the first other statement that holds."""
    kick, on_the_spot = _kick(sums), not _way(trunk, SWING["forward"])
    lift = "" if kick else _lift(sums)
    other = _push_off(trunk) or (on_the_spot and lift) or _step(sums, trunk) or (not kick and _step_on_the_spot(sums)) or _bend_knee(sums)
    said = [kick, "" if kick and on_the_spot else other]
    still = "stays planted" if sums["pace"].high < LIMITS.planted else "shifts a little"
    return " and ".join(filter(None, said)) or still


def _kick(leg: SignalStatsByName) -> str:
    straight = leg["knee_when_front"].high < LIMITS.kick_knee and leg["speed"].high > LIMITS.kick_speed
    if not (leg["thigh"].rises and straight and leg["lift_when_front"].high > LIMITS.kick_height):
        return ""
    return f"kicks forward{' high' if leg['lift'].high > LIMITS.high_kick else ''}{_times(leg['thigh'].rises, 'once')}"


def _push_off(trunk: SignalStatsByName) -> str:
    return f"pushes off and lands{_times(trunk['air'].waves, 'once')}" if _jumps(trunk) else ""


def _step(leg: SignalStatsByName, trunk: SignalStatsByName) -> str:
    """Where the foot goes, and in how many steps; a foot that only comes back to its place does not step."""
    if _turn(trunk) and not _way(trunk, SWING["forward"]):
        return f"steps around{_times(leg['lift'].rises)}" if leg["lift"].rises else ""
    where = _way(leg, LIMITS.stride)
    steps = {"forward": leg["stride"].rises, "backward": leg["stride"].falls}.get(where.partition(" ")[0], 0) or leg["lift"].rises
    verb = "runs" if trunk["ground"].high > LIMITS.run else "steps"
    return f"{verb} {where}{_times(steps, 'once')}" if where and steps else ""


def _lift(leg: SignalStatsByName) -> str:
    lifted = leg["thigh"].high > LIMITS.lifted_thigh and leg["thigh"].rises and leg["lift_when_front"].high > LIMITS.lifted_foot
    return f"lifts the knee{_times(leg['thigh'].rises, 'once')}" if lifted else ""


def _step_on_the_spot(leg: SignalStatsByName) -> str:
    return f"steps on the spot{_times(leg['lift'].rises)}" if leg["lift"].rises >= 2 else ""


def _bend_knee(leg: SignalStatsByName) -> str:
    deep = " deeply" if leg["knee"].high > LIMITS.deep_knee else ""
    held = f"stays bent{deep}" if leg["knee"].low > LIMITS.bent_knee else ""
    return _there_and_back(leg["knee"], f"bends{deep}", "straightens") or held


# ---- torso


def torso(trunk: SignalStatsByName, _: SignalStatsByName) -> str:
    """What the body does as a whole and how it is held: the first three statements that hold."""
    rules = (_walk, _turn, _jump, _crouch, _bend, _lean, _twist)
    said = [text for text in (rule(trunk) for rule in rules) if text]
    still = "stays still" if trunk["speed"].high < LIMITS.still_body else "stays upright"
    return ", ".join(said[:3]) or still


def _walk(trunk: SignalStatsByName) -> str:
    where, fastest = _way(trunk, SWING["forward"]), trunk["ground"].high
    if not where:
        return ""
    if fastest > LIMITS.run:
        return f"runs {where}"
    short = max(trunk["forward"].span, trunk["left"].span) < LIMITS.short_way
    return f"walks {where}{' a little' if short else _pace(fastest, LIMITS.slow_walk, LIMITS.quick_walk)}"


def _way(sums: SignalStatsByName, least: float) -> str:
    """Where a body or a foot ends up, seen from where it began, "" nearer than `least` metres."""
    forward, left = (sums[name].last - sums[name].first for name in ("forward", "left"))
    near, far = sorted((abs(forward), abs(left)))
    if far < least:
        return ""
    ahead, aside = "forward" if forward > 0 else "backward", f"to the {'left' if left > 0 else 'right'}"
    if near > far * LIMITS.aslant:
        return f"{ahead} and {aside}"
    return ahead if abs(forward) == far else aside


def _turn(trunk: SignalStatsByName) -> str:
    turned = trunk["turned"]
    way = turned.last - turned.first
    if not turned.moves or _twist(trunk):
        return ""
    if abs(way) < SWING["turned"]:
        return "" if _walk(trunk) or turned.span < LIMITS.look_round else "turns to one side and back"
    sizes = ((LIMITS.slight_turn, " slightly"), (LIMITS.quarter_turn, ""), (LIMITS.half_turn, " half around"))
    size = next((words for limit, words in sizes if abs(way) < limit), " all around")
    return f"turns{size} to the {'left' if way > 0 else 'right'}"


def _jumps(trunk: SignalStatsByName) -> bool:
    in_air = trunk["air"].waves > 0 and trunk["crouch"].low < -LIMITS.jump
    return in_air and trunk["ground"].high < LIMITS.run


def _jump(trunk: SignalStatsByName) -> str:
    return f"jumps{_times(trunk['air'].waves, 'once')}" if _jumps(trunk) else ""


def _crouch(trunk: SignalStatsByName) -> str:
    crouch = trunk["crouch"]
    if crouch.rises and trunk["neck"].low < LIMITS.lying:
        return "goes down to the floor"
    if _jumps(trunk) or (_walk(trunk) and crouch.high < LIMITS.slight_crouch):
        return ""
    deep = " deeply" if crouch.high > LIMITS.deep_crouch else " slightly" if crouch.high < LIMITS.slight_crouch else ""
    return _there_and_back(crouch, f"crouches{deep}", "rises")


def _bend(trunk: SignalStatsByName) -> str:
    pitch = trunk["pitch"]
    if pitch.high < LIMITS.bend:
        return ""
    deep = " deeply" if pitch.high > LIMITS.deep_bend else ""
    return _there_and_back(pitch, f"bends forward{deep}", "straightens up") or f"stays bent forward{deep}"


def _lean(trunk: SignalStatsByName) -> str:
    """Which way the trunk is off the upright most, where it does not bend."""
    pitch, roll = trunk["pitch"], trunk["roll"]
    forward = pitch.high if pitch.high < LIMITS.bend else 0.0
    leans = {"forward": forward, "backward": -pitch.low, "to the left": roll.high, "to the right": -roll.low}
    main = max(leans, key=leans.__getitem__)
    return f"leans {main}" if leans[main] > LIMITS.lean else ""


def _twist(trunk: SignalStatsByName) -> str:
    return f"twists to both sides{_times(trunk['twist'].waves)}" if trunk["twist"].waves >= 2 and not _walk(trunk) else ""
