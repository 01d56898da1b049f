#!/usr/bin/env python3
"""Our tokenizer beside transformers' CLIPTokenizer: thousands of strings in many scripts, emoji, punctuation, hostile bytes.

    python check_tokenizer.py build/tests/golden_check FOLDER [--count N] [--seed N] [--keep FILE]

FOLDER: a tokenizer/ (tests/tools/clip_vocabulary.py makes CLIP's own). Needs transformers 5, whose CLIPTokenizer is the one
of the tokenizers library (CLIPTokenizerFast before); the older Python one differs from it by ftfy where that was installed.
--keep writes the strings and transformers' ids as a fixture for golden_check (--count 3000 --seed 7 is clip_strings.json in
tests/fixtures/clip_vocabulary/strings.tar.xz).
Not here, because no prompt can hold them: NUL and bytes that are not UTF-8; both are refused before a tokenizer sees them.
Nor marks that came after Unicode 9 (some 90, as U+0EBA): the tokenizers library's NFC doesn't know their combining class and
leaves them where they stand; ours orders them as Unicode says.
"""
import argparse, json, pathlib, random, shutil, subprocess, sys, tempfile, unicodedata
from tokenizers.normalizers import NFC
from transformers import CLIPTokenizer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PROMPTS = [
    "a photo of an astronaut riding a horse on mars", "Masterpiece, best quality, 1girl, solo, looking at viewer, (cat:1.3), [[blurry]]",
    "portrait of an elf, intricate, elegant, highly detailed, digital painting, artstation, art by artgerm and greg rutkowski, 8k",
    "cat AND dog", "a (red) [blue] {green} <lora:add_detail:0.8> BREAK sky", "((masterpiece)), (photo-realistic:1.4), 35mm f/1.8", "a \\(literal\\) paren",
    "the year 1999-2024, $5.99 & 50% off #art @home", "don't I'll you've we're he'd she's i'm 'tis rock'n'roll DON'T I'LL YOU’VE ’s", "e=mc² H₂O ½ ⅓ Ⅷ ① ٣٤ १२३",
    f"text with {BEGIN} and {END} inside", f"{BEGIN}{BEGIN}", f"{END}x{END}", "<|StartOfText|> <|ENDOFTEXT|>", "<|startoftext|", "startoftext|> <|", "<start_of_text> a <end_of_text>",
    "", " ", "\t", "\n\r\n", "a\tb\nc\rd\x0be\x0cf\x1cg\x1dh\x1ei\x1fj\x85k\xa0l", "\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000x", "a\u200bb\u200cc\u200dd\u2060e\ufefff\u180eg",
    "\u202eright to left\u202c \u200fmark\u200e \u2066isolate\u2069", "\x01\x02\x03\x07\x08\x1b[31mred\x1b[0m\x7f\x80\x9f", "\ufffd\uffff\U0010ffff\ue000\U000f0000",
    "&amp; &lt;b&gt; &#39; &eacute; &nbsp;", "https://example.org/a?b=c&d=%20#e", "C:\\path\\file.txt a/b a_b a-b a—b a–b a…b", "...!!!???,,,;;;:::---___***", "“quotes” ‘single’ «guillemets» „low“ 「鉤」",
    "The quick brown fox jumps over the lazy dog", "Быстрая коричневая лиса", "Η γρήγορη αλεπού ΣΊΣΥΦΟΣ", "الثعلب البني السريع", "השועל החום המהיר", "तेज़ भूरी लोमड़ी", "สุนัขจิ้งจอกสีน้ำตาล",
    "敏捷的棕色狐狸跳过懒狗", "素早い茶色の狐が飛び越える", "빠른 갈색 여우", "Con cáo nâu nhanh nhẹn", "zażółć gęślą jaźń", "příliš žluťoučký kůň", "İSTANBUL ışık ğüşöç", "ǅ ǈ ß ẞ ŉ ﬁ ﬂ ﬃ Å Å K K Ω Ω",
    "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "հայերեն ՀԱՅԵՐԵՆ", "አማርኛ", "ខ្មែរ", "မြန်မာ", "ລາວ", "සිංහල", "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "বাংলা", "ગુજરાતી", "ਪੰਜਾਬੀ", "བོད་ཡིག", "ᐃᓄᒃᑎᑐᑦ", "ꦗꦮ", "𐐔𐐯𐑅𐐨𐑉𐐯𐐻", "𝕳𝖊𝖑𝖑𝖔 𝒲𝑜𝓇𝓁𝒹",
    "🦁", "👩‍👩‍👧‍👦", "👨🏽‍🚀", "🏳️‍🌈", "🇩🇪🇫🇷🇯🇵", "👍🏻👍🏿", "1️⃣#️⃣", "❤️‍🔥", "🫠🫨", "☃︎☃️", "a🦁b", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "z̴̧͎a̷l̸g̶o̵", "e\u0301 é a\u0328\u0301 q\u0307\u0323 \u0344 \u1100\u1161\u11a8", "\u0301x", "अ\u093c", "ש\u05c1\u05bc", "\ufb2c\u2126\u212b\u037e\u1fbe",
    "a" * 76, "a" * 200, "supercalifragilisticexpialidocious" * 9, "ab" * 300, "1" * 80, "!" * 120, "日" * 60, "🦁" * 40, "word " * 75, "word " * 76, "é" * 150, "\u0301" * 90, "A" * 4000,
]
# Blocks that are sampled letter by letter. All of it is in Unicode 14: what came later is not known to every library.
BLOCKS = [(0x21, 0x7e), (0xa1, 0xff), (0x100, 0x24f), (0x250, 0x2ff), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x52f), (0x531, 0x58f), (0x591, 0x5f4), (0x600, 0x6ff), (0x700, 0x74f), (0x780, 0x7bf),
          (0x900, 0x97f), (0x980, 0x9ff), (0xa00, 0xa7f), (0xa80, 0xaff), (0xb00, 0xb7f), (0xb80, 0xbff), (0xc00, 0xc7f), (0xc80, 0xcff), (0xd00, 0xd7f), (0xd80, 0xdff), (0xe00, 0xe7f), (0xe80, 0xeff), (0xf00, 0xfff),
          (0x1000, 0x109f), (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1200, 0x137f), (0x13a0, 0x13ff), (0x1400, 0x167f), (0x1780, 0x17ff), (0x1800, 0x18af), (0x1ab0, 0x1aff), (0x1c90, 0x1cbf), (0x1e00, 0x1eff),
          (0x1f00, 0x1fff), (0x2000, 0x206f), (0x2070, 0x209f), (0x20a0, 0x20cf), (0x20d0, 0x20ff), (0x2100, 0x214f), (0x2150, 0x218f), (0x2190, 0x23ff), (0x2460, 0x24ff), (0x2500, 0x27bf), (0x2c00, 0x2c5f),
          (0x2d00, 0x2d2f), (0x3000, 0x303f), (0x3040, 0x309f), (0x30a0, 0x30ff), (0x3130, 0x318f), (0x3200, 0x33ff), (0x4e00, 0x9fff), (0xa640, 0xa69f), (0xa720, 0xa7ff), (0xab30, 0xabbf), (0xac00, 0xd7a3),
          (0xf900, 0xfaff), (0xfb00, 0xfb4f), (0xfb50, 0xfdff), (0xfe00, 0xfe0f), (0xfe20, 0xfe6f), (0xff01, 0xffef), (0x10400, 0x1044f), (0x104b0, 0x104ff), (0x10900, 0x1091f), (0x118a0, 0x118ff), (0x12000, 0x123ff),
          (0x16e40, 0x16e9f), (0x1d100, 0x1d1ff), (0x1d400, 0x1d7ff), (0x1e900, 0x1e95f), (0x1f000, 0x1f0ff), (0x1f1e6, 0x1f1ff), (0x1f300, 0x1f64f), (0x1f680, 0x1f6ff), (0x1f900, 0x1faff), (0x20000, 0x2a6df), (0x2f800, 0x2fa1f),
          (0xe0020, 0xe007f), (0x1, 0x20), (0x7f, 0xa0)]
