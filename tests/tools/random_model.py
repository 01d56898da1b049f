"""Random Stable Diffusion and CLIP models of any size, so that anyone can test and measure without a download.

    python random_model.py PRESET OUT [--layout diffusers|ldm] [--dtype f16|f32] [--tokenizer DIR] [--headers]

PRESET: sd15, sd21 (768, v-prediction), sd21-base, clip-l, clip-h, tiny-sd1, tiny-sd2. OUT: a folder (diffusers' layout) or
a .safetensors file (ldm: the original names of single-file checkpoints; Stable Diffusion only). --tokenizer: copied to
OUT/tokenizer, or beside the file. --headers: names and shapes alone, over a hole of the file's full size that takes no disk: a
model to plan with (tests/engine/train/test_memory_full_size.c), of zeros. Needs numpy only, and for --headers not even that.

Weights are a function of diffusers' tensor name and the place in the tensor (`values` below), and exact in float16: the
same on every machine, in both layouts and every dtype. tests/engine/train/test_single_file.c has the same function in C.
"""
import argparse, json, math, pathlib, shutil, struct

CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
SD1 = dict(channels=[320, 640, 1280, 1280], context=768, heads=8, linear=False, sample=64, v=False,
           text=dict(width=768, wide=3072, layers=12, act="quick_gelu", vocab=49408, positions=77), vae=[128, 256, 512, 512])
SD2 = dict(channels=[320, 640, 1280, 1280], context=1024, heads=[5, 10, 20, 20], linear=True, sample=96, v=True,
           text=dict(width=1024, wide=4096, layers=23, act="gelu", vocab=49408, positions=77), vae=[128, 256, 512, 512])
TINY1 = dict(SD1, channels=[32, 64, 64, 64], context=128, vae=[32, 32, 64, 64],
             text=dict(SD1["text"], width=128, wide=256, layers=2, vocab=1018, positions=32))
TINY2 = dict(SD2, channels=[32, 32, 64, 128], context=64, heads=[1, 1, 1, 2], vae=[32, 32, 32, 64],
             text=dict(SD2["text"], width=64, wide=96, vocab=1018, positions=32))
PIPELINES = {"sd15": SD1, "sd21": SD2, "sd21-base": dict(SD2, sample=64, v=False), "tiny-sd1": TINY1, "tiny-sd2": TINY2}
CLIPS = {"clip-l": dict(text=dict(SD1["text"]), vision=dict(width=1024, wide=4096, layers=24, patch=14, act="quick_gelu"), projection=768),
         "clip-h": dict(text=dict(SD2["text"], layers=24), vision=dict(width=1280, wide=5120, layers=32, patch=14, act="gelu"), projection=1024)}
LAYERS, HEAD = 2, 64


def values(name, shape):
    """Tensor `name`: hashed integers in [-512, 511], scaled so that activations keep their size."""
    import numpy as np  # not above: --headers goes without
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    n = math.prod(shape)
    out = np.empty(n, np.float32)
    fan = math.prod(shape[1:]) if len(shape) > 1 else 1
    exponent = 0
    while 4 ** exponent < fan:
        exponent += 1
    for start in range(0, n, 1 << 22):
        z = np.arange(start, min(n, start + (1 << 22)), dtype=np.uint64) + np.uint64(h)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        v = ((z >> np.uint64(40)) & np.uint64(1023)).astype(np.int32) - 512
        if len(shape) > 1:
            piece = v.astype(np.float32) / 512 * np.float32(2.0 ** -exponent)
        else:
            piece = (v >> 3).astype(np.float32) / 512 + (1 if name.endswith("weight") else 0)
        out[start:start + len(piece)] = piece
    return out.reshape(shape)


# --- Shapes, by diffusers' and transformers' names ---------------------------------------------------------------------

def norm(s, name, c):
    s[name + ".weight"] = s[name + ".bias"] = (c,)


def linear(s, name, i, o, bias=True):
    s[name + ".weight"] = (o, i)
    if bias:
        s[name + ".bias"] = (o,)


