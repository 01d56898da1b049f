#!/usr/bin/env python3
"""Makes tests/fixtures/open_clip_texts.json: prompts, and what open_clip's tokenizer makes of them before it cuts them into
words: ftfy.fix_text and html.unescape, twice.

    python open_clip_texts.py FOLDER tests/fixtures/open_clip_texts.json
    python open_clip_texts.py FOLDER more.json --random 20000 && build/tests/test_open_clip_text more.json

FOLDER: CLIP's tokenizer (clip_vocabulary.py). Checks that open_clip's own ids of every fixed prompt are those of transformers'
CLIPTokenizer for the mended text. --random: strings of pieces of HTML, quotes and wide letters beside the fixed ones; those
that ftfy takes for wrongly decoded text, which we don't mend, are left out. Needs open_clip_torch and transformers.
"""
import argparse, html, json, random
import ftfy
import open_clip.tokenizer
from html.entities import html5
from transformers import CLIPTokenizer

PROMPTS = [
    "a lighthouse at night, oil on canvas", "the cat’s “big” day", "‘quoted’ ‚low‛ „double‟ ʼn", "it’s 5′ 10″ — really…", "ﬁne ﬂour oﬃce ﬀ ﬄ ﬅ ﬆ", "Ĳssel ĳs ŉ", "Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ",
    "ＦＵＬＬ　ｗｉｄｔｈ！？ １２３ ￥￡", "ｶﾞｷﾞ ﾊﾟ ｱｲｳ", "ￋﾰ ￩ ￮ ￣x", "zero\u200bwidth joiner 👩‍🚀 ❤️", "\ufeffbom \x07bell \x1b tab\tnew\nline \x7f", "\u206a\u206f\ufff9x\ufffc", "日本の猫 кот قطة חתול แมว नमस्ते 고양이", "naïve café e\u0301 å",
    "50% off & more <b>", "don't DON’T we’ll I’M", "", " ", "🦁🇩🇪", "a\u00a0b\u2003c\u3000d", "½ ² № ™ ① Ⅷ", "x" * 100,
    "&amp; &lt;b&gt; &#39;", "salt&amp;pepper &AMP &amp;amp; &amp;amp;amp;", "it&rsquo;s &#8220;big&#x201D; &#146;", "it&rsquo;s <b>&rsquo;</b>", "caf&eacute; caf&eacute CAF&EACUTE; &SZLIG; &napos; &NAPOS;",
    "fish&chips &notit; this&not that &copycat &GTDOT; &FFILIG;", "&#0; &#x110000; &#xD800; &#1; &#xFFFE; &#x81; &#99999999999999999999;", "&#59; &#12a; &#x0X41; &; &# &#x &#xg; & &&amp;", "&nGg; &ThickSpace;| &CounterClockwiseContourIntegral;",
    "e&#x301; &#x41; &nbsp; &NewLine; &Tab;", "one &rsquo;\ntwo < &rsquo;\nthree &rsquo;", "\x85 \x91quoted\x92 \x81", "&amp\u037e &\x07amp;",
]


def mended(text):
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def strings(count):
    """Pieces in any order, and each name of HTML once as it is, without its semicolon and in capitals."""
    pick = random.Random(1)
    names = sorted({name.rstrip(";") for name in html5})
    pieces = ["&", "#", ";", "x", "X", "&#", "&#x", "&#X", "&amp", "&amp;", "amp;", "&lt;", "<", "\n", " ", "a", "cat", "0", "9", "38", "146", "1F981", "d800", "10ffff", "999999999999", "’", "ﬁ", "Ａ", "；", "＆",
              "é", "e\u0301", "日", "🦁", "-", "\x92", "\u037e", "\u3000"]
    for name in names:
        yield f"&{name}; &{name} &{name.upper()};x&{name}y"
    for _ in range(count):
        yield "".join(pick.choice(pieces) if pick.random() < .7 else "&" + pick.choice(names)[:pick.choice([2, 3, 99])] + pick.choice([";", "", "x"])
                      for _ in range(pick.randint(1, 12)))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("folder")
    a.add_argument("out")
    a.add_argument("--random", type=int, default=0, metavar="N")
    a = a.parse_args()
    theirs, clip = open_clip.tokenizer.SimpleTokenizer(), CLIPTokenizer.from_pretrained(a.folder)
    for text in PROMPTS:
        assert theirs.encode(text) == clip(mended(text)).input_ids[1:-1], text
    more = list(strings(a.random)) if a.random else []
    kept = [text for text in more if ftfy.fix_text(text) == ftfy.fix_text(text, fix_encoding=False)]
    rows = [dict(text=text, mended=mended(text)) for text in PROMPTS + kept]
    with open(a.out, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")
    print(f"{len(rows)} texts; ftfy took {len(more) - len(kept)} more for wrongly decoded")


if __name__ == "__main__":
    main()
