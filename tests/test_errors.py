"""What messages quote of a stranger's file: short, on one line, and harmless to a terminal."""

from deepmlf_kit.errors import excerpt


def test_an_excerpt_is_short_and_keeps_both_ends():
    quoted = excerpt("begin" + "x" * 10_000_000 + "end", 60)
    assert len(quoted) <= 60 and quoted.startswith("begin") and quoted.endswith("end")


def test_an_excerpt_shows_no_control_character_and_no_mark_of_direction():
    quoted = excerpt("red\x1b[31m\nnext\x07 line\u202eback \ud800")
    assert quoted.isprintable() and "\\x1b[31m next\\x07 line\\u202eback" in quoted
    quoted.encode()


def test_an_excerpt_of_bytes_or_of_a_container_is_bounded_too():
    assert excerpt(b"\xff\x00abc") == "\\xff\\x00abc"
    assert len(excerpt({"key": list(range(100_000))})) <= 80
