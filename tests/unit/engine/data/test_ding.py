"""What a dictionary has becomes pairs of clean texts, or nothing."""

import re

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources import locate
from pipelines.engine.data.sources.ding import pairs
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import RowReport
from tests.support import ROOT


def kept(line: str) -> list[tuple[str, str, str]]:
    """The pairs of one line, each with its kind."""
    return [(pair.left, pair.right, pair.kind) for pair in pairs([line])]


def sentence(left: str, right: str) -> list[tuple[str, str, str]]:
    return [(left, right, "sentence")]


def phrase(left: str, right: str) -> list[tuple[str, str, str]]:
    return [(left, right, "phrase")]


def test_entries_of_a_line_are_read_beside_each_other():
    line = (
        "Boot {n}; Kahn {m} [naut.] | Boote {pl} | das Boot wenden; drehen | Das Boot sinkt. :: "
        "boat; barge [Br.] | boats | to turn the boat round; to veer | The boat is sinking."
    )
    assert kept(line) == [
        ("das Boot wenden", "to turn the boat round", "phrase"),
        ("Das Boot sinkt.", "The boat is sinking.", "sentence"),
    ]


def test_pairs_know_their_line_and_come_once():
    lines = [
        "# a remark | Er ist da. :: with | He is here.",
        "",
        "no divider",
        "Er geht heim. :: He goes home.",
        "Heim {n} | Er geht heim. | Er ging heim. :: home | He goes home. | He went home.",
        "Er geht heim. :: He is going home.",
    ]
    assert [(p.line, p.left, p.right) for p in pairs(lines)] == [
        (4, "Er geht heim.", "He goes home."),
        (5, "Er ging heim.", "He went home."),
        (6, "Er geht heim.", "He is going home."),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Er lacht laut. | Er weint. :: He laughs aloud.",
        "Er lacht laut. :: He laughs aloud. | He cries.",
        " :: ",
        "::",
        "Er lacht laut. ::",
        ":: He laughs aloud.",
    ],
)
def test_sides_that_do_not_agree_are_left_out(line):
    assert kept(line) == []


def test_synonyms():
    # As many sentences on both sides are in one order…
    assert kept("Er lacht laut.; Er brüllt ja. :: He laughs aloud.; He is roaring.") == [
        ("Er lacht laut.", "He laughs aloud.", "sentence"),
        ("Er brüllt ja.", "He is roaring.", "sentence"),
    ]
    # … and of unequal numbers, or of phrases, nobody knows more than the first.
    first = sentence("Er lacht laut.", "He laughs aloud.")
    assert kept("Er lacht laut.; Er brüllt ja.; Er johlt ja. :: He laughs aloud.; Ha ha.") == first
    assert kept("laut und lange lachen; laut brüllen :: to laugh out loud; to roar with joy") == (
        phrase("laut und lange lachen", "to laugh out loud")
    )


