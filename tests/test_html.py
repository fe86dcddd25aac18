import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.evaluation.html import Page


class Reader(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def figure():
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2, 1))
    drawn.subplots().plot([0, 1], [1, 0])
    return drawn


@pytest.fixture
def page():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    return (
        Page("A <title>")
        .heading("Best & worst")
        .text("first\n\nsecond")
        .note("go\nbecause", "good")
        .table(["prompt", "EPIC", "n"], [['say "x"', 0.123456, 2000], [None, np.float32(2), True]])
        .figure(figure(), "a plot")
        .frames(frames, ["<b>one</b>", "two"])
    )


def test_everything_that_users_write_is_escaped(page):
    text = page.html()
    assert "<b>one</b>" not in text
    assert "A <title>" not in text
    words = "".join(Reader(text).words)
    for shown in ("A <title>", "Best & worst", "<b>one</b>", 'say "x"', "0.1235", "2,000", "yes"):
        assert shown in words


def test_a_page_fetches_nothing_and_runs_nothing(page):
    tags = Reader(page.html()).tags
    assert "script" not in {tag for tag, _ in tags}
    sources = [attrs["src"] for _, attrs in tags if "src" in attrs]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not any(name in attrs for _, attrs in tags for name in ("href", "onload", "onclick"))
    (policy,) = [a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_frames_in_a_page_keep_their_bits():
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    text = Page("frames").frames(frames, ["a", "b", "c"]).html()
    found = re.findall(r'base64,([^"]+)"', text)
    for frame, data in zip(frames, found, strict=True):
        assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(data)))), frame)


def test_a_video_becomes_part_of_the_page(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"\x00video")
    text = Page("v").video(tmp_path / "v.mp4", "an episode").html()
    assert base64.b64encode(b"\x00video").decode() in text
    with pytest.raises(ArgumentError, match="path must be a readable video"):
        Page("v").video(tmp_path / "none.mp4")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, page):
    path = page.write(tmp_path / "page.html")
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match="path must be a file to write"):
        page.write(tmp_path / "missing" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArgumentError, match="path must be a file to write"):
        page.write(tmp_path / "folder")
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "page.html"]


def test_a_name_that_is_not_text_is_shown_escaped(tmp_path):
    path = Page("x").text("video-\udcff.mp4").write(tmp_path / "page.html")
    assert rb"video-\udcff.mp4" in path.read_bytes()


def test_rows_and_captions_must_match():
    with pytest.raises(ArgumentError, match="a cell for each of 2 headers, got 1"):
        Page("x").table(["a", "b"], [["1"]])
    with pytest.raises(ArgumentError, match="captions must be as many as images, 1, got 0"):
        Page("x").frames(np.zeros((1, 2, 2, 3), np.uint8), [])
    with pytest.raises(ArgumentError, match=r"images must be \(H, W, 3\) uint8, got \(2, 2\)"):
        Page("x").frames([np.zeros((2, 2), np.uint8)], ["x"])
