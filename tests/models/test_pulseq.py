"""Pulseq files give the signals of JEMRIS and KomaMRI."""

from __future__ import annotations

import builtins
import re
from types import SimpleNamespace

import mr_data
import numpy as np
import pytest

from backsweep.errors import ModelError
from backsweep.models import pulseq
from backsweep.models.bloch import GAMMA, Sequence, simulate

JEMRIS = mr_data.FOLDER / "jemris"
# JEMRIS 2.9.2 wrote a jump of the phase by half a turn as the geometric series 0.5, 0.5 / 2 pi,
# ..., so that its negative lobes have a wrong phase in the file (in its simulation they do not).
WRONG_SERIES = [
    "0.07957747",
    "0.01266515",
    "0.002015721",
    "0.000320812",
    "5.105881e-05",
    "8.126261e-06",
    "1.293335e-06",
    "2.058406e-07",
    "2.058406e-07",
]


def compare(path, name):
    """NRMSE at the instants that both have, and how many these are."""
    spins = mr_data.read_spins(JEMRIS / "sample.h5")
    sequence = pulseq.read(path)
    times, reference = mr_data.read_signal(name)
    sampled = np.cumsum(sequence.durations)[sequence.adc_steps]
    pairs = np.argwhere(np.abs(sampled[:, None] - times) < 1e-9)
    signal = simulate(spins, sequence)[1][pairs[:, 0]] / len(spins.m0)
    assert len(pairs) == len(sampled)
    return mr_data.nrmse(signal, reference[pairs[:, 1]]), len(pairs)


@mr_data.needs_data
@pytest.mark.parametrize(("name", "n_samples"), [("trapezoid", 64), ("gre", 1024)])
def test_jemris(name, n_samples):
    error, n = compare(JEMRIS / f"{name}.seq", name)
    assert n == n_samples and error < 5e-4


@mr_data.needs_data
def test_jemris_slice_selection(tmp_path):
    """RF shapes, samples during RF, and a frequency offset."""
    text = (JEMRIS / "sli_sel.seq").read_text()
    for sign in ("-", ""):
        series = "\n".join(re.escape(sign + value) for value in WRONG_SERIES)
        text = re.sub(
            series + r"\n(\d+)\n",
            lambda match: f"0\n0\n{int(match[1]) + len(WRONG_SERIES) - 2}\n",
            text,
        )
    path = tmp_path / "repaired.seq"
    path.write_text(text)
    error, n = compare(path, "sli_sel")
    assert n == 20 and error < 5e-3


@mr_data.needs_data
def test_koma_echo_planar():
    """The signal of KomaMRI is the mean over the spins."""
    folder = mr_data.FOLDER / "koma"
    spins = mr_data.read_spins(folder / "phantom_column1d.h5")
    sequence = pulseq.read(folder / "epi_100x100_TE100_FOV230.seq")
    _, signal = simulate(spins, sequence)
    reference = mr_data.read_koma_signal()
    assert mr_data.nrmse(signal / len(spins.m0), reference) < 1e-3


def test_written_by_pypulseq(tmp_path):
    """Trapezoid, free-form gradient, RF and ADC with offsets: integrals and phases."""
    pp = pytest.importorskip("pypulseq")
    system = pp.Opts(rf_ringdown_time=0, rf_dead_time=0, adc_dead_time=0)
    written = pp.Sequence(system)
    rf = pp.make_gauss_pulse(0.5, duration=1e-3, system=system, freq_offset=200, phase_offset=0.3)
    trapezoid = pp.make_trapezoid("y", area=50.0, duration=2e-3, system=system)
    free = pp.make_arbitrary_grad(
        "z", 1e4 * np.sin(np.linspace(0, np.pi, 100)), first=0, last=0, system=system
    )
    adc = pp.make_adc(8, dwell=1e-4, delay=1e-4, freq_offset=300, phase_offset=0.2, system=system)
    written.add_block(rf)
    written.add_block(trapezoid, free, adc)
    path = tmp_path / "written.seq"
    written.write(str(path))
    sequence = pulseq.read(path)
    assert isinstance(sequence, Sequence)
    ends = np.cumsum(sequence.durations)
    start = written.block_durations[1]
    np.testing.assert_allclose(ends[-1], start + 2e-3, rtol=1e-12)
    areas = GAMMA / (2 * np.pi) * sequence.durations @ sequence.gradient
    np.testing.assert_allclose(areas[:2], [0, 50], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(areas[2], 1e-5 * np.sum(free.waveform), rtol=1e-3)
    turn = np.sum(
        GAMMA * sequence.rf * np.exp(-2j * np.pi * 200 * (ends - 0.5e-6)) * sequence.durations
    )
    np.testing.assert_allclose(turn, 0.5 * np.exp(0.3j), rtol=1e-3)
    since = 1e-4 * (np.arange(8) + 0.5)
    np.testing.assert_allclose(ends[sequence.adc_steps], start + 1e-4 + since, atol=1e-9)
    np.testing.assert_allclose(sequence.adc_phase, 0.2 + 2 * np.pi * 300 * since, atol=1e-5)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="is no file"):
        pulseq.read(tmp_path / "absent.seq")


def test_not_a_pulseq_file(tmp_path):
    pytest.importorskip("pypulseq")
    path = tmp_path / "text.seq"
    for text in ("hello\n", "[VERSION]\nmajor 1\nminor 4\nrevision 0\n\n[BLOCKS]\n1 x\n"):
        path.write_text(text)
        with pytest.raises(ModelError, match="cannot read .*text.seq"):
            pulseq.read(path)


def test_offsets_in_ppm_are_refused():
    rf = SimpleNamespace(freq_ppm=-3.4, phase_ppm=0.0)
    with pytest.raises(ModelError, match="freq_ppm = -3.4"):
        pulseq._convert(SimpleNamespace(rf=rf), 1e-3, 1e-6)


def test_pypulseq_missing(monkeypatch, tmp_path):
    original = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == "pypulseq":
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModelError, match=re.escape("pip install 'backsweep[mr]'")):
        pulseq.read(tmp_path / "any.seq")
