#!/usr/bin/env python3
"""Makes tests/fixtures/rewards/: small random models of the rewards hps, aesthetic and imagereward in the layouts in which
their weights are shared, and for each, and for jpeg, a case.safetensors of pictures, rewards and gradients to the pictures.

    python tests/tools/make_rewards.py deploy/demo/emoji-clip tests/fixtures/rewards [NAME ...]

Needs torch, transformers, open_clip_torch and timm. Weights are float16; results are computed in float64.
The architectures are not written again here: hps is open_clip's CLIP, aesthetic transformers' CLIPModel, imagereward
timm's VisionTransformer (which BLIP's vit.py is a copy of) and transformers' BlipTextModel (BLIP's med.py).
"""
import json, os, random, shutil, sys, unicodedata
from functools import partial
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

demo, target, *only = sys.argv[1:]
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).double().view(1, 3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).double().view(1, 3, 1, 1)
PROMPTS = ["a lion", "A small Owl on a BLUE background!"]
SIZES = dict(wide=(30, 53), tall=(63, 44), odd=(33, 45), same=(32, 32))


def resize(x, h, w):
    return x if (h, w) == tuple(x.shape[2:]) else F.interpolate(x, size=(h, w), mode="bicubic", antialias=True, align_corners=False)


def cut(x, size, offset):
    h, w = x.shape[2:]
    x = resize(x, *((size, int(size * w / h)) if h <= w else (int(size * h / w), size)))
    top, left = offset(x.shape[2] - size), offset(x.shape[3] - size)
    return (x[..., top:top + size, left:left + size] - MEAN) / STD


