"""Measurements and the page that records them."""

from motret.benchmark import harness
from motret.benchmark.harness import Measurement

MEASUREMENTS = [
    Measurement("speed", "3x", "<= 6x", True),
    Measurement("weight", "9 MB", "< 5 MB", False),
    Measurement("color", "green"),
]


def test_the_page_has_a_row_for_each_measurement_and_the_command_that_made_it(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    harness.write_section(
        page,
        "throughput",
        "python solution/bench.py --only throughput",
        ["a machine"],
        MEASUREMENTS,
        quick=False,
    )
    lines = page.read_text().splitlines()
    for row in (
        "## throughput",
        "python solution/bench.py --only throughput",
        "- a machine",
        "| speed | 3x | <= 6x | yes |",
    ):
        assert row in lines
    assert (
        "| weight | 9 MB | < 5 MB | no |" in lines
        and "| color | green |  |  |" in lines
        and "mean nothing" not in page.read_text()
    )


def test_a_section_is_replaced_and_the_others_and_the_text_by_hand_stay(tmp_path):
    page = tmp_path / "benchmarks.md"
    harness.write_section(page, "memory", "first command", ["a machine"], MEASUREMENTS, quick=False)
    harness.write_section(
        page, "validation", "second command", ["a machine"], MEASUREMENTS[2:], quick=False
    )
    by_hand = harness.STEPS_HEADING + "\nfaster by half\n\n## Why\n\nfewer steps\n"
    page.write_text(page.read_text() + by_hand)
    before = page.read_text()
    harness.write_section(
        page, "memory", "third command", ["another"], MEASUREMENTS[:1], quick=True
    )
    memory, validation = page.read_text().split("## memory")[1].split("## validation")
    for new in ("third command", "- another", "mean nothing", "speed"):
        assert new in memory
    assert "a machine" not in memory and "first command" not in memory and "weight" not in memory
    assert validation == before.split("## validation")[1] and validation.endswith(by_hand)
    harness.write_section(page, "memory", "first command", ["a machine"], MEASUREMENTS, quick=False)
    assert page.read_text() == before


def test_a_measurement_says_whether_its_goal_is_met():
    assert Measurement("speed", "3x", "<= 6x", True).summary() == "speed: 3x (goal: <= 6x; met)"
    assert (
        Measurement("speed", "9x", "<= 6x", False).summary() == "speed: 9x (goal: <= 6x; not met)"
    )
    assert Measurement("color", "green").summary() == "color: green"
