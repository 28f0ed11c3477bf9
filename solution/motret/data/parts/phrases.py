"""What the statistics of a motion say in words: a short statement for an arm, a leg or the torso of
one person.

Each rule looks for one thing and states it, or gives "". All numbers that decide about words are in
`LIMITS` and `MIN_AMPLITUDE`.
"""

from dataclasses import dataclass

from motret.data.parts.signals import SignalStats, SignalStatsByName


@dataclass(frozen=True)
class Limits:
    """Where one word ends and the next begins."""

    shortest: float = 0.3  # s: shorter motions get no text
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
    one_punch_speed: float = 3.0  # m/s: a hand that goes forward once, but slower, only reaches
    circle: float = 0.8  # turns of the hand about the shoulder
    touch: float = 0.24  # m between wrist and head or hip
    touch_elbow: float = 70.0  # degrees: an arm with its hand at head or hip is at least so bent
    reach: float = 0.33  # m of the hand before the shoulder
    behind: float = 0.0  # m of the hand before the shoulder: hands that swing get further back
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
    aslant: float = 0.4  # of the longer leg of a way, from which on the shorter is named too
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

MIN_AMPLITUDE = {
    "up": 0.3, "front": 0.2, "wave": 0.07, "thrust": 0.13, "apart": 0.14, "elbow": 38.0,
    "thigh": 38.0, "knee": 38.0, "lift": 0.05, "stride": 0.17,
    "forward": 0.4, "left": 0.4, "turned": 32.0, "pitch": 22.0, "roll": 13.0, "twist": 26.0,
    "crouch": 0.14, "air": 0.09,
}  # fmt: skip
"""How far a signal of `signals` goes, in its unit, before it has gone up or down once."""

TIMES = ("", "once", "twice", "three times", "four times", "five times")


def _times(count: int, one: str = "") -> str:
    """How often, with a space before it; `one` is what is said of a single time."""
    words = [*TIMES, "repeatedly"][min(count, len(TIMES))] if count != 1 else one
    return f" {words}" if words else ""


def _speed_word(fastest: float, slow: float, quick: float) -> str:
    """A space and "slowly" or "quickly", or nothing."""
    if fastest < slow:
        return " slowly"
    return " quickly" if fastest > quick else ""


def _rise_and_fall(signal: SignalStats, rise: str, fall: str) -> str:
    """A verb for each way that a signal went, and how often."""
    if signal.rises and signal.falls:
        return f"{rise} and {fall}{_times(signal.moves)}"
    if signal.rises:
        return rise
    return fall if signal.falls else ""


# ---- arms


def describe_arm(arm: SignalStatsByName, _: SignalStatsByName) -> str:
    """What an arm does: the first statement that holds."""
    rules = (
        _circle,
        _clap,
        _wave,
        _touch_head,
        _punch,
        _raise,
        _reach_down,
        _swing,
        _touch_hip,
        _reach,
        _bend_elbow,
    )
    return next(filter(None, (rule(arm) for rule in rules)), None) or _hang(arm)


def _circle(arm: SignalStatsByName) -> str:
    circle = arm["circle"]
    backward, forward = circle.high - circle.first, circle.first - circle.low
    turns = max(backward, forward)
    if turns <= LIMITS.circle:
        return ""
    return f"circles {'backward' if backward > forward else 'forward'}{_times(round(turns))}"


def _clap(arm: SignalStatsByName) -> str:
    below_head = arm["head"].high < LIMITS.above_head  # hands that wave over the head meet too
    claps = arm["apart"].falls
    return f"claps{_times(claps)}" if claps >= 2 and below_head else ""


def _wave(arm: SignalStatsByName) -> str:
    wave, height = arm["wave"], _height(arm)
    if not height or wave.waves < 2:
        return ""
    return f"is raised {height} and waves from side to side{_times(wave.moves)}"


def _touch_head(arm: SignalStatsByName) -> str:
    near = arm["to_head"].low < LIMITS.touch and arm["head"].high < LIMITS.above_head
    return "is bent with the hand at the head" if near else ""


def _touch_hip(arm: SignalStatsByName) -> str:
    return "is bent with the hand at the hip" if arm["to_hip"].low < LIMITS.touch else ""


def _punch(arm: SignalStatsByName) -> str:
    """Counts how often the hand is far from the shoulder, also at the start."""
    thrust = arm["thrust"]
    level = arm["up"].high < LIMITS.punch_height
    straight = arm["elbow_when_front"].high < LIMITS.bent_elbow
    starts_far = thrust.high - thrust.first < thrust.first - thrust.low
    punches = thrust.moves + (thrust.rises == thrust.falls and starts_far)
    min_speed = LIMITS.punch_speed if punches > 1 else LIMITS.one_punch_speed
    quick = arm["speed"].high > min_speed
    if not (level and straight and quick and thrust.moves and arm["elbow"].moves):
        return ""
    return f"punches forward{_times(punches, 'once')}"