def conv(s, name, i, o, k):
    s[name + ".weight"], s[name + ".bias"] = (o, i, k, k), (o,)


def resnet(s, name, i, o, time):
    norm(s, name + ".norm1", i)
    conv(s, name + ".conv1", i, o, 3)
    if time:
        linear(s, name + ".time_emb_proj", time, o)
    norm(s, name + ".norm2", o)
    conv(s, name + ".conv2", o, o, 3)
    if i != o:
        conv(s, name + ".conv_shortcut", i, o, 1)


def transformer(s, name, c, m):
    norm(s, name + ".norm", c)
    for p in ("proj_in", "proj_out"):
        linear(s, f"{name}.{p}", c, c) if m["linear"] else conv(s, f"{name}.{p}", c, c, 1)
    b = name + ".transformer_blocks.0"
    for a, width in (("attn1", c), ("attn2", m["context"])):
        linear(s, f"{b}.{a}.to_q", c, c, False)
        linear(s, f"{b}.{a}.to_k", width, c, False)
        linear(s, f"{b}.{a}.to_v", width, c, False)
        linear(s, f"{b}.{a}.to_out.0", c, c)
    linear(s, b + ".ff.net.0.proj", c, 8 * c)
    linear(s, b + ".ff.net.2", 4 * c, c)
    for i in (1, 2, 3):
        norm(s, f"{b}.norm{i}", c)


def unet(m):
    s, ch = {}, m["channels"]
    time, last = 4 * ch[0], len(ch) - 1
    conv(s, "conv_in", 4, ch[0], 3)
    linear(s, "time_embedding.linear_1", ch[0], time)
    linear(s, "time_embedding.linear_2", time, time)
    skips = [ch[0]]
    for b, c in enumerate(ch):
        for i in range(LAYERS):
            resnet(s, f"down_blocks.{b}.resnets.{i}", ch[max(b - 1, 0)] if i == 0 else c, c, time)
            if b < last:
                transformer(s, f"down_blocks.{b}.attentions.{i}", c, m)
            skips.append(c)
        if b < last:
            conv(s, f"down_blocks.{b}.downsamplers.0.conv", c, c, 3)
            skips.append(c)
    resnet(s, "mid_block.resnets.0", ch[-1], ch[-1], time)
    transformer(s, "mid_block.attentions.0", ch[-1], m)
    resnet(s, "mid_block.resnets.1", ch[-1], ch[-1], time)
    x = ch[-1]
    for b, c in enumerate(reversed(ch)):
        for i in range(LAYERS + 1):
            resnet(s, f"up_blocks.{b}.resnets.{i}", x + skips.pop(), c, time)
            x = c
            if b > 0:
                transformer(s, f"up_blocks.{b}.attentions.{i}", c, m)
        if b < last:
            conv(s, f"up_blocks.{b}.upsamplers.0.conv", c, c, 3)
    norm(s, "conv_norm_out", ch[0])
    conv(s, "conv_out", ch[0], 4, 3)
    return s


def vae(m):
    s, ch = {}, m["vae"]
    for side, order, layers, ends in (("encoder", ch, LAYERS, (3, 8)), ("decoder", ch[::-1], LAYERS + 1, (4, 3))):
        conv(s, f"{side}.conv_in", ends[0], order[0], 3)
        for b, c in enumerate(order):
            name = f"{side}.{'down' if side == 'encoder' else 'up'}_blocks.{b}"
            for i in range(layers):
                resnet(s, f"{name}.resnets.{i}", order[max(b - 1, 0)] if i == 0 else c, c, 0)
            if b + 1 < len(order):
                conv(s, f"{name}.{'downsamplers' if side == 'encoder' else 'upsamplers'}.0.conv", c, c, 3)
        for i in range(2):
            resnet(s, f"{side}.mid_block.resnets.{i}", ch[-1], ch[-1], 0)
        a = f"{side}.mid_block.attentions.0"
        norm(s, a + ".group_norm", ch[-1])
        for p in ("to_q", "to_k", "to_v", "to_out.0"):
            linear(s, f"{a}.{p}", ch[-1], ch[-1])
        norm(s, f"{side}.conv_norm_out", order[-1])
        conv(s, f"{side}.conv_out", order[-1], ends[1], 3)
    conv(s, "quant_conv", 8, 8, 1)
    conv(s, "post_quant_conv", 4, 4, 1)
    return s


