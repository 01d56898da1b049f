#!/usr/bin/env python3
"""Makes tests/fixtures/open_clip_texts.json: prompts and what ftfy makes of them, the first thing that open_clip's tokenizer does.

    python tests/tools/open_clip_texts.py FOLDER tests/fixtures/open_clip_texts.json

FOLDER: CLIP's tokenizer (tests/tools/clip_vocabulary.py). Checks of every row that open_clip's own ids of the prompt are those
of transformers' CLIPTokenizer for the mended text. Needs open_clip_torch and transformers.
"""
import json, sys
import ftfy
import open_clip.tokenizer
from transformers import CLIPTokenizer

PROMPTS = [
    "a lighthouse at night, oil on canvas", "the cat’s “big” day", "‘quoted’ ‚low‛ „double‟ ʼn", "it’s 5′ 10″ — really…", "ﬁne ﬂour oﬃce ﬀ ﬄ ﬅ ﬆ", "Ĳssel ĳs ŉ", "Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ",
    "ＦＵＬＬ　ｗｉｄｔｈ！？ １２３ ￥￡", "ｶﾞｷﾞ ﾊﾟ ｱｲｳ", "ￋﾰ ￩ ￮ ￣x", "zero\u200bwidth joiner 👩‍🚀 ❤️", "\ufeffbom \x07bell \x1b tab\tnew\nline \x7f", "\u206a\u206f\ufff9x\ufffc", "日本の猫 кот قطة חתול แมว नमस्ते 고양이", "naïve café e\u0301 å",
    "50% off & more <b>", "don't DON’T we’ll I’M", "", " ", "🦁🇩🇪", "a\u00a0b\u2003c\u3000d", "½ ² № ™ ① Ⅷ", "x" * 100,
]


def main():
    theirs, clip = open_clip.tokenizer.SimpleTokenizer(), CLIPTokenizer.from_pretrained(sys.argv[1])
    rows = []
    for text in PROMPTS:
        mended = ftfy.fix_text(text)
        assert theirs.encode(text) == clip(mended).input_ids[1:-1], text
        rows.append(dict(text=text, mended=mended))
    with open(sys.argv[2], "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
