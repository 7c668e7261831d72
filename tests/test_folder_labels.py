"""The label file: both layouts, spreadsheets' habits, encodings, and one clear error where nothing fits."""

import math
from pathlib import Path

import numpy as np
import pytest

from deepmlf_kit.data.label_csv import LabelFileError, read_labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with (empty) clips in both layouts."""
    for name in ("Raw/v1/0001.mp4", "Raw/v1/0002.webm", "Raw/v2/a.MOV", "v3/1.mp4", "sub/x.mp4", "y.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def write(root: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path = root / "label.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_the_m_sena_layout(root):
    read = read_labels(
        write(
            root,
            "video_id,clip_id,text,label,mode\n"
            'v1,0001,"Well, yes",1.5,train\n'
            "v1,0002,no,-1,valid\n"
            "v2,a,NA,0,test\n"
            "v3,1,,0.5,train\n",
        )
    )
    assert read.notes == []
    assert [clip.problem for clip in read.clips] == [""] * 4
    assert [clip.id for clip in read.clips] == ["v1$_$0001", "v1$_$0002", "v2$_$a", "v3$_$1"]
    assert [Path(clip.path).name for clip in read.clips] == ["0001.mp4", "0002.webm", "a.MOV", "1.mp4"]
    assert [clip.text for clip in read.clips] == ["Well, yes", "no", "NA", None]
    assert [clip.split for clip in read.clips] == ["train", "valid", "test", "train"]
    assert [clip.label for clip in read.clips] == [1.5, -1.0, 0.0, 0.5]


def test_the_plain_layout_with_paths_below_the_folder_and_absolute(root):
    read = read_labels(
        write(
            root,
            f"path,text,label,split\nsub/x.mp4,one,1,train\ny.wav,two,2,dev\n{root / 'v3/1.mp4'},three,,test\n",
        )
    )
    assert [clip.id for clip in read.clips] == ["sub$_$x", "y", "v3$_$1"]
    assert [clip.split for clip in read.clips] == ["train", "valid", "test"]
    assert all(Path(clip.path).is_file() and not clip.problem for clip in read.clips)
    assert math.isnan(read.clips[2].label)


def test_two_files_of_one_name_are_two_clips_and_one_file_twice_is_one(root):
    (root / "sub" / "x.wav").touch()
    read = read_labels(
        write(root, "path,text,label,split\nsub/x.mp4,a,1,train\nsub/x.wav,b,1,train\nsub/x.wav,c,1,train\n")
    )
    assert [clip.id for clip in read.clips] == ["sub$_$x", "sub$_$x.wav", "sub$_$x.wav"]
    assert [bool(clip.problem) for clip in read.clips] == [False, False, True]


def test_sims_unimodal_labels_are_kept(root):
    read = read_labels(
        write(
            root, "video_id,clip_id,text,label,label_T,label_A,label_V,mode\nv1,0001,x,0.2,-0.4,0.6,,train\n"
        )
    )
    unimodal = read.clips[0].unimodal
    assert (unimodal["label_text"], unimodal["label_audio"]) == (-0.4, 0.6)
    assert math.isnan(unimodal["label_vision"])


def test_the_annotated_class_is_read(root):
    read = read_labels(
        write(
            root,
            "video_id,clip_id,text,label,annotation,mode\n"
            "v1,0001,x,-0.5,Neutral,train\nv1,0002,x,1,positive,train\nv2,a,x,1,,train\nv2,b,x,1,glad,train\n",
        )
    )
    np.testing.assert_array_equal([clip.label_class for clip in read.clips], [1, 2, math.nan, math.nan])
    assert read.notes == ["1 annotations are not Negative, Neutral or Positive and were left out"]


def test_a_spreadsheet_that_drops_leading_zeros_still_finds_its_clips(root):
    read = read_labels(write(root, "video_id;clip_id;text;label;mode\nv1;1;x;0,5;train\nv1;2;y;-1;train\n"))
    assert [Path(clip.path).name for clip in read.clips] == ["0001.mp4", "0002.webm"]
    assert read.clips[0].label == 0.5


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ("0001", "1", None),  # a spreadsheet drops zeros
        ("0001", "0001.mp4", None),
        ("0001", "0001.MP4", None),
        ("0001", "link", "symlink_to"),
        ("0001", "hard", "hardlink_to"),
        ("0001", "copy", "copy"),
    ],
)
def test_one_clip_in_two_splits_is_found_however_it_is_named(root, first, second, how):
    folder = root / "Raw" / "v1"
    (folder / "0001.mp4").write_bytes(b"a clip")
    if how == "copy":
        (folder / f"{second}.mp4").write_bytes(b"a clip")
    elif how:
        getattr(folder / f"{second}.mp4", how)(folder / "0001.mp4")
    (folder / "0002.webm").write_bytes(b"b clip")  # of the same size
    lines = [f"v1,{first},x,1,train", f"v1,{second},x,1,test", "v1,0002,x,1,test"]
    read = read_labels(write(root, "video_id,clip_id,text,label,mode\n" + "\n".join(lines)))
    assert [bool(clip.problem) for clip in read.clips] == [False, True, False]
    assert "the same" in read.clips[1].problem and "v1$_$0001" in read.clips[1].problem


def test_an_unknown_code_page_is_refused(root):
    text = "path,text,label,split\ny.wav,Этот фильм мне очень понравился,1,train\n"
    with pytest.raises(LabelFileError, match="save it again as UTF-8"):
        read_labels(write(root, text, "cp1251"))


def test_one_damaged_character_does_not_change_how_the_others_are_read(root):
    lines = "".join(f"y.wav,我很高兴 {i},1,train\n" for i in range(9))
    raw = ("path,text,label,split\n" + lines).encode() + b"sub/x.mp4,caf\xe9,1,train\n"
    read = read_labels(write(root, raw))
    assert read.clips[0].text == "我很高兴 0" and "1 characters are not UTF-8" in read.notes[0]


def test_a_bad_line_is_a_problem_of_its_own(root):
    read = read_labels(
        write(
            root,
            "video_id,clip_id,text,label,mode\n"
            "v1,0001,x,happy,train\n"
            "v1,0002,x,1,middle\n"
            "v9,1,x,1,train\n"
            "v2,a,x,1,train\n"
            "v2,a,again,1,train\n"
            "v3,1,x,inf,train\n",
        )
    )
    problems = [clip.problem for clip in read.clips]
    assert "label is 'happy', expected a number" in problems[0]
    assert "mode is 'middle', expected train, valid or test" in problems[1]
    assert "no clip at" in problems[2]
    assert problems[3] == ""
    assert "twice" in problems[4]
    assert "label is 'inf'" in problems[5]


@pytest.mark.parametrize(
    ("encoding", "words", "note"),
    [
        ("utf-8", "我很高兴", ""),
        ("utf-8-sig", "我很高兴", ""),
        ("utf-16", "我很高兴", "UTF-16"),
        ("gb18030", "我很高兴，真的", "GB18030"),
        ("gbk", "好", "GB18030"),
        ("cp1252", "café, très agréable", "Windows-1252"),
        ("cp1252", "It’s “great” – 5 €…", "Windows-1252"),
        ("utf-16-le", "我很高兴", "UTF-16"),
        ("utf-16-be", "It’s great", "UTF-16"),
    ],
)
def test_encodings_of_spreadsheets_are_read(root, encoding: str, words: str, note: str):
    text = f'video_id,clip_id,text,label,mode\nv1,0001,"{words}",1,train\n'
    read = read_labels(write(root, text, encoding))
    assert read.clips[0].text == words
    assert note in "".join(read.notes) and bool(read.notes) == bool(note)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,words,score\na,b,1\n", "found the columns name, words, score, expected video_id"),
        ("path,text,label\nx.mp4,hello,1\n", "missing: split"),
        ("video_id,clip_id,text,label,mode\n", "no line below it"),
        ("", "found an empty file"),
        (b"PK\x03\x04\0\0\0\0 a spreadsheet", "is no text"),
    ],
)
def test_a_file_that_fits_neither_layout_is_one_error(root, content, said: str):
    with pytest.raises(LabelFileError, match="expected") as refused:
        read_labels(write(root, content))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_label_file_names_the_columns(tmp_path):
    with pytest.raises(LabelFileError, match="video_id, clip_id, text, label, mode"):
        read_labels(tmp_path / "label.csv")