ATOMS = ["a", "cat", "The", " ", "  ", "\n", "'s", "'LL", "’s", "'", "\"", "1", "42", "½", "!", "?!", ",", ".", "-", "_", "(", ":1.3)", "&", "#", BEGIN, END, "<|EndOfText|>", "<|", "|>", "\u200d", "\ufe0f", "\u0301",
         "\u00a0", "\u200f", "🦁", "👍🏽", "日本", "한", "é", "ß", "İ", "Σ", "ﬁ", "don't", "Painting", "8k", "\u3000", "ア", "กำ", "क्ष"]


def letters(low, high):
    """The assigned characters of a block, without marks whose combining class is newer than the library's NFC."""
    nfc, out = NFC(), []
    for c in map(chr, range(low, high + 1)):
        beside = f"x\u0345{c}" if unicodedata.combining(c) < 240 else f"x{c}\u0334"
        if unicodedata.category(c) not in ("Cn", "Cs") and nfc.normalize_str(beside) == unicodedata.normalize("NFC", beside):
            out.append(c)
    return out


def strings(count, seed):
    pick = random.Random(seed)
    yield from PROMPTS
    blocks = [letters(*block) for block in BLOCKS]
    for known in blocks:
        yield "".join(known[:60])
        yield "x".join(pick.sample(known, min(len(known), 40)))
        for _ in range(max(1, count // (3 * len(BLOCKS)))):
            words = ["".join(pick.choice(known) for _ in range(pick.randint(1, 9))) for _ in range(pick.randint(1, 6))]
            yield pick.choice([" ", ", ", "-", ""]).join(words)
    for _ in range(count // 3):
        yield "".join(pick.choice(ATOMS) for _ in range(pick.choice([2, 3, 5, 8, 13, 30])))
    for _ in range(count // 3):
        yield "".join(pick.choice(pick.choice(blocks)) if pick.random() < .7 else pick.choice(ATOMS) for _ in range(pick.randint(1, 20)))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("golden_check")
    a.add_argument("folder")
    a.add_argument("--count", type=int, default=12000)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--keep", type=pathlib.Path, metavar="FILE")
    a = a.parse_args()
    theirs = CLIPTokenizer.from_pretrained(a.folder)
    length = theirs.model_max_length
    rows = [dict(text=s, ids=theirs(s, padding="max_length" if i < len(PROMPTS) else False, max_length=length, truncation=True).input_ids)
            for i, s in enumerate(strings(a.count, a.seed))]
    target = a.keep or pathlib.Path(tempfile.mkdtemp()) / "strings.json"
    with open(target, "w") as file:
        file.write(f'{{"model_max_length":{length},"rows":[\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]}\n")
    done = subprocess.run([a.golden_check, "--with", a.folder, str(target)], capture_output=True, text=True)
    wrong = [line for line in done.stdout.splitlines() if "PAST" in line or "FAILED" in line]
    print("\n".join(wrong[:40]) or done.stdout.splitlines()[-2])
    print(f"{len(rows)} strings, {len(wrong)} differences" + (f"; transformers' ids are in {target}" if wrong or a.keep else ""))
    if not wrong and not a.keep:
        shutil.rmtree(target.parent)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
