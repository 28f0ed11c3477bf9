"""Query-bank normalisation against a twin that is written as the formula is."""

import numpy as np
import pytest

from motret.ensemble import query_bank


def twin(sim_qc: np.ndarray, sim_bc: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """exp(beta s_qc) / sum_b exp(beta s_bc) for queries whose top candidate is some bank caption's
    top-1; and which queries those are.
    """
    tops = {int(np.argmax(row)) for row in sim_bc}
    active = np.array([int(np.argmax(row)) in tops for row in sim_qc])
    normalised = np.array(
        [
            [np.exp(beta * s) / np.exp(beta * sim_bc[:, c]).sum() for c, s in enumerate(row)]
            for row in sim_qc
        ]
    )
    return normalised, active


@pytest.mark.parametrize("chunk_size", [4, 1000])
@pytest.mark.parametrize("beta", [0.5, 3.0, 20.0])
def test_it_is_the_formula_in_logarithms(
    beta: float, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_bank, "CHUNK_SIZE", chunk_size)  # chunks change nothing
    rng = np.random.default_rng(0)
    sim_qc, sim_bc = rng.normal(size=(30, 25)), rng.normal(size=(12, 25))
    bank = query_bank.build_query_bank(lambda motions: sim_bc[:, motions], 25, (beta,))
    normalised, (expected, active) = bank.normalize(sim_qc, beta), twin(sim_qc, sim_bc, beta)
    assert 0 < active.sum() < len(active)
    np.testing.assert_allclose(np.exp(beta * normalised[active]), expected[active])
    np.testing.assert_array_equal(normalised[~active], sim_qc[~active])


def test_large_beta_does_not_overflow() -> None:
    sim_bc = np.array([[900.0, -900.0], [800.0, -950.0]], dtype=np.float32)
    bank = query_bank.build_query_bank(lambda motions: sim_bc[:, motions], 2, (16.0,))
    np.testing.assert_allclose(bank.offset[16.0], [900, -900])


def test_a_motion_that_is_near_to_every_caption_loses_its_advantage() -> None:
    rng = np.random.default_rng(1)
    right = np.arange(40)
    sim_qc, sim_bc = np.eye(40) + 0.1 * rng.random((40, 40)), 0.1 * rng.random((60, 40))
    sim_qc[:, 7] += 1.5
    sim_bc[:, 7] += 1.5
    bank = query_bank.build_query_bank(lambda motions: sim_bc[:, motions], 40, (4.0,))
    assert bank.hub.sum() == 1 and bank.hub[7]
    assert (sim_qc.argmax(axis=1) == right).mean() < 0.1
    assert (bank.normalize(sim_qc, 4.0).argmax(axis=1) == right).mean() == 1
