"""Wrong use of an acoustic run: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from acoustic_files import write_wrong

from backsweep.cli import inversion


@pytest.fixture
def wrong(folder, monkeypatch):
    """A folder with files that no run can use, and no inversion that would begin."""
    write_wrong(folder)

    def begin(*args, **kwargs):
        raise AssertionError("this should have been refused before the inversion")

    monkeypatch.setattr(inversion, "invert", begin)
    return folder


IN_SETTINGS = [
    ("problem.dt=3.5e-3", "dt is 0.0035 s and the largest stable time step 0.00329654 s"),
    ("problem.dt=4 ms", "problem.dt = '4 ms': a number is needed"),
    ("problem.dt=0", "problem.dt = 0: it must be greater than 0"),
    ("problem.dt=nan", "problem.dt = nan: it must be a finite number"),
    ("problem.dt=true", "problem.dt = True: a number is needed"),
    ("problem.spacing=-10", "problem.spacing = -10: it must be greater than 0"),
    ("problem.spacing=inf", "problem.spacing = inf: it must be a finite number"),
    ("problem.spacing=[10, 10]", "problem.spacing = [10, 10]: a number is needed"),
    ("problem.spacing=20", "4.67 points per wavelength .*order 2 needs 8; take a spacing of at"),
    ("problem.wavelet.ricker=20", "points per wavelength .* a lower frequency, or a higher order"),
    ("problem.n_steps=1.5", "problem.n_steps = 1.5: a whole number is needed"),
    ("problem.n_steps=many", "problem.n_steps = 'many': a whole number is needed"),
    ("problem.order=3", "problem.order = 3 is not allowed; known are: 2, 4, 6, 8"),
    ('problem.order="2"', "problem.order = '2' is not allowed; write 2 without quotes"),
    ("problem.n_absorb=2", "n_absorb is 2: give the frame at least 4 points"),
    ("problem.axes=yx", "problem.axes = 'yx' is not allowed; did you mean"),
    ("problem.seed=-1", "problem.seed = -1: it must be greater than or equal to 0"),
    ("problem.sources=7", "problem.sources = 7: a table of x, z is needed"),
    ("problem.sources.x=abc", "problem.sources.x = 'abc': a table of first, last, number, or a li"),
    ("problem.sources.x=nan", "problem.sources.x = nan: it must be a finite number"),
    ("problem.sources.x=[1, 'b']", "problem.sources.x.1 = 'b': a number is needed"),
    ("problem.sources.x=[]", "problem.sources.x = []: at least 1 value"),
    ("problem.sources={x = 100}", "problem.sources.z is missing; write z = ... in the table"),
    ("problem.sources={x = 1, y = 2}", "problem.sources.y is not known; known are: x, z"),
    ("problem.sources={x = [1, 2], z = [1, 2, 3]}", "x and z name 2 and 3 points"),
    (
        "problem.sources.x={first = 1, last = 9, nmber = 3}",
        "problem.sources.x.nmber is not known; did you mean 'number'? Known are: first, last",
    ),
    ("problem.sources.x={first = 1, last = 9}", "problem.sources.x.number is missing"),
    ("problem.sources.x.number=0", "problem.sources.x.number = 0: it must be greater than or equ"),
    ("problem.sources.x=5000", "source 0 at x = 5000 m, z = 20 m lies outside of the model, which"),
    ("problem.receivers.z=-20", "receiver 0 at x = 20 m, z = -20 m lies outside of the model"),
    ("problem.wavelet.rickr=3", "problem.wavelet.rickr is not known; did you mean 'ricker'"),
    ("problem.wavelet={}", "problem.wavelet = {}: give either ricker"),
    ("problem.wavelet=3", "problem.wavelet = 3: a table of ricker, delay, file, amplitude is need"),
    ("problem.wavelet.delay=1", "maximum at 1 s, outside of the run from 0 to 0.35 s: change wave"),
    ("problem.wavelet.amplitude=0", "the wavelet is zero throughout"),
    ("problem.misfit.kind=hubr", "problem.misfit.kind = 'hubr' is not allowed; did you mean 'hube"),
    ("problem.misfit.kind=huber", "threshold (in units of the data's rms) belongs to kind = 'hub"),
    ("problem.lowpass=300", "lowpass = 300.0 Hz must lie between 0 and the Nyquist frequency 200"),
    ("problem.made={shape = [9]}", "problem.made.shape = [9] has too few values"),
    (
        "problem.weights=line.npy",
        "line.npy has shape (1200,); one of (19,), (140, 19), (3, 140, 19",
    ),
    ("problem.weights=weights_nan.npy", "weights that are negative or not finite"),
    ("problem.weights=weights_zero.npy", "weights: no receiver of any shot is left"),
    ("problem.mute_offset=1e6", "mute_offset = 1e+06 m: no receiver of any shot is left"),
    ("problem.fixed_depth=1e6", "leave no point at which velocity is sought"),
    ("problem.tru=a.npy", "problem.tru is not known; did you mean 'true'? Known are: start, true"),
    ("problem=3", "problem = 3: a table is needed"),
    ("parameters.velocty.scale=2", "'velocty', no parameter: did you mean 'velocity'?"),
    ("parameters.velocity.bonds=[1, 2]", "parameters.velocity.bonds is not known; did you mean"),
    ("parameters.velocity.bounds=[3, 2]", "parameters.velocity: bounds (3.0, 2.0): the first mu"),
    ("parameters.velocity.bounds=[3]", "parameters.velocity.bounds = [3] has too few values"),
    ("parameters.velocity.bounds=[1, 2]", "the start, from 2000 to 2145, is not between its bou"),
    ("parameters.velocity.smoothing=-1", "parameters.velocity.smoothing = -1: it must be greate"),
    ("parameters.velocity.smoothing=lots", "smoothing = 'lots': a number or a list is needed"),
    ("parameters.velocity.smoothing=[1, 1, 1]", "is for other than its 2 axes"),
    ("parameters.velocity.mask=shorter.npy", "velocity: a mask of shape (39, 30)"),
    ("optimiser.evaluations=0", "optimiser.evaluations = 0: it must be greater than or equal to 1"),
    ("optimiser.method=BFGS", "optimiser.method = 'BFGS' is not allowed; did you mean 'L-BFGS-B'"),
    ("checkpointing.memory=lots", "'lots' is no amount of memory; write a number of bytes"),
    ("checkpointing.memory=-1", "-1 is no amount of memory"),
    ("checkpointing.memory=1.2.3 MB", "'1.2.3 MB' is no amount of memory"),
    ("checkpointing.memory=[1]", "checkpointing.memory = [1]: a whole number or a text is needed"),
    ("checkpointing.disk=1 GB", "disk= is a budget for files: give directory="),
    ("stages=[3]", "stages.0 = 3: a table is needed"),
    ("stages=[{evaluations = true}]", "stages.0.evaluations = True: a whole number of at least"),
    ("stages=[{evaluations = 2, lowpas = 3}]", "stages.lowpas is not known; did you mean 'lowpas"),
    ("stages=[{evaluations = 2, lowpass = 'a'}]", "stages.lowpass = 'a': a number is needed"),
    ("stages=[{evaluations = 2, lowpass = 900}]", "must lie between 0 and the Nyquist frequency"),
    ("output.reslt=x.h5", "output.reslt is not known; did you mean 'result'"),
    ("output.result=nowhere/x.h5", "the folder nowhere of the result does not exist; make it fir"),
    ("output.result=run.toml/x.h5", "the folder run.toml of the result does not exist"),
    ("output.result=/proc/x.h5", "the result /proc/x.h5 cannot be written to the folder /proc: "),
    ("output.result=.", "the result '.' is a folder; name a file in it"),
    (f"output.result={'x' * 300}.h5", "cannot be written: File name too long"),
    ("output.picture=nowhere/x.png", "the folder nowhere of the picture does not exist"),
    ("output.picture=x.xyz", "the picture 'x.xyz' is of no known format; end its name with one of"),
    ("model=acoustc", "model = 'acoustc' is not known; did you mean 'acoustic'?"),
    ("problem", "--set problem: write key=value"),
    ("=3", "--set =3: write key=value"),
    ("problem..dt=3", "--set problem..dt=3: write key=value"),
    ("problem.dt.x=3", "--set problem.dt.x=3: dt is a value, not a table"),
]


def matches(text, pattern):
    """Whether the parts of a pattern, separated by " .*", come in the text in their order."""
    for part in pattern.split(" .*"):
        at = text.find(part)
        if at < 0:
            return False
        text = text[at + len(part) :]
    return True


@pytest.mark.parametrize(("change", "message"), IN_SETTINGS, ids=[c[:40] for c, _ in IN_SETTINGS])
def test_settings(wrong, refuse, changes, change, message):
    line = refuse("invert", "run.toml", *changes(change))
    assert matches(line, message), line
    for jargon in ("tuple[", "constrained", "function-", "Range", "instance of", "dictionary"):
        assert jargon not in line


IN_FILES = [
    ("nan.npy", "velocity is nan m/s at point (3, 4): it must be finite and positive everywhere"),
    ("inf.npy", "velocity is inf m/s at point (3, 4)"),
    ("negative.npy", "velocity is -2000 m/s at point (3, 4)"),
    ("zero.npy", "velocity is 0 m/s at point (3, 4)"),
    ("km.npy", "km.npy: velocities of 2 to 2.145 look like km/s: multiply by 1000"),
    ("fast.npy", "dt is 0.0025 s and the largest stable time step 0.00109885 s, set by the veloci"),
    ("slow.npy", "points per wavelength"),
    ("complex.npy", "complex.npy holds complex128; real numbers are needed"),
    ("bool.npy", "bool.npy holds bool; real numbers are needed"),
    ("text.npy", "text.npy holds <U32, not numbers"),
    ("shorter.npy", "(39, 30) .*they must agree"),
    ("line.npy", "line.npy has shape (1200,); give a model of two axes, (x, z)"),
    ("empty.npy", "empty.npy has shape (0, 30); give a model of two axes"),
    ("missing.npy", "'missing.npy': there is no such file (looked for in "),
    ("folder.npy", "folder.npy is a folder or device; give a file"),
    ("model.segy", "model.segy is no .npy, .mat or .h5 file"),
    ("start.npy:velocity", "start.npy holds one array; leave out :velocity"),
    ("models.mat", "models.mat holds several arrays; write models.mat:key with one of velocity, t"),
    ("models.mat:velocty", "models.mat: 'velocty' is not in it; did you mean 'velocity'? Known"),
    ("models.mat:by", "models.mat: 'by' is not in it; known are: velocity, truth"),
    ("models.h5:velocty", "'velocty' is not in it; did you mean 'velocity'?"),
    ("plain.h5:truth", "'truth' is not in it; did you mean 'group/truth'?"),
    ("cut_start.npy", "cut_start.npy is no readable .npy file"),
    ("cut_models.mat:velocity", "cut_models.mat is no readable .mat file"),
    ("cut_models.h5:velocity", "cut_models.h5 is no readable HDF5 file: truncated file"),
    ("cut_plain.h5:velocity", "cut_plain.h5 is no readable HDF5 file: truncated file"),
    ("nothing_start.npy", "nothing_start.npy is no readable .npy file"),
    ("nothing_models.mat:velocity", "nothing_models.mat is no readable .mat file"),
    ("nothing_models.h5:velocity", "nothing_models.h5 is no readable HDF5 file"),
    (
        "other_start.npy",
        "other_start.npy is no readable .npy file: the magic string is not correct",
    ),
    ("other_models.mat:velocity", "other_models.mat is no readable .mat file"),
    ("other_models.h5:velocity", "other_models.h5 is no readable HDF5 file"),
    ("3", "= 3: a text is needed"),
]


@pytest.mark.parametrize("key", ["start", "true"])
@pytest.mark.parametrize(("file", "message"), IN_FILES, ids=[f for f, _ in IN_FILES])
def test_models(wrong, refuse, changes, key, file, message):
    line = refuse("invert", "run.toml", *changes(f"problem.{key}={file}"))
    whole_run = ("fast.npy", "slow.npy")  # a model that is right in itself
    assert (f"problem.{key}" if file not in whole_run else "") in line
    assert matches(line, message), line
    if key == "true" and file in whole_run:
        assert line.startswith("the true model: ")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("wavelet_short.npy", "the wavelet has 20 samples and the model 140 steps: give one"),
        ("wavelet_long.npy", "the wavelet has 200 samples and the model 140 steps: give one"),
        ("wavelet_nan.npy", "the wavelet is nan at point (0,): it must be finite"),
        ("wavelet_zero.npy", "the wavelet is zero throughout"),
        ("wavelet_of_each.npy", "has shape (140, 3); give one sample per time step"),
        ("complex.npy", "problem.wavelet.file: complex.npy holds complex128"),
        ("missing.npy", "problem.wavelet.file = 'missing.npy': there is no such file"),
    ],
)
def test_wavelets(wrong, refuse, changes, file, message):
    line = refuse("invert", "run.toml", *changes(f"problem.wavelet={{file = '{file}'}}"))
    assert message in line


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["problem.observed=data_turned.npy"], "(shots, time steps, receivers) = (3, 140, 19) is"),
        (["problem.observed=data_nan.npy"], "is nan at shot 0, time step 0, receiver 0"),
        (["problem.observed=data_complex.npy"], "problem.observed: data_complex.npy holds comple"),
        (["checkpointing.memory=0 B"], "the budget of 0 B is smaller than one state of 57.7 kB"),
        (["checkpointing.memory=1 kB"], "the budget of 1 kB is smaller than one state of 57.7 kB"),
        (
            ["checkpointing.memory=1 MB", "checkpointing.schedule=store_all"],
            "store_all needs 5.48 MB for 140 steps, more than the budget of 1 MB",
        ),
        (
            ["checkpointing.disk=1 GB", "checkpointing.directory=run.toml"],
            "resume points cannot be written to the folder run.toml/result.h5.resume: Not a dir",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_the_first_evaluation_meets(interpreted, folder, refuse, changes, changed, message):
    write_wrong(folder)
    assert message in refuse("invert", "run.toml", *changes(*changed))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("invert", "missing.toml"), "the run file missing.toml cannot be read: No such file"),
        (("invert", "folder.npy"), "the run file folder.npy cannot be read: Is a directory"),
        (("invert", "syntax.toml"), "syntax.toml is no valid TOML: Invalid value (at line 1"),
        (("invert", "bytes.toml"), "the run file bytes.toml cannot be read: 'utf-8' codec"),
        (("invert", "empty.toml"), "model is missing; write model = ... in the run file"),
        (("show", "missing.h5"), "missing.h5 could not be read: No such file"),
        (("show", "plain.h5"), "plain.h5 could not be read: it is no result of backsweep"),
        (("show", "cut_models.h5"), "cut_models.h5 could not be read: truncated file"),
        (("check", "run.toml", "--item", "3"), "--item 3: the items are numbered 0 to 2"),
        (("forward", "run.toml", "--model", "ture"), "--model ture: write start, true, or the"),
        (("forward", "run.toml", "--model", "models.h5"), "'velocity_best' is not in it; did yo"),
        (("forward", "run.toml", "--output", "plain.h5"), "plain.h5 is in the way; add --overwr"),
        (("forward", "run.toml", "--output", "nowhere/x.h5"), "the folder nowhere"),
        (("forward", "run.toml", "--output", ".", "--overwrite"), "is a folder; name a file"),
    ],
)
def test_arguments(wrong, refuse, args, message):
    assert message in refuse(*args)


def test_a_result_in_the_way_stays_unless_it_may_be_replaced(
    interpreted, folder, refuse, command, changes
):
    Path("result.h5").write_bytes(b"years of work")
    assert "result.h5 is in the way; add --overwrite" in refuse("invert", "run.toml")
    done = command("invert", "run.toml", "--overwrite", *changes("optimiser.evaluations=1"))
    assert done.code == 0, done.err
    assert Path("result.h5").read_bytes()[:4] == b"\x89HDF"


def test_a_folder_that_cannot_be_written_to(wrong, refuse, changes):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; /proc is tried in test_settings")
    Path("closed").mkdir(mode=0o555)
    line = refuse("invert", "run.toml", *changes("output.result=closed/x.h5"))
    assert "closed: Permission denied" in line


def test_a_traceback_only_if_it_is_asked_for(wrong, command, changes):
    args = ("invert", "run.toml", *changes("problem.start=missing.npy"))
    assert "Traceback" not in command(*args).err
    assert "Traceback" in command("--debug", *args).err


def test_more_ranks_than_shots(folder, run_program):
    done = run_program("-m", "backsweep", "invert", "run.toml", ranks=4)
    assert done.code == 2
    assert done.err.splitlines() == [
        "backsweep: 4 ranks for 3 item(s), such as shots: 1 would have nothing to do; start at "
        "most 3, or let several work on one item (ranks_per_shot = 'auto')"
    ]


def test_what_ranks_meet_is_said_once(folder, run_program):
    write_wrong(folder)
    done = run_program(
        "-m", "backsweep", "invert", "run.toml", "--set", "problem.observed=data_nan.npy", ranks=2
    )
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert not list(folder.glob("result*"))


def test_mpi_is_missing_under_a_launcher(folder, run_program):
    program = (
        "import sys; sys.modules['mpi4py'] = None; "
        "sys.argv = ['backsweep', 'invert', 'run.toml']; "
        "from backsweep.cli.main import main; main()"
    )
    done = run_program("-c", program, ranks=2)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "a launcher started 2 processes, but mpi4py cannot load MPI" in line
    assert "load the site's MPI module, or pip install 'backsweep[mpich]'" in line
    assert not list(folder.glob("result*"))


def test_the_program_itself_ends_with_the_same_code_and_sentence(folder, run_program):
    done = run_program("-m", "backsweep", "invert", "run.toml", "--set", "problem.dt=3.5e-3")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("backsweep: dt is 0.0035 s and the largest stable time step")
    assert len(done.err.splitlines()) == 1
    assert sys.executable not in done.err