def _raise(arm: SignalStatsByName) -> str:
    up, height = arm["up"], _height(arm)
    if not height:
        return ""
    if height != "above the head":
        in_front = arm["front_when_up"].high > arm["out_when_up"].high
        height += " to the front" if in_front else " to the side"
    bent = " with the elbow bent" if arm["elbow_when_up"].high > LIMITS.bent_elbow else ""
    how = _speed_word(arm["speed"].high, LIMITS.slow_hand, LIMITS.quick_hand)
    if up.rises:
        lowered = " and lowered again" if up.falls else ""
        return f"is{how} raised {height}{bent}{_times(up.rises)}{lowered}"
    location = height.removeprefix("to ")
    if up.falls:
        return f"is{how} lowered from {location}"
    return f"is held {'' if height == location else 'at '}{location}{bent}"


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
    how = _speed_word(arm["speed"].high, LIMITS.slow_hand, LIMITS.quick_hand)
    return f"reaches forward{how}{_times(front.rises)}"


def _bend_elbow(arm: SignalStatsByName) -> str:
    return _rise_and_fall(arm["elbow"], "bends", "straightens")


def _hang(arm: SignalStatsByName) -> str:
    fastest = arm["speed"].high
    if fastest > LIMITS.slight_hand:
        return f"moves a little{_bent(arm)}"
    still = "still" if fastest < LIMITS.still_hand else "almost still"
    return f"stays {still}{_bent(arm) or ' at the side'}"


def _bent(arm: SignalStatsByName) -> str:
    is_bent = (arm["elbow"].low + arm["elbow"].high) / 2 > LIMITS.bent_elbow
    return " with the elbow bent" if is_bent else ""


# ---- legs


def describe_leg(leg: SignalStatsByName, torso: SignalStatsByName) -> str:
    """What a leg does: a kick, and the first other statement that holds."""
    kick, on_the_spot = _kick(leg), not _way(torso, MIN_AMPLITUDE["forward"])
    lift = "" if kick else _lift(leg)
    other = (
        _push_off(torso)
        or (on_the_spot and lift)
        or _step(leg, torso)
        or (not kick and _step_on_the_spot(leg))
        or _bend_knee(leg)
    )
    statements = [kick, "" if kick and on_the_spot else other]
    still = "stays planted" if leg["ground"].high < LIMITS.planted else "shifts a little"
    return " and ".join(filter(None, statements)) or still


def _kick(leg: SignalStatsByName) -> str:
    thigh = leg["thigh"]
    straight = leg["knee_when_front"].high < LIMITS.kick_knee
    quick = leg["speed"].high > LIMITS.kick_speed
    lifted = leg["lift_when_front"].high > LIMITS.kick_height
    if not (thigh.rises and straight and quick and lifted):
        return ""
    high = " high" if leg["lift"].high > LIMITS.high_kick else ""
    return f"kicks forward{high}{_times(thigh.rises, 'once')}"


def _push_off(torso: SignalStatsByName) -> str:
    jumps = torso["air"].waves
    return f"pushes off and lands{_times(jumps, 'once')}" if _jumps(torso) else ""


def _step(leg: SignalStatsByName, torso: SignalStatsByName) -> str:
    """Where the foot goes, and in how many steps; a foot that only comes back to its start does not
    step."""
    lifts, stride = leg["lift"].rises, leg["stride"]
    if _turn(torso) and not _way(torso, MIN_AMPLITUDE["forward"]):
        return f"steps around{_times(lifts)}" if lifts else ""
    way = _way(leg, LIMITS.stride)
    strides = {"forward": stride.rises, "backward": stride.falls}.get(way.partition(" ")[0], 0)
    steps = strides or lifts
    verb = "runs" if torso["ground"].high > LIMITS.run else "steps"
    return f"{verb} {way}{_times(steps, 'once')}" if way and steps else ""


def _lift(leg: SignalStatsByName) -> str:
    thigh = leg["thigh"]
    foot_lifted = leg["lift_when_front"].high > LIMITS.lifted_foot
    lifted = thigh.high > LIMITS.lifted_thigh and thigh.rises and foot_lifted
    return f"lifts the knee{_times(thigh.rises, 'once')}" if lifted else ""


def _step_on_the_spot(leg: SignalStatsByName) -> str:
    lifts = leg["lift"].rises
    return f"steps on the spot{_times(lifts)}" if lifts >= 2 else ""


