#!/usr/bin/env python3
"""Makes the tokenizer folder of CLIP (49408 tokens), as Stable Diffusion has it, from OpenAI's list of merges.

    python clip_vocabulary.py MERGES.gz OUT [--pad TOKEN]

MERGES.gz: bpe_simple_vocab_16e6.txt.gz of PyPI's open_clip_torch (in open_clip/), or its first 48895 lines, which are
tests/fixtures/clip_vocabulary/merges.txt.gz. OUT gets vocab.json, merges.txt, tokenizer_config.json and
special_tokens_map.json: the tokenizer/ of Stable Diffusion 1.x; with --pad '!' that of 2.x. Needs the standard library.
"""
import argparse, gzip, json, pathlib

MERGES = 49152 - 256 - 2
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def byte_names():
    """GPT-2's printable character for each byte, printable bytes first: the order of the vocabulary's first 256 tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(others))]


def token(content):
    return dict(content=content, lstrip=False, normalized=True, rstrip=False, single_word=False)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("merges", type=pathlib.Path)
    a.add_argument("out", type=pathlib.Path)
    a.add_argument("--pad", default=END, metavar="TOKEN")
    a = a.parse_args()
    with gzip.open(a.merges, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1:MERGES + 1]
    names = byte_names()
    vocabulary = names + [name + "</w>" for name in names] + [merge.replace(" ", "") for merge in merges] + [BEGIN, END]
    ids = {text: i for i, text in enumerate(vocabulary)}
    assert len(ids) == 49408, f"{a.merges}: {len(ids)} different tokens, expected 49408"
    special = dict(bos_token=token(BEGIN), eos_token=token(END), pad_token=a.pad, unk_token=token(END))
    typed = {k: dict(v, __type="AddedToken") if isinstance(v, dict) else v for k, v in special.items()}
    config = dict(typed, add_prefix_space=False, do_lower_case=True, errors="replace", model_max_length=77,
                  tokenizer_class="CLIPTokenizer")
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "vocab.json").write_text(json.dumps(ids))
    (a.out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (a.out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (a.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