@pytest.mark.parametrize(
    ("left", "right", "clean"),
    [
        ("Das Haus {n} [arch.] ist (sehr) alt.", "The house <houses> is old.", "Das Haus ist alt."),
        ("Das Haus (am See (oben)) ist alt.", "The house is old.", "Das Haus ist alt."),
        ("Das {a [b (c) <d>]} Haus ist alt.", "The house is old.", "Das Haus ist alt."),
        ("Das Haus ist alt (geworden).", "The house is old.", "Das Haus ist alt."),
        ("Die Haus(meister)wohnung ist alt.", "The house is old.", "Die Hauswohnung ist alt."),
        ("Das Haus ist alt. [Sprw.] {a; b}", "The house is old. (so; so)", "Das Haus ist alt."),
        ("Das Haus /Hs./ ist alt.", "The house is old. /HIO/", "Das Haus ist alt."),
        ("Das  Haus\tist   alt .", "The house is old .", "Das Haus ist alt."),
        ("Das Haus ist’s.", "That’s the house.", "Das Haus ist's."),
        ("Das Haus ist alt/betagt.", "The house is old / aged.", "Das Haus ist alt."),
        ("Das Haus ist alt/betagt/grau, ja.", "The house is old.", "Das Haus ist alt, ja."),
        ("„Das Haus ist alt.“", "'The house is old.'", "„Das Haus ist alt.“"),
        ("12 Häuser sind alt!", "Twelve houses are old!", "12 Häuser sind alt!"),
        ("Öde Häuser?", "Bleak houses?", "Öde Häuser?"),
        ("Er kam am 2. Mai.", "He came on 2 May.", "Er kam am 2. Mai."),
    ],
)
def test_remarks_leave_no_gap(left, right, clean):
    ((one, other, kind),) = kept(f"{left} :: {right}")
    assert (one, kind) == (clean, "sentence")
    assert not re.search(r"[][{}()<>/’]|\s\s|\s[.!?]", one + other)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        # Nobody knows where a bracket that does not close ends.
        ("Das (alte Haus steht leer.", "The old house is empty."),
        ("Das alte] Haus steht leer.", "The old house is empty."),
        ("Das (alte [Haus) steht] leer.", "The old house is empty."),
        ("Das Haus steht leer.", "The house is > 2 m and empty."),
        # Which words an alternative is for, nobody knows either.
        ("Das alte/graue Haus steht leer.", "The old house is empty."),
        ("Er fährt 80 km/h.", "He drives 80 km/h."),
        # Shorthand of dictionaries.
        ("Er hilft jdm. immer.", "He always helps somebody."),
        ("Er hilft immer.", "He always helps sb. and sth."),
        ("Er sagt etw. dazu.", "He says something."),
        ("Er sagt … dazu.", "He says … to it."),
        ("Er sagt das...", "He says so..."),
        ("Er ist ~ alt.", "He is ~ old."),
        # A second translation on one side only.
        ("Er ist alt.", "He is old. He is aged."),
        ("Komm herein!", "Welcome!"),
        ("Er ist alt.", "he is old"),
        ("Ave Maria, gratia plena!", "Ave Maria, gratia plena!"),
        ("Das ist alt. [vulg.]", "That is old."),
        ("Das ist alt.", "That is old. [archaic]"),
    ],
)
def test_what_is_no_pair_of_sentences(left, right):
    assert kept(f"{left} :: {right}") == []
    # The neighbours of such an entry stay.
    assert kept(f"{left} | Er lacht laut. :: {right} | He laughs aloud.") == sentence(
        "Er lacht laut.", "He laughs aloud."
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("am See", "by the lake"),
        ("am frühen Morgen", "early morning"),
        ("ein altes Haus {n} kaufen (als Anlage)", "to buy an old house [Br.]"),
        ("ein Haus kaufen/erwerben", "to buy a house"),
        ("am Abend essen", "having dinner"),
    ],
)
def test_phrases(left, right):
    ((one, other, kind),) = kept(f"{left} :: {right}")
    assert kind == "phrase"
    assert not re.search(r"[][{}()/]|\s\s", one + other)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("altes Haus", "old house"),  # two words on both sides
        ("Hausboot {n}", "boat for living"),
        ("Boot zum Wohnen", "houseboat"),
        ("etw. am Abend tun", "to do it in the evening"),
        ("am Abend tun", "to do sth. in the evening"),
        ("am Abend usw. tun", "to do in the evening"),
        ("am Abend tun mit", "to do in the evening with"),
        ("am Abend … tun", "to do in the evening"),
        ("„Der alte Mann“", "'The old man of old'"),
        ("das Haus am See kaufend", "buying the house on the lake"),
        ("ein Boot, auf dem man auch in Ruhe wohnen kann", "a boat"),
        ("das alte Haus :", "the old house :"),
        ("Salt Lake City", "Salt Lake City"),
        ("das rote Boot [ornith.]", "the red boat"),
        ("das rote Boot", "the red boat [vulg.]"),
    ],
)
def test_what_is_no_phrase(left, right):
    assert kept(f"{left} :: {right}") == []


def test_names_of_a_subject_are_no_phrases_but_its_sentences_are():
    line = (
        "Ente {f} [ornith.] | rote kleine Ente | Die Ente ist rot. :: "
        "duck | small red duck | The duck is red."
    )
    assert kept(line) == sentence("Die Ente ist rot.", "The duck is red.")


