import numpy as np
import pytest

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.state_sets import make_state_set
from vlmrm_fast.evaluation.subjects import FileSubject, TaskSubject
from vlmrm_fast.tasks import get_task


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(0, 256, (130, 6, 9, 3), dtype=np.uint8),
        "labels": rng.random(130) < 0.4,
        "groups": np.array(["near miss" if i % 3 == 0 else "other" for i in range(130)]),
        "truth": rng.normal(size=130),
    }


def saved(tmp_path, arrays, save=np.savez, **change):
    kept = {k: v for k, v in {**arrays, **change}.items() if v is not None}
    save(tmp_path / "set.npz", **kept)
    return tmp_path / "set.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_frames_of_a_file_come_in_chunks_with_their_labels(tmp_path, arrays, save):
    subject = FileSubject(saved(tmp_path, arrays, save))
    chunks = list(subject.frames(96, None))
    assert [len(chunk) for chunk in chunks] == [64, 64, 2]
    assert np.array_equal(np.concatenate(chunks), arrays["frames"])
    assert np.array_equal(subject.goal, arrays["labels"])
    assert np.array_equal(subject.near, (arrays["groups"] == "near miss") & ~arrays["labels"])
    assert np.array_equal(subject.truth, arrays["truth"])
    picked = subject.pick([129, 0, 70], 96, None)
    assert np.array_equal(np.stack(picked), arrays["frames"][[129, 0, 70]])


def test_labels_alone_are_enough(tmp_path, arrays):
    labels = arrays["labels"].astype(np.int64)
    subject = FileSubject(saved(tmp_path, arrays, labels=labels, groups=None, truth=None))
    assert np.array_equal(subject.truth, labels)
    assert not subject.near.any()


def test_arrays_that_are_not_needed_are_not_read(tmp_path, arrays):
    notes = np.array([{"by": "hand"}, None], dtype=object)
    subject = FileSubject(saved(tmp_path, arrays, notes=notes))
    assert np.array_equal(subject.goal, arrays["labels"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": None}, 'source must hold an array "labels", got frames, groups, truth'),
        ({"labels": np.ones(130)}, "labels must mark goal frames and others, got 130 goal frames"),
        ({"labels": np.zeros(130)}, "got 130 other frames only"),
        ({"labels": np.arange(130)}, "labels must be booleans or 0 and 1, got 2"),
        ({"labels": np.zeros(3)}, r"labels must be \(130,\), one a frame, got \(3,\)"),
        ({"truth": np.full(130, np.nan)}, "truth must be finite, got nan"),
        ({"truth": np.full(130, 2.0)}, "truth must differ between frames, got 2 for all"),
        ({"groups": np.arange(130)}, r"groups must be \(130,\), one a frame, got .* int64"),
        ({"frames": np.zeros((0, 4, 4, 3), np.uint8)}, "frames must be at least one, got"),
        ({"frames": np.zeros((130, 4, 4, 3))}, r"frames must be \(N, H, W, 3\) uint8, got"),
        ({"frames": np.zeros((3, 4, 4, 130), np.uint8).T}, r"uint8, got|C-contiguous"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_once(tmp_path, arrays, change, text):
    with pytest.raises(ArgumentError, match=text):
        FileSubject(saved(tmp_path, arrays, **change))


def test_files_that_are_broken_are_refused(tmp_path, arrays):
    with pytest.raises(ArgumentError, match=r"must be a readable \.npz file"):
        FileSubject(tmp_path / "missing.npz")
    path = saved(tmp_path, arrays)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ArgumentError, match=r"must be a readable \.npz file"):
        FileSubject(tmp_path / "cut.npz")
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    (tmp_path / "flipped.npz").write_bytes(bytes(data))
    with pytest.raises(ArgumentError, match=r"frames must be readable, got .*flipped\.npz"):
        list(FileSubject(tmp_path / "flipped.npz").frames(96, None))


def test_states_of_a_task_are_drawn_at_the_size_asked_for():
    task = get_task("cartpole-upright")
    states = make_state_set(task, 70)
    subject = TaskSubject(task, states)
    chunks = list(subject.frames(24, None))
    assert [chunk.shape for chunk in chunks] == [(64, 24, 24, 3), (6, 24, 24, 3)]
    frames = np.concatenate(chunks)
    assert np.array_equal(np.stack(subject.pick([69, 3], 24, None)), frames[[69, 3]])
    assert not (subject.near & subject.goal).any()
    assert subject.names[0] == f"{states.groups[0]}: {states.names[0]}"