def _bend_knee(leg: SignalStatsByName) -> str:
    knee = leg["knee"]
    deep = " deeply" if knee.high > LIMITS.deep_knee else ""
    lasting = f"stays bent{deep}" if knee.low > LIMITS.bent_knee else ""
    return _rise_and_fall(knee, f"bends{deep}", "straightens") or lasting


# ---- torso


def describe_torso(torso: SignalStatsByName, _: SignalStatsByName) -> str:
    """What the body does as a whole and how it is held: the first three statements that hold."""
    rules = (_walk, _turn, _jump, _crouch, _bend, _lean, _twist)
    statements = [text for text in (rule(torso) for rule in rules) if text]
    still = "stays still" if torso["speed"].high < LIMITS.still_body else "stays upright"
    return ", ".join(statements[:3]) or still


def _walk(torso: SignalStatsByName) -> str:
    way, fastest = _way(torso, MIN_AMPLITUDE["forward"]), torso["ground"].high
    if not way:
        return ""
    if fastest > LIMITS.run:
        return f"runs {way}"
    if max(torso["forward"].span, torso["left"].span) < LIMITS.short_way:
        return f"walks {way} a little"
    return f"walks {way}{_speed_word(fastest, LIMITS.slow_walk, LIMITS.quick_walk)}"


def _way(stats: SignalStatsByName, min_distance: float) -> str:
    """Where a body or a foot ends up, seen from its start, "" nearer than `min_distance` metres."""
    forward, left = (stats[name].last - stats[name].first for name in ("forward", "left"))
    short, long = sorted((abs(forward), abs(left)))
    if long < min_distance:
        return ""
    ahead = "forward" if forward > 0 else "backward"
    aside = f"to the {'left' if left > 0 else 'right'}"
    if short > long * LIMITS.aslant:
        return f"{ahead} and {aside}"
    return ahead if abs(forward) == long else aside


def _turn(torso: SignalStatsByName) -> str:
    turned = torso["turned"]
    angle = turned.last - turned.first
    if not turned.moves or _twist(torso):
        return ""
    if abs(angle) < MIN_AMPLITUDE["turned"]:
        looks_round = turned.span >= LIMITS.look_round and not _walk(torso)
        return "turns to one side and back" if looks_round else ""
    sizes = (
        (LIMITS.slight_turn, " slightly"),
        (LIMITS.quarter_turn, ""),
        (LIMITS.half_turn, " half around"),
    )
    size = next((words for limit, words in sizes if abs(angle) < limit), " all around")
    return f"turns{size} to the {'left' if angle > 0 else 'right'}"


def _jumps(torso: SignalStatsByName) -> bool:
    in_air = torso["air"].waves > 0 and torso["crouch"].low < -LIMITS.jump
    return in_air and torso["ground"].high < LIMITS.run


def _jump(torso: SignalStatsByName) -> str:
    return f"jumps{_times(torso['air'].waves, 'once')}" if _jumps(torso) else ""


def _crouch(torso: SignalStatsByName) -> str:
    crouch = torso["crouch"]
    if crouch.rises and torso["neck"].low < LIMITS.lying:
        return "goes down to the floor"
    if _jumps(torso) or (_walk(torso) and crouch.high < LIMITS.slight_crouch):
        return ""
    depth = ""
    if crouch.high > LIMITS.deep_crouch:
        depth = " deeply"
    elif crouch.high < LIMITS.slight_crouch:
        depth = " slightly"
    return _rise_and_fall(crouch, f"crouches{depth}", "rises")


def _bend(torso: SignalStatsByName) -> str:
    pitch = torso["pitch"]
    if pitch.high < LIMITS.bend:
        return ""
    deep = " deeply" if pitch.high > LIMITS.deep_bend else ""
    lasting = f"stays bent forward{deep}"
    return _rise_and_fall(pitch, f"bends forward{deep}", "straightens up") or lasting


def _lean(torso: SignalStatsByName) -> str:
    """Which way the torso is off the upright most, where it does not bend."""
    pitch, roll = torso["pitch"], torso["roll"]
    leans = {
        "forward": pitch.high if pitch.high < LIMITS.bend else 0.0,
        "backward": -pitch.low,
        "to the left": roll.high,
        "to the right": -roll.low,
    }
    direction = max(leans, key=leans.__getitem__)
    return f"leans {direction}" if leans[direction] > LIMITS.lean else ""


def _twist(torso: SignalStatsByName) -> str:
    twists = torso["twist"].waves
    if twists < 2 or _walk(torso):
        return ""
    return f"twists to both sides{_times(twists)}"