# As a source

TEXT = """\
# Version :: 1
Boot {n} | das rote Boot | Das Boot ist rot. :: boat | the red boat | The boat is red.
Haus {n} | Das Haus ist alt. :: house | The house is old.
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two places, the first one empty."""
    roots = (tmp_path / "installed", tmp_path / "unpacked")
    monkeypatch.setattr(locate, "DEBIAN_ROOTS", roots)
    folders = tuple(root / "usr/share/trans" for root in roots)
    folders[1].mkdir(parents=True)
    (folders[1] / "de-en").write_text(TEXT, encoding="utf-8")
    return folders


def rows(source: str, *columns: str) -> list[tuple]:
    problems = RowReport()
    found = [(r.place, *(r.fields[c] for c in columns)) for r in read(source, columns, problems)]
    assert problems.examples == []
    assert problems.rows == len(found)
    return found


def error(source: str, *columns: str) -> str:
    with pytest.raises(UserError) as caught:
        list(read(source, columns, RowReport()))
    return str(caught.value)


def test_rows_of_a_dictionary(folders):
    expected = [
        ("de-en:2", "the red boat", "das rote Boot", "phrase"),
        ("de-en:2", "The boat is red.", "Das Boot ist rot.", "sentence"),
        ("de-en:3", "The house is old.", "Das Haus ist alt.", "sentence"),
    ]
    assert rows("ding:de-en", "en", "de", "kind") == expected
    folders[0].mkdir(parents=True)
    (folders[0] / "de-en").write_text("Der Rest fehlt. :: The rest is missing.\n")
    assert rows("ding:de-en", "en") == [("de-en:1", "The rest is missing.")]


def test_broken_utf8_in_a_dictionary_is_counted(folders):
    (folders[1] / "de-en").write_bytes(TEXT.encode().replace(b"old.", b"\xf6ld."))
    problems = RowReport()
    found = list(read("ding:de-en", ["de", "en"], problems))
    assert [row.fields["en"] for row in found] == ["the red boat", "The boat is red."]
    assert problems.examples == ["de-en:3: broken UTF-8 in column 'en'"]


def test_dictionary_that_is_not_there(folders):
    (folders[1] / "de-en").unlink()
    message = error("ding:de-en", "de")
    assert message == (
        "data: ding:de-en: not found; `make dictionary` fetches it (Debian's trans-de-en, no root "
        "needed), or choose CONFIG=configs/translation/multi30k-en-de.yaml"
    )
    assert (ROOT / message.rpartition("=")[2]).is_file()
    where = " or ".join(map(str, folders))
    assert error("ding:xx-yy", "xx") == f"data: ding:xx-yy: not found in {where}"


@pytest.mark.parametrize("name", ["", "de", "de-", "-en", "de-de", "../de-en", "de-en-fr", "de/en"])
def test_dictionary_without_a_name(folders, name):
    message = f"data: ding:{name}: which dictionary? write it as ding:de-en"
    assert error(f"ding:{name}", "de") == message


def test_columns_of_a_dictionary_are_its_languages(folders):
    assert error("ding:de-en", "en", "fr") == (
        "ding:de-en: no column 'fr'; there are: de, en, kind"
    )


def test_real_dictionary():
    if locate.find_debian_file("usr/share/trans/de-en") is None:
        pytest.skip("no dictionary; `make dictionary` fetches it")
    found = rows("ding:de-en", "de", "en", "kind")
    kinds = [kind for *_, kind in found]
    assert 17_000 < kinds.count("sentence") < 25_000
    assert 30_000 < kinds.count("phrase") < 45_000
    assert len({(de, en) for _, de, en, _ in found}) == len(found)
    texts = [text for _, de, en, _ in found for text in (de, en)]
    assert not [t for t in texts if re.search(r"[][{}()<>/|;’…]|\s\s|\b(etw|jdn|sb|sth)\b", t)]
    assert not [t for t in texts if t != t.strip() or len(t.split()) < 2]