def cut_huggingface(x, size):  # CLIPImageProcessor
    return cut(x, size, lambda left: left // 2)


def cut_torchvision(x, size):  # Resize, CenterCrop
    return cut(x, size, lambda left: int(round(left / 2.0)))


def pad(x, size):  # hpsv2's ResizeMaxSize
    h, w = x.shape[2:]
    scale = size / float(max(h, w))
    if scale != 1.0:
        h, w = (round(side * scale) for side in (h, w))
        x = resize(x, h, w)
    return (F.pad(x, ((size - w) // 2, size - w - (size - w) // 2, (size - h) // 2, size - h - (size - h) // 2)) - MEAN) / STD


def cases(score, sizes=SIZES, seed=3):
    """score(pictures, prompts) -> [2]; a dict of each size's pictures, rewards and d(r0 - 2 r1)/d pictures"""
    gen, out = torch.Generator().manual_seed(seed), {}
    for name, size in sizes.items():
        x = F.interpolate(torch.rand(2, 3, 6, 6, generator=gen), size=size, mode="bilinear").double().requires_grad_()
        reward = score(x, PROMPTS)
        (reward * torch.tensor([1.0, -2.0]).double()).sum().backward()
        out.update({f"{name}/image": x.detach().permute(0, 2, 3, 1), f"{name}/reward": reward.detach(),
                    f"{name}/d_image": x.grad.permute(0, 2, 3, 1)})
        print(name, reward.tolist(), x.grad.norm().item())
    return {k: v.float().contiguous() for k, v in out.items()}


def randomize(model, seed):
    """Weights of the size that training gives, as float16 holds them; norms away from the identity."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=gen)
        if p.ndim == 0:
            p.data = torch.tensor(2.6592)
        elif p.ndim == 1:
            p.data = (1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise)
        elif "embed" in name or p.ndim == 3:
            p.data = 0.5 * noise
        else:
            p.data = noise * (1.2 / p[0].numel() ** 0.5)
        p.data = p.data.half().double()
    return model.double().requires_grad_(False).eval()


def save(folder, name, tensors):
    save_file({k: v.half().contiguous().clone() for k, v in tensors.items()}, f"{folder}/{name}.safetensors", metadata={"format": "pt"})


def write(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def folder(name):
    path = f"{target}/{name}"
    os.makedirs(path, exist_ok=True)
    return path


def copy_tokenizer(to):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(f"{demo}/{name}", to)


def tokenize():
    from transformers import CLIPTokenizer
    tokenizer = CLIPTokenizer.from_pretrained(demo)
    return tokenizer(PROMPTS, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids


# --- hps -------------------------------------------------------------------------------------------------------------

def hps():
    from open_clip.model import CLIP
    vision = dict(image_size=32, layers=2, width=64, head_width=16, patch_size=8, mlp_ratio=2.0)
    text = dict(context_length=32, vocab_size=1018, width=64, heads=2, layers=2, mlp_ratio=2.0)
    # (the configurations hold ints for whole numbers, the class wants a float)
    model = randomize(CLIP(48, vision, text), 11)
    ids = tokenize()

    def score(model):
        def run(x, _):
            image, words = model.encode_image(pad(x, 32), normalize=True), model.encode_text(ids, normalize=True)
            return (image * words).sum(-1)
        return run
    to = folder("hps")
    save(to, "open_clip_model", model.state_dict())
    copy_tokenizer(to)
    write(f"{to}/open_clip_config.json", dict(model_cfg=dict(embed_dim=48, vision_cfg=vision, text_cfg=text),
                                              preprocess_cfg=dict(mean=MEAN.flatten().tolist(), std=STD.flatten().tolist())))
    case = cases(score(model))
    # The same weights without a configuration: heads of 64, one in each tower here.
    plain = CLIP(48, {**vision, "head_width": 64}, {**text, "heads": 1})
    plain.load_state_dict(model.state_dict())
    case.update({f"plain/{k}": v for k, v in cases(score(plain.double().requires_grad_(False).eval()), {"odd": SIZES["odd"]}).items()})
    quick = CLIP(48, vision, text, quick_gelu=True)
    quick.load_state_dict(model.state_dict())
    case.update({f"quick/{k}": v for k, v in cases(score(quick.double().requires_grad_(False).eval()), {"odd": SIZES["odd"]}).items()})
    save_file(case, f"{to}/case.safetensors")
    convert(model, ids, score(model))


def convert(model, ids, reference):
    """The same weights as a CLIPModel: what a conversion to transformers' names gives."""
    from transformers import CLIPConfig, CLIPModel
    eos = json.load(open(f"{demo}/vocab.json"))["<|endoftext|>"]
    shared = dict(hidden_act="gelu", intermediate_size=128, hidden_size=64, num_hidden_layers=2)
    config = CLIPConfig(text_config=dict(shared, vocab_size=1018, max_position_embeddings=32, num_attention_heads=2, eos_token_id=eos,
                                         bos_token_id=eos - 1, pad_token_id=eos),
                        vision_config=dict(shared, image_size=32, patch_size=8, num_attention_heads=4), projection_dim=48)
    s, d = model.state_dict(), {}
    for ours, theirs in (("text_model.", ""), ("vision_model.", "visual.")):
        for i in range(2):
            a, b = f"{ours}encoder.layers.{i}.", f"{theirs}transformer.resblocks.{i}."
            for kind in ("weight", "bias"):
                for name, part in zip("qkv", s[f"{b}attn.in_proj_{kind}"].chunk(3)):
                    d[f"{a}self_attn.{name}_proj.{kind}"] = part
                for x, y in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                             ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                    d[f"{a}{x}.{kind}"] = s[f"{b}{y}.{kind}"]
    for kind in ("weight", "bias"):
        for x, y in (("text_model.final_layer_norm", "ln_final"), ("vision_model.pre_layrnorm", "visual.ln_pre"),
                     ("vision_model.post_layernorm", "visual.ln_post")):
            d[f"{x}.{kind}"] = s[f"{y}.{kind}"]
    d.update({"text_model.embeddings.token_embedding.weight": s["token_embedding.weight"],
              "text_model.embeddings.position_embedding.weight": s["positional_embedding"],
              "vision_model.embeddings.class_embedding": s["visual.class_embedding"],
              "vision_model.embeddings.patch_embedding.weight": s["visual.conv1.weight"],
              "vision_model.embeddings.position_embedding.weight": s["visual.positional_embedding"],
              "text_projection.weight": s["text_projection"].T, "visual_projection.weight": s["visual.proj"].T,
              "logit_scale": s["logit_scale"]})
    clip = CLIPModel(config)
    missing, unexpected = clip.load_state_dict(d, strict=False)
    assert not unexpected and all("position_ids" in m for m in missing), (missing, unexpected)
    clip = clip.double().requires_grad_(False).eval()
    x = torch.rand(2, 3, 48, 85, generator=torch.Generator().manual_seed(5)).double()
    out = clip(input_ids=ids, pixel_values=pad(x, 32))
    ours = (out.image_embeds * out.text_embeds).sum(-1)
    assert torch.allclose(ours, reference(x, PROMPTS), atol=1e-9)  # open_clip and transformers agree
    to = folder("hps_converted")
    save(to, "model", d)
    config.save_pretrained(to)
    copy_tokenizer(to)


# --- aesthetic -------------------------------------------------------------------------------------------------------

class Head(nn.Module):
    """improved-aesthetic-predictor's and ImageReward's MLP, with widths that are smaller by the same factor."""

    def __init__(self, width, wide):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, wide), nn.Dropout(0.2), nn.Linear(wide, wide // 2), nn.Dropout(0.2),
                                    nn.Linear(wide // 2, wide // 4), nn.Dropout(0.1), nn.Linear(wide // 4, 6), nn.Linear(6, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


def aesthetic():
    from transformers import CLIPConfig, CLIPModel
    shared = dict(hidden_act="quick_gelu", num_hidden_layers=2)
    config = CLIPConfig(text_config=dict(shared, vocab_size=1018, max_position_embeddings=8, num_attention_heads=2, eos_token_id=2,
                                         hidden_size=16, intermediate_size=32),
                        vision_config=dict(shared, image_size=32, patch_size=8, num_attention_heads=4, hidden_size=64,
                                           intermediate_size=160), projection_dim=56)
    clip, head = randomize(CLIPModel(config), 21), randomize(Head(56, 40), 22)
    to = folder("aesthetic")
    save(to, "model", clip.state_dict())
    save(to, "aesthetic", head.state_dict())
    config.save_pretrained(to)

    def score(x, _):
        out = clip.get_image_features(pixel_values=cut_huggingface(x, 32))
        e = out if torch.is_tensor(out) else out.pooler_output
        return head(e / e.norm(dim=-1, keepdim=True))
    save_file(cases(score), f"{to}/case.safetensors")


# --- imagereward -----------------------------------------------------------------------------------------------------

def vocabulary():
    """A WordPiece vocabulary as BERT's: special tokens, characters of several scripts, pieces, words."""
    letters = [chr(c) for r in ((0x61, 0x7B), (0x30, 0x3A), (0x3B1, 0x3CA), (0x430, 0x450), (0x5D0, 0x5D8)) for c in range(*r)]
    letters += list("ıßøłæ")
    signs = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + list("“”’…–、。¿")
    words = "the lion small owl blue back background a of on cat photo with high quality 4k portrait".split()
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += signs + letters + ["##" + x for x in letters] + list("中国日本語犬") + ["##ing", "##ground", "##iest", "한", "##국"]
    tokens += [w for w in words if w not in tokens]
    assert len(set(tokens)) == len(tokens)
    return tokens


def bert_tokenizer(path):
    from transformers import BertTokenizer
    tokenizer = BertTokenizer(vocab={t: i for i, t in enumerate(open(path, encoding="utf-8").read().split("\n")[:-1])})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return tokenizer


def strings():
    fixed = ["", " ", "a lion", "The Lion's photo, high-quality!", "unaffable", "ÀÉÎ çà Ñandú", "Straße ẞ ß", "İstanbul ıI", "ΑΒΓΣ ς ΌΣΟΣ",
             "Привет, МИР ёЁй", "中国 日本語 犬a犬", "ﬁne ﬃ ①²½", "a\u0301b\u0327c", "e\u0301\u0301\u0301", "\u0301start", "tab\there\nnew\r\nline",
             "zero\u200bwidth soft\u00adhyphen", "nb\u00a0space em\u2003space ideographic\u3000space", "line\u2028sep para\u2029sep",
             "\x01\x02control\x7f\x80\x85\x9f", "\ufeffbom \ufffd repl", "private\ue000use", "[MASK] is a [token]", "[mask] [Mask] [MASK][MASK]",
             "[DEC] a [ENC] b [dec]", "a[SEP]b[CLS]c[UNK]d[PAD]", "[DEC", "x" * 100, "x" * 101, "é" * 100, "é" * 101, "a" * 99 + "й", "한국어",
             "👍🏽 emoji 👩‍👩‍👧 🇩🇪", "don't won’t “quoted” – dash…", "$5 + 3 = 8 ^_^ `code` ~ |pipe|", "¿qué? ¡sí!", "a،b؟c।d", "שלום", "¨a ´ ˆ ｗｉｄｅ ＡＢＣ",
             "a lion " * 30, "word" * 9 + " " + "x y " * 40, "K Å ſ", "ǅ ǆ Ǆ", "Ａ\u030a", "가\u1100\u1161", "Ⅷ ⅷ", "\u0130\u0307", "𝐀𝒃", "𐐀𐐨", "ꭰ Ꮿ"]
    gen = random.Random(7)
    ranges = [(0x20, 0x7F)] * 6 + [(0xA0, 0x250), (0x250, 0x530), (0x530, 0x600), (0x900, 0xA00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2C00),
                                   (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0xFB10), (0xFE30, 0xFFF0), (0x1F300, 0x1F650), (0x20000, 0x20010)]
    def settled(text):  # marks and signs of newer Unicode versions than the tokenizers library's tables (8) are something else there
        return "".join(c for c in text if unicodedata.category(c)[0] not in "MPC" or unicodedata.ucd_3_2_0.category(c) != "Cn")

    for _ in range(400):
        fixed.append(settled("".join(gen.choice([chr(gen.randrange(*gen.choice(ranges))), gen.choice("abc 国ñ.")]) for _ in range(gen.randrange(1, 40)))))
    return fixed


def imagereward():
    from timm.models.vision_transformer import VisionTransformer
    from transformers import BlipTextConfig, BlipTextModel
    to, size = folder("imagereward"), 32
    tokens = vocabulary()
    with open(f"{to}/vocab.txt", "w", encoding="utf-8") as file:
        file.write("".join(t + "\n" for t in tokens))
    tokenizer = bert_tokenizer(f"{to}/vocab.txt")
    assert tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [len(tokens), len(tokens) + 1]
    rows = [json.dumps([s, tokenizer(s, truncation=True, max_length=35).input_ids]) for s in strings()]
    with open(f"{to}/wordpiece.json", "w") as file:
        file.write("[\n" + ",\n".join(rows) + "\n]\n")

    visual = randomize(VisionTransformer(img_size=size, patch_size=8, embed_dim=128, depth=2, num_heads=2, mlp_ratio=1.5, num_classes=0,
                                         norm_layer=partial(nn.LayerNorm, eps=1e-6)), 31)
    med = dict(architectures=["BertModel"], attention_probs_dropout_prob=0.1, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=48,
               initializer_range=0.02, intermediate_size=96, layer_norm_eps=1e-12, max_position_embeddings=40, model_type="bert",
               num_attention_heads=3, num_hidden_layers=2, pad_token_id=0, add_type_embeddings=False, vocab_size=len(tokens) + 2,
               encoder_width=96, add_cross_attention=True)  # as in BLIP's file; the program sets the true encoder_width
    config = BlipTextConfig(vocab_size=med["vocab_size"], hidden_size=48, encoder_hidden_size=128, intermediate_size=96, num_hidden_layers=2,
                            num_attention_heads=3, max_position_embeddings=40, hidden_act="gelu", layer_norm_eps=1e-12, is_decoder=True,
                            attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, pad_token_id=0)
    text = randomize(BlipTextModel(config, add_pooling_layer=False), 32)
    text.embeddings.word_embeddings.padding_idx = None
    mlp = randomize(Head(48, 40), 33)
    write(f"{to}/med_config.json", med)
    weights = {f"blip.visual_encoder.{k}": v for k, v in visual.state_dict().items()}
    weights.update({f"blip.text_encoder.{k}": v for k, v in text.state_dict().items()})
    weights.update({f"mlp.{k}": v for k, v in mlp.state_dict().items()})
    # of BLIP's pretraining; in the published file, without a part in the score
    weights.update({f"blip.{name}_proj.{kind}": torch.zeros(8, width) if kind == "weight" else torch.zeros(8)
                    for name, width in (("vision", 128), ("text", 48)) for kind in ("weight", "bias")})
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    save_file({k: (v if v.dtype == torch.int64 else v.half()).contiguous().clone() for k, v in weights.items()},
              f"{to}/ImageReward.safetensors", metadata={"format": "pt"})

    def score(x, prompts):
        image = visual.forward_features(cut_torchvision(x, size))
        words = tokenizer(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        out = text(input_ids=words.input_ids, attention_mask=words.attention_mask, encoder_hidden_states=image,
                   encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long), is_decoder=False)
        return (mlp(out.last_hidden_state[:, 0]) - 0.16717362830052426) / 1.0333394966054072
    save_file(cases(score), f"{to}/case.safetensors")


def jpeg(quality=95):
    """The estimate of engine/ops/jpeg_size.c from its formulas, differentiated by autograd."""
    luma = torch.tensor([[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
                         [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92], [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])
    chroma = torch.full((8, 8), 99)
    chroma[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
    zigzag = sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8))
    colour = torch.tensor([[.299, .587, .114], [-.168736, -.331264, .5], [.5, -.418688, -.081312]]).double()
    angle = torch.arange(8).double()[:, None] * (2 * torch.arange(8).double() + 1) * torch.pi / 16
    transform = torch.cos(angle) * torch.tensor([.125 ** .5] + 7 * [.5]).double()[:, None]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    kinds = [((table * scale + 50) // 100).clamp(1, 255).flatten()[zigzag].double() for table in (luma, chroma)]
    prices = [(1.13, 1.22, .80, 6), (2.40, .77, 1.49, 4)]

    def staircase(plane, kind):  # [h, w] -> [rows, columns, 64]
        blocks = plane.unfold(0, 8, 8).unfold(1, 8, 8)
        q = (transform @ blocks @ transform.T).flatten(2)[..., zigzag] / kinds[kind]
        return q - .75 * torch.sin(2 * torch.pi * q) / (2 * torch.pi)

    def nonzero(s):
        return s ** 2 / (s ** 2 + .25)

    def bits(s, dc, kind):
        code, magnitude, run, end = prices[kind]
        n, d = nonzero(s[1:]), s[0] - dc
        later = torch.stack([1 - torch.prod(1 - n[k + 1:]) for k in range(63)])
        return (end + (code * n + magnitude * torch.log2(1 + s[1:] ** 2) + run * (1 - n) * later).sum()
                + 3.83 * nonzero(d) + .41 * torch.log2(1 + d ** 2))

    def size(x):  # [3, h, w]
        h, w = x.shape[1:]
        x = F.pad(x[None], (0, -w % 16, 0, -h % 16), mode="replicate")[0]
        ycc = torch.einsum("ck,khw->chw", colour, 255 * x)
        planes = [staircase(ycc[0] - 128, 0)] + [staircase(F.avg_pool2d(ycc[None, k], 2)[0], 1) for k in (1, 2)]
        total, dc = torch.tensor(623 * 8.).double(), [0., 0., 0.]
        for i in range(x.shape[1] // 16):
            for j in range(x.shape[2] // 16):
                for k in range(4):
                    row, column = 2 * i + k // 2, 2 * j + k % 2
                    if row * 8 >= h or column * 8 >= w:
                        total = total + 6  # a dummy block
                        continue
                    total = total + bits(planes[0][row, column], dc[0], 0)
                    dc[0] = planes[0][row, column, 0]
                for k in (1, 2):
                    total = total + bits(planes[k][i, j], dc[k], 1)
                    dc[k] = planes[k][i, j, 0]
        return total / 8000

    save_file(cases(lambda x, prompts: -torch.stack([size(p) for p in x]), dict(wide=(18, 35), same=(16, 16))), f"{folder('jpeg')}/case.safetensors")


for make in (hps, aesthetic, imagereward, jpeg):
    if not only or make.__name__ in only:
        make()
