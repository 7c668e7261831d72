"""Pretraining the embedded LM: texts are read clean, held out honestly, and the script runs and resumes."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer
from embedded_lm import corpora, packing, split
from embedded_lm.corpora import Document
from embedded_lm.ngrams import NGrams
from typer.testing import CliRunner, Result

from deepmlf_kit.errors import DeepMLFError

SCRIPT = Path(__file__).parents[1] / "scripts" / "pretrain_lm.py"


def texts_of(source: str, text: str) -> list[str]:
    return [document.text for document in corpora.parse(source, text)]


def write_zip(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"{path.stem}/{name}", text)
    return path


# Reading


def test_word_tags_are_taken_off():
    tagged = "\n\tThe/at jury/nn said/vbd ``/`` no/at ''/'' ./.\n\n\n\tIt/pps 's/bez either/or/cc ./.\n"
    assert texts_of("brown/ca01", tagged) == ['The jury said " no " .', "It 's either/or ."]


def test_chat_posts_lose_their_users_and_system_messages():
    xml = """<?xml version="1.0"?><Session><Posts>
    <Post class="Statement" user="x">11-08-20sUser110, see you soon<terminals><t pos="UH" word="see"/></terminals></Post>
    <Post class="System" user="y">PART<terminals/></Post>
    <Post class="Emotion" user="z">lol</Post></Posts></Session>"""
    assert texts_of("chat/a.xml", xml) == ["see you soon\nlol"]


def test_numbered_calls_become_talk_without_speakers():
    calls = "A.1: Uh, do you? \nB.2: Yeah <laughter>. \n\nB.1: Okay. \nA.2: Bye. \n"
    assert texts_of("switchboard/transcript", calls) == ["Uh, do you?\nYeah .", "Okay.\nBye."]


def test_the_plain_transcript_is_read_and_its_annotated_copies_are_not(tmp_path):
    members = {
        "transcript": "A.1: Hello there.\n",
        "tagged": "A.1: Hello/UH there/RB ./.\n",
        "README": "terms",
    }
    archive = write_zip(tmp_path / "calls.zip", members)
    assert [d.text for d in corpora.read_documents([archive])] == ["Hello there."]


def test_pros_and_cons_lose_their_tags_and_stay_apart():
    lines = "   <Cons>slow, &amp;quot;smart&amp;quot; flash</Cons>\n   <Cons>eats batteries</Cons>\n"
    assert texts_of("pros_cons/cons.txt", lines) == ['slow, "smart" flash', "eats batteries"]


def test_product_reviews_lose_features_and_strengths():
    review = "* header *\n[t]a fine camera\nuse[+2]##it is easy to use .\n##i like it .\n[t]bad\nzoom[-1]##weak zoom .\n"
    assert texts_of("reviews/x.txt", review) == [
        "a fine camera it is easy to use . i like it .",
        "bad weak zoom .",
    ]


def test_scripts_lose_speakers_and_stage_directions():
    scene = "White guy: So, any plans? [laughs]\nGirl #2: No.\n\nMan: Bye.\n"
    assert texts_of("web/overheard.txt", scene) == ["So, any plans?\nNo.", "Bye."]


def test_a_long_file_of_lines_is_a_list_and_a_short_one_is_running_text():
    many = "\n".join(f"sentence number {i} ." for i in range(300))
    assert len(texts_of("polarity/x.pos", many)) == 300
    assert texts_of("reviews/one.txt", "a film .\nit is fun .\n") == ["a film . it is fun ."]


def test_tables_give_dialogues_of_their_text_column():
    table = (
        "Sr No.,Utterance,Sentiment,Dialogue_ID\n1,Hi!,positive,0\n2,Go away.,negative,0\n3,What?,neutral,1\n"
    )
    assert texts_of("meld.csv", table) == ["Hi!\nGo away.", "What?"]


def test_a_table_without_text_says_which_columns_it_has():
    with pytest.raises(DeepMLFError, match=r"id, label.*utterance"):
        texts_of("t.csv", "id,label\n1,0\n")


def test_files_that_are_not_utf8_are_read():
    assert corpora.decode("caf\u00e9 \u2019s".encode("cp1252")) == "caf\u00e9 \u2019s"


def test_a_damaged_archive_is_refused_by_name(tmp_path):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(DeepMLFError, match=r"broken\.zip"):
        list(corpora.read_documents([broken]))


# Holding out


def probe_archive(folder: Path) -> Path:
    return write_zip(
        folder / "polarity.zip",
        {
            "p.pos": "\n".join(
                f"a warm and lovely film number {i} that i enjoyed a lot ." for i in range(60)
            ),
            "p.neg": "\n".join(f"a dull and awful film number {i} that i hated a lot ." for i in range(60)),
        },
    )


def test_no_probe_sentence_and_no_long_piece_of_one_stays_in_the_texts(tmp_path):
    probe = split.read_probe(probe_archive(tmp_path))
    kept = probe.test_texts[0]
    piece = "He wrote: " + " ".join(kept.split()[:9]) + " and went home."
    texts = [
        Document("a", (kept.upper(), "Something else.")),
        Document("b", (piece,)),
        Document("c", ("Fine.",)),
    ]
    assert [d.text for d in split.without_probe(texts, probe)] == ["Something else.", "Fine."]


def test_the_probe_takes_half_of_the_sentences_and_splits_them_cleanly(tmp_path):
    probe = split.read_probe(probe_archive(tmp_path))
    assert 40 < len(probe.texts) < 80
    assert not set(probe.train_texts) & set(probe.test_texts)
    assert {0, 1} == set(probe.train_labels) == set(probe.test_labels)
    assert all(("lovely" in t) == bool(y) for t, y in zip(probe.train_texts, probe.train_labels, strict=True))


def test_an_archive_without_polarity_files_is_refused(tmp_path):
    with pytest.raises(DeepMLFError, match=r"0 \.pos and 0 \.neg"):
        split.read_probe(write_zip(tmp_path / "x.zip", {"a.txt": "hello"}))


def test_the_same_words_are_held_out_together_whatever_their_file():
    one = [Document("a", (f"Sentence {i}, really!",)) for i in range(400)]
    other = [Document("b", (f"sentence {i} , REALLY !",)) for i in range(400)]
    held = [split.is_held_out(d, 10) for d in one]
    assert held == [split.is_held_out(d, 10) for d in other]
    assert 15 < sum(held) < 70


# Packing


def test_blocks_depend_on_the_seed_and_not_on_how_many_are_taken():
    encoded = [np.full(7, i, np.int32) for i in range(50)]
    weights = np.full(50, 1.5)
    first, second = packing.passes(encoded, weights, 10, 3), packing.passes(encoded, weights, 10, 3)
    for _ in range(2):
        assert np.array_equal(next(first), next(second))
    assert not np.array_equal(
        next(packing.passes(encoded, weights, 10, 4)), next(packing.passes(encoded, weights, 10, 3))
    )


def test_a_document_is_read_as_often_as_its_weight_says():
    encoded = [np.full(10, i, np.int32) for i in range(200)]
    weights = np.where(np.arange(200) < 100, 2.5, 0.5)
    counts = np.bincount(next(packing.passes(encoded, weights, 10, 0))[:, 0], minlength=200)
    assert set(counts[:100]) == {2, 3} and set(counts[100:]) == {0, 1}
    assert abs(counts[:100].mean() - 2.5) < 0.2


def test_the_longest_name_decides_a_weight():
    weights = {"webtext": 1.0, "webtext/firefox": 0.2}
    assert packing.weight_of("webtext/firefox.txt", weights) == 0.2
    assert packing.weight_of("webtext/wine.txt", weights) == 1.0
    assert packing.weight_of("other", weights) == 1.0


# N-grams


def test_ngram_probabilities_sum_to_one_in_every_context():
    stream = np.random.default_rng(0).integers(0, 12, 300)
    model = NGrams(stream, 15)  # ids 12 to 14 are never seen
    assert model.unigram.sum() == pytest.approx(1)
    for a, b in [(stream[0], stream[1]), (stream[5], 13), (14, stream[3]), (13, 13)]:
        rows = [np.exp(model.trigram_log_probs(np.array([a, b, c]))[0]) for c in range(15)]
        assert sum(rows) == pytest.approx(1) and min(rows) > 0


def test_the_trigram_beats_the_unigram_where_order_tells():
    stream = np.tile([1, 2, 3, 1, 4, 3], 60)
    model = NGrams(stream[:300], 6)
    tri, uni = model.trigram_log_probs(stream[300:]), model.unigram_log_probs(stream[302:])
    assert tri.mean() > uni.mean() + 0.8


def test_every_token_after_half_a_window_is_measured_once_with_its_context():
    import torch
    from embedded_lm.perplexity import lm_log_probs
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes))
    stream = np.random.default_rng(0).integers(0, 20, 37)
    positions, log_probs = lm_log_probs(model, stream, block=8, batch=3)
    assert positions.tolist() == list(range(4, 36))
    window = torch.from_numpy(stream[8:16])[None]  # position 14 stands in the second half of this one
    expected = model(input_ids=window).logits[0, 5].log_softmax(-1)[stream[14]].item()
    assert log_probs[14 - 4] == pytest.approx(expected, abs=1e-5)


# The script


TINY = ["--layers", "2", "--hidden", "32", "--heads", "2", "--intermediate", "32", "--vocab", "320"]
SHORT = ["--block", "16", "--batch", "4", "--held-out", "20", "--positions", "64"]


def tiny_texts(folder: Path) -> Path:
    things = ("film", "song", "phone", "story", "dinner")
    views = ("i love this {}, it made me happy .", "i hate this {}, it was a waste of time .")
    lines = [f"{view.format(thing)} take {i} ." for i in range(25) for thing in things for view in views]
    return write_zip(folder / "talk.zip", {"list.txt": "\n".join(lines)})


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def run_here(*arguments: object) -> Result:
    spec = importlib.util.spec_from_file_location("pretrain_lm", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    app = typer.Typer()
    app.command()(script.main)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_script_pretrains_measures_and_resumes(tmp_path):
    from embedded_lm.card import read_figures
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts, probe = tiny_texts(tmp_path), probe_archive(tmp_path)
    common = [texts, "--probe", probe, *TINY, *SHORT, "--save-every", 10]
    whole = [
        *common,
        "--out",
        tmp_path / "whole",
        "--checkpoints",
        tmp_path / "a",
        "--steps",
        20,
        "--note",
        "Our remark.",
    ]
    done = run_script(*whole)
    assert done.returncode == 0, done.stderr
    assert "trigram" in done.stdout and "probe" in done.stdout
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert model.config.num_hidden_layers == 2 and len(tokenizer) == model.config.vocab_size
    figures = read_figures(tmp_path / "whole")
    assert figures["perplexity"] < 320 and {"probe_lm", "probe_random_weights"} <= set(figures)
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "--layers 2" in card and "Our remark." in card and "--note" not in card
    assert str(round(figures["unigram_perplexity"], 1)) in card

    # A run that was killed after step 10 ends with the weights of the run that was not.
    (tmp_path / "b").mkdir()
    for name in ("settings.json", "tokenizer", "checkpoint-10"):
        (tmp_path / "a" / name).rename(tmp_path / "b" / name)
    again = run_here(*common, "--out", tmp_path / "again", "--checkpoints", tmp_path / "b", "--steps", 20)
    assert again.exit_code == 0, again.output
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again"))
    assert all((one[name] == two[name]).all() for name in one)

    other = run_here(*common, "--out", tmp_path / "o", "--checkpoints", tmp_path / "b", "--seed", 1)
    assert other.exit_code == 2 and "seed 0 (now 1)" in other.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "nowhere.txt is not a file"),
        (["--weight", "brown"], "SOURCE=TIMES"),
        (["--hidden", "30"], "multiple of 16"),
    ],
)
def test_bad_arguments_end_in_one_line_and_exit_code_2(tmp_path, arguments, message):
    texts = [] if arguments[0].endswith(".txt") else [tiny_texts(tmp_path)]
    folders = ["--out", tmp_path / "o", "--checkpoints", tmp_path / "c"]
    result = run_here(*TINY, *SHORT, *folders, *texts, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr and "Traceback" not in result.output