def encoder(s, prefix, t):
    for i in range(t["layers"]):
        p = f"{prefix}.encoder.layers.{i}"
        for a in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(s, f"{p}.self_attn.{a}", t["width"], t["width"])
        norm(s, p + ".layer_norm1", t["width"])
        linear(s, p + ".mlp.fc1", t["width"], t["wide"])
        linear(s, p + ".mlp.fc2", t["wide"], t["width"])
        norm(s, p + ".layer_norm2", t["width"])


def text(t):
    s = {"text_model.embeddings.token_embedding.weight": (t["vocab"], t["width"]),
         "text_model.embeddings.position_embedding.weight": (t["positions"], t["width"])}
    encoder(s, "text_model", t)
    norm(s, "text_model.final_layer_norm", t["width"])
    return s


def clip(m):
    s, v = text(m["text"]), m["vision"]
    s["vision_model.embeddings.class_embedding"] = (v["width"],)
    s["vision_model.embeddings.patch_embedding.weight"] = (v["width"], 3, v["patch"], v["patch"])
    s["vision_model.embeddings.position_embedding.weight"] = ((224 // v["patch"]) ** 2 + 1, v["width"])
    norm(s, "vision_model.pre_layrnorm", v["width"])
    encoder(s, "vision_model", v)
    norm(s, "vision_model.post_layernorm", v["width"])
    linear(s, "visual_projection", v["width"], m["projection"], False)
    linear(s, "text_projection", m["text"]["width"], m["projection"], False)
    s["logit_scale"] = ()
    return s


# --- Configurations ----------------------------------------------------------------------------------------------------

def configs(m):
    n, t = len(m["channels"]), m["text"]
    return {
        "unet": dict(_class_name="UNet2DConditionModel", act_fn="silu", attention_head_dim=m["heads"], block_out_channels=m["channels"],
                     center_input_sample=False, cross_attention_dim=m["context"], down_block_types=[CROSS[0]] * (n - 1) + [PLAIN[0]],
                     downsample_padding=1, flip_sin_to_cos=True, freq_shift=0, in_channels=4, layers_per_block=LAYERS, mid_block_scale_factor=1,
                     norm_eps=1e-5, norm_num_groups=32, out_channels=4, sample_size=m["sample"],
                     up_block_types=[PLAIN[1]] + [CROSS[1]] * (n - 1), use_linear_projection=m["linear"]),
        "vae": dict(_class_name="AutoencoderKL", act_fn="silu", block_out_channels=m["vae"], down_block_types=["DownEncoderBlock2D"] * len(m["vae"]),
                    in_channels=3, latent_channels=4, layers_per_block=LAYERS, norm_num_groups=32, out_channels=3, sample_size=512,
                    scaling_factor=0.18215, up_block_types=["UpDecoderBlock2D"] * len(m["vae"])),
        "text_encoder": text_config(t),
        "scheduler/scheduler": dict(_class_name="DDIMScheduler", beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085, clip_sample=False,
                                    num_train_timesteps=1000, prediction_type="v_prediction" if m["v"] else "epsilon", set_alpha_to_one=False,
                                    steps_offset=1, timestep_spacing="leading"),
    }


def text_config(t):
    return dict(architectures=["CLIPTextModel"], attention_dropout=0.0, bos_token_id=0, eos_token_id=2, hidden_act=t["act"], hidden_size=t["width"],
                intermediate_size=t["wide"], layer_norm_eps=1e-5, max_position_embeddings=t["positions"], model_type="clip_text_model",
                num_attention_heads=max(1, t["width"] // HEAD), num_hidden_layers=t["layers"], pad_token_id=1, vocab_size=t["vocab"])


def clip_config(m):
    v = m["vision"]
    vision = dict(hidden_act=v["act"], hidden_size=v["width"], image_size=224, intermediate_size=v["wide"], layer_norm_eps=1e-5,
                  model_type="clip_vision_model", num_attention_heads=16, num_hidden_layers=v["layers"], patch_size=v["patch"], projection_dim=m["projection"])
    return dict(architectures=["CLIPModel"], logit_scale_init_value=2.6592, model_type="clip", projection_dim=m["projection"],
                text_config=dict(text_config(m["text"]), projection_dim=m["projection"]), vision_config=vision)


# --- The original names ------------------------------------------------------------------------------------------------

def ldm(m, shapes):
    """{original name: (shape, [diffusers' names it is made of, one after the other])} of a whole checkpoint."""
    out = {}
    n, r = len(m["channels"]), {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
                                "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    top = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
           "conv_norm_out": "out.0", "conv_out": "out.2"}
    for name, shape in shapes["unet"].items():
        p = name.split(".")
        if name.rsplit(".", 1)[0] in top:
            new = top[name.rsplit(".", 1)[0]] + "." + p[-1]
        elif p[0] == "mid_block":
            new = f"middle_block.{2 * int(p[2]) if p[1] == 'resnets' else 1}."
            new += ".".join([r[p[3]]] + p[4:]) if p[1] == "resnets" else ".".join(p[3:])
        else:
            b, i, up = int(p[1]), int(p[3]), p[0] == "up_blocks"
            place = (0 if up else 1) + b * (LAYERS + 1) + i
            stem = "output_blocks" if up else "input_blocks"
            if p[2] == "resnets":
                new = f"{stem}.{place}.0." + ".".join([r[p[4]]] + p[5:])
            elif p[2] == "attentions":
                new = f"{stem}.{place}.1." + ".".join(p[4:])
            elif up:
                new = f"{stem}.{place + LAYERS}.{1 if b == 0 else 2}.conv.{p[-1]}"
            else:
                new = f"{stem}.{place + LAYERS}.0.op.{p[-1]}"
        out["model.diffusion_model." + new] = (shape, ["unet/" + name])
    for name, shape in shapes["vae"].items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2").replace("mid_block.attentions.0", "mid.attn_1")
        for a, b in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            if ".attn_1." in new and f".attn_1.{a}." in new:
                new = new.replace(f".attn_1.{a}.", f".attn_1.{b}.")
                if b != "norm" and len(shape) == 2:
                    shape = (*shape, 1, 1)
        p = new.split(".")
        if p[1] in ("down_blocks", "up_blocks"):
            level = int(p[2]) if p[1] == "down_blocks" else len(m["vae"]) - 1 - int(p[2])
            kind = {"resnets": f"block.{p[4]}", "downsamplers": "downsample", "upsamplers": "upsample"}[p[3]]
            new = ".".join([p[0], p[1][:-7], str(level), kind] + p[5:])
        out["first_stage_model." + new] = (shape, ["vae/" + name])
    for name, shape in shapes["text_encoder"].items():
        if not m["linear"]:
            out["cond_stage_model.transformer." + name] = (shape, ["text_encoder/" + name])
            continue
        new = name.replace("text_model.embeddings.token_embedding", "token_embedding").replace("text_model.final_layer_norm", "ln_final")
        new = new.replace("text_model.embeddings.position_embedding.weight", "positional_embedding").replace("text_model.encoder.layers", "transformer.resblocks")
        for a, b in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
            new = new.replace(a, b)
        if "self_attn" not in new:
            out["cond_stage_model.model." + new] = (shape, ["text_encoder/" + name])
        elif "q_proj" in new:
            fused = new.replace("self_attn.q_proj.", "attn.in_proj_")
            names = ["text_encoder/" + name.replace("q_proj", f"{k}_proj") for k in "qkv"]
            out["cond_stage_model.model." + fused] = ((3 * shape[0], *shape[1:]), names)
    if m["linear"]:                                     # what SD 2.x files hold of CLIP-H beyond what is used
        t, last = m["text"], {}
        linear(last, "attn.out_proj", t["width"], t["width"]), norm(last, "ln_1", t["width"]), norm(last, "ln_2", t["width"])
        linear(last, "mlp.c_fc", t["width"], t["wide"]), linear(last, "mlp.c_proj", t["wide"], t["width"])
        last.update({"attn.in_proj_weight": (3 * t["width"], t["width"]), "attn.in_proj_bias": (3 * t["width"],)})
        for name, shape in last.items():
            out[f"cond_stage_model.model.transformer.resblocks.{t['layers']}.{name}"] = (shape, ["unused/" + name])
        out["cond_stage_model.model.text_projection"] = ((t["width"], t["width"]), ["unused/text_projection"])
        out["cond_stage_model.model.logit_scale"] = ((), ["unused/logit_scale"])
    else:
        out["model_ema.decay"] = ((), ["unused/decay"])
        out["alphas_cumprod"] = ((1000,), ["unused/alphas_cumprod"])
    return out


# --- Writing -----------------------------------------------------------------------------------------------------------

def write(path, tensors, dtype, headers, metadata=None):
    """{name: (shape, [what `values` are named after])}, one tensor in memory at a time; `headers`: a hole for the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size, code = (2, "F16") if dtype == "f16" else (4, "F32")
    header, offset = {"__metadata__": {"format": "pt", **(metadata or {})}}, 0
    for name, (shape, _) in tensors.items():
        n = math.prod(shape) * size
        header[name] = dict(dtype=code, shape=list(shape), data_offsets=[offset, offset + n])
        offset += n
    text_ = json.dumps(header, separators=(",", ":")).encode()
    text_ += b" " * (-len(text_) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text_)) + text_)
        if headers:
            file.truncate(8 + len(text_) + offset)
            return
        for shape, parts in tensors.values():
            each = (shape[0] // len(parts), *shape[1:]) if len(parts) > 1 else shape
            for part in parts:
                file.write(values(part, each).astype("float16" if dtype == "f16" else "float32").tobytes())


def named(part, shapes):
    return {name: (shape, [f"{part}/{name}"]) for name, shape in shapes.items()}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("preset", choices=[*PIPELINES, *CLIPS])
    a.add_argument("out", type=pathlib.Path)
    a.add_argument("--layout", choices=["diffusers", "ldm"], default="diffusers")
    a.add_argument("--dtype", choices=["f16", "f32"], default="f16")
    a.add_argument("--tokenizer", type=pathlib.Path)
    a.add_argument("--headers", action="store_true")
    a = a.parse_args()
    dump = lambda path, config: (path.parent.mkdir(parents=True, exist_ok=True), path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n"))
    if a.preset in CLIPS:
        m = CLIPS[a.preset]
        write(a.out / "model.safetensors", {n: (s, ["clip/" + n]) for n, s in clip(m).items()}, a.dtype, a.headers)
        dump(a.out / "config.json", clip_config(m))
    else:
        m = PIPELINES[a.preset]
        shapes = {"unet": unet(m), "vae": vae(m), "text_encoder": text(m["text"])}
        if a.layout == "ldm":
            write(a.out, ldm(m, shapes), a.dtype, a.headers, {"modelspec.prediction_type": "v" if m["v"] else "epsilon"})
        else:
            for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
                write(a.out / part / f"{stem}.safetensors", named(part, shapes[part]), a.dtype, a.headers)
            for part, config in configs(m).items():
                dump(a.out / (part + "_config.json" if "/" in part else part + "/config.json"), config)
            dump(a.out / "model_index.json", dict(_class_name="StableDiffusionPipeline", feature_extractor=[None, None], safety_checker=[None, None],
                                                  scheduler=["diffusers", "DDIMScheduler"], text_encoder=["transformers", "CLIPTextModel"],
                                                  tokenizer=["transformers", "CLIPTokenizer"], unet=["diffusers", "UNet2DConditionModel"],
                                                  vae=["diffusers", "AutoencoderKL"]))
    if a.tokenizer:
        shutil.copytree(a.tokenizer, (a.out.parent if a.layout == "ldm" else a.out) / "tokenizer", dirs_exist_ok=True)


if __name__ == "__main__":
    main()
