#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer_more.json: strings and folders on which CLIP tokenizers disagree, with transformers' ids.

    python tests/tools/tokenizer_more.py deploy/demo/emoji-sd/tokenizer tests/fixtures/tokenizer_more.json

Needs transformers. Letters that came into Unicode after version 15 are left out: Debian 12's utf8proc does not know them.
"""
import json, os, random, shutil, sys, tempfile
from transformers import CLIPTokenizer

B, E = "<|startoftext|>", "<|endoftext|>"
TELLING = [
    "", " ", "\t\n", "a", "A", "aA", "lion", "LION", "the  lion ,  the\u00a0lion", "a\u3000b\u2028c\u0085d\u200be\u180ef\ufeffg", "a\x1cb\x1fc\x01d\x7fe",
    "don't", "DON'T", "don’t", "'tis", "'restaurant", "rock'n'roll", "''s", "x's's", "I'll'll", "'", "''", "a'", "l'été d'Anne", "they'd've",
    "1", "12", "123", "1a2b", "3.14", "12.5%", "½", "²", "Ⅷ", "１２", "٣٤", "1\u0301", "!", "!!", "!!!", "a!b", "!a!", "?!", "...", "--", "a-b", "a_b", "a/b\\c",
    "#1 @x $5 €7", "&amp;", "&lt;b&gt;", "</w>", "a</w>", "Ġa", "<", "<|", "|>", "<|x|>", "startoftext", "endoftext|>",
    B, E, f"{B}{E}", f"a{E}b", f"a {E} b", f"{B} a lion {E}", "<|StartOfText|>", "<|ENDOFTEXT|>", "x<|ENDOFTEXT|>y", "!!<|ENDOFTEXT|>!!", "<|ENDOFTEXT|><|endoftext|>", f"{E}{E}{E}",
    "\u00e9", "e\u0301", "E\u0301", "\u0344", "\u212b", "\u2126", "\u1100\u1161\u11a8", "각", "\ufb01", "\ufb2c", "\u1fbe", "\u037e", "a\u0300\u0301", "q\u0307\u0323", "\U0001d15e",
    "İ", "İSTANBUL", "ı", "ß", "ẞ", "ŉ", "ǅ", "Σ", "ΑΣ", "ς", "Ⱥ", "K", "ᾈ", "ℌ", "𐐀", "𞤀", "Ꮳ", "Ა", "ꭰ",
    "日本の猫", "日本 の 猫", "кот и собака", "ΓΑΤΑ", "قطة", "חתול", "แมว", "ಬೆಕ್ಕು", "नमस्ते", "🦁", "🦁🚀", "👩\u200d👩\u200d👧", "🇩🇪", "❤️", "a🦁b", "\U0010ffff", "\ue000",
    "a" * 29, "a" * 30, "a" * 31, "a" * 32, "lion" * 40, "a " * 29, "a " * 30, "a " * 31, "1" * 29, "1" * 30, "1" * 31, "é" * 20, "ab" * 100, "aab" * 60, "🦁" * 12,
    "butterfly", "butterflybutterfly", "butterflies", "reptile reptiles", "rrrrrrr", "onononon", "ronron",
]


def random_texts(n):
    pick = random.Random(7)
    atoms = ["a", "lion", "The", "'s", "'S", "'", "!", "?", B, E, "<|EndOfText|>", "<|", "|>", " ", "  ", "\n", "é", "e\u0301", "İ", "ß", "½", "7", "12", "日", "🦁", "\u0300", "ﬁ", "Σ", "_", "-", "&", "x_y",
             "don't", "butterfly", "\u200d", "\u00a0"]
    return ["".join(pick.choice(atoms) for _ in range(pick.choice([2, 3, 5, 8, 13]))) for _ in range(n)]


def token(content, normalized=True):
    return dict(content=content, lstrip=False, normalized=normalized, rstrip=False, single_word=False)


def folders():
    """The json files beside vocab.json and merges.txt, as they were written over the years."""
    old = dict(bos_token=dict(token(B), __type="AddedToken"), eos_token=dict(token(E), __type="AddedToken"), unk_token=dict(token(E), __type="AddedToken"), pad_token=E,
               model_max_length=77, tokenizer_class="CLIPTokenizer", do_lower_case=True, errors="replace")
    special = dict(token(B), special=True), dict(token(E), special=True), dict(token("!", False), special=True)
    yield "sd15", {"special_tokens_map.json": dict(bos_token=token(B), eos_token=token(E), unk_token=token(E), pad_token=E), "tokenizer_config.json": old}
    yield "sd21", {"special_tokens_map.json": dict(bos_token=token(B), eos_token=token(E), unk_token=token(E), pad_token="!"), "tokenizer_config.json": old}
    yield "decoder", {"special_tokens_map.json": dict(bos_token=B, eos_token=E, unk_token=E, pad_token=E),
                      "tokenizer_config.json": dict(added_tokens_decoder={"1016": special[0], "1017": special[1], "0": special[2]}, bos_token=B, eos_token=E, unk_token=E, pad_token="!",
                                                    model_max_length=77, tokenizer_class="CLIPTokenizer")}
    yield "mixed", {"special_tokens_map.json": dict(bos_token=B, eos_token=E, unk_token=token(E), pad_token=token(E))}
    yield "bare", {}
    yield "no_limit", {"tokenizer_config.json": dict(model_max_length=int(1e30))}
    yield "additional", {"special_tokens_map.json": dict(bos_token=B, additional_special_tokens=["rep", "!"])}


def rows(tokenizer, texts, length):
    out = []
    for text in texts:
        ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_token_id:
            ids.pop()
        out.append(dict(text=text, ids=ids))
    return out


def main():
    source, target = sys.argv[1:]
    demo = CLIPTokenizer.from_pretrained(source)
    result = dict(rows=rows(demo, TELLING + random_texts(60), demo.model_max_length), folders=[])
    texts = [B, E, f"a {E} b", "<|StartOfText|> a", "!!<|ENDOFTEXT|>!!x", "a lion!", "!", "hello!world", "!!!", "rep reptile!", "A lion", "", "é e\u0301 İ"]
    for name, files in folders():
        with tempfile.TemporaryDirectory() as folder:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(os.path.join(source, file), folder)
            for file, content in files.items():
                json.dump(content, open(os.path.join(folder, file), "w"))
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            result["folders"].append(dict(name=name, files={k: json.dumps(v) for k, v in files.items()}, max_length=77, pad=tokenizer.pad_token_id, rows=rows(tokenizer, texts, 77)))
    with open(target, "w") as file:
        compact = dict(ensure_ascii=True, separators=(",", ":"))
        file.write('{"rows":[\n' + ",\n".join(json.dumps(r, **compact) for r in result["rows"]) + '\n],"folders":[\n' + ",\n".join(json.dumps(f, **compact) for f in result["folders"]) + "\n]}\n")


if __name__ == "__main__":
    main()
