"""tests/fixtures/era15: a tiny pipeline and a CLIP folder as they were written in the Stable Diffusion 1.5 era.

    python make_era15.py OUT

Configs hold only the keys of that time (diffusers 0.6.0 and 0.4.2, transformers 4.16 to 4.22), weights have the old names
(the VAE's query, key, value, proj_attn; "text_model." and position_ids in the text encoder) and are float16. What they must
give is computed by today's diffusers and transformers, in float64, from these same folders: case.safetensors in each.
era15_run.safetensors beside OUT is a training run on it:

    python ../peers/draft_plus.py OUT ../../deploy/demo/emoji-clip --steps 3 --batch 2 --T 4 --K 2 --rank 1 --kl 0.3 --lr 1e-2
        --double --prompts "a lion|a small banana" --golden OUT_run.safetensors
"""
import json, pathlib, shutil, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peers"))
import torch
from safetensors.torch import save_file
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel
from make import grads, scatter

CROSS_DOWN, CROSS_UP = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3

UNET = dict(_class_name="UNet2DConditionModel", _diffusers_version="0.6.0", act_fn="silu", attention_head_dim=8,
            block_out_channels=[16, 16, 16, 24], center_input_sample=False, cross_attention_dim=24, down_block_types=CROSS_DOWN,
            downsample_padding=1, flip_sin_to_cos=True, freq_shift=0, in_channels=4, layers_per_block=1, mid_block_scale_factor=1,
            norm_eps=1e-05, norm_num_groups=8, out_channels=4, sample_size=16, up_block_types=CROSS_UP)

VAE = dict(_class_name="AutoencoderKL", _diffusers_version="0.4.2", act_fn="silu", block_out_channels=[8, 16, 16],
           down_block_types=["DownEncoderBlock2D"] * 3, in_channels=3, latent_channels=4, layers_per_block=1, norm_num_groups=8,
           out_channels=3, sample_size=64, up_block_types=["UpDecoderBlock2D"] * 3)
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

TEXT = dict(_name_or_path="openai/clip-vit-large-patch14", architectures=["CLIPTextModel"], attention_dropout=0.0, bos_token_id=0, dropout=0.0,
            eos_token_id=2, hidden_act="quick_gelu", hidden_size=24, initializer_factor=1.0, initializer_range=0.02, intermediate_size=96,
            layer_norm_eps=1e-05, max_position_embeddings=32, model_type="clip_text_model", num_attention_heads=4, num_hidden_layers=2,
            pad_token_id=1, projection_dim=24, torch_dtype="float32", transformers_version="4.22.0.dev0", vocab_size=1018)

SCHEDULER = dict(_class_name="PNDMScheduler", _diffusers_version="0.6.0", beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085,
                 num_train_timesteps=1000, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False)

INDEX = dict(_class_name="StableDiffusionPipeline", _diffusers_version="0.6.0", feature_extractor=["transformers", "CLIPFeatureExtractor"],
             safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"], scheduler=["diffusers", "PNDMScheduler"],
             text_encoder=["transformers", "CLIPTextModel"], tokenizer=["transformers", "CLIPTokenizer"],
             unet=["diffusers", "UNet2DConditionModel"], vae=["diffusers", "AutoencoderKL"])

# What transformers 4.16 dumped into every part of a CLIPModel's config.
DUMP = dict(_name_or_path="", add_cross_attention=False, architectures=None, attention_dropout=0.0, bad_words_ids=None, bos_token_id=0,
            chunk_size_feed_forward=0, cross_attention_hidden_size=None, decoder_start_token_id=None, diversity_penalty=0.0, do_sample=False,
            dropout=0.0, early_stopping=False, encoder_no_repeat_ngram_size=0, eos_token_id=2, finetuning_task=None, forced_bos_token_id=None,
            forced_eos_token_id=None, hidden_act="quick_gelu", id2label={"0": "LABEL_0", "1": "LABEL_1"}, initializer_factor=1.0,
            initializer_range=0.02, is_decoder=False, is_encoder_decoder=False, label2id={"LABEL_0": 0, "LABEL_1": 1}, layer_norm_eps=1e-05,
            length_penalty=1.0, max_length=20, min_length=0, no_repeat_ngram_size=0, num_beam_groups=1, num_beams=1, num_return_sequences=1,
            output_attentions=False, output_hidden_states=False, output_scores=False, pad_token_id=1, prefix=None, problem_type=None,
            pruned_heads={}, remove_invalid_values=False, repetition_penalty=1.0, return_dict=True, return_dict_in_generate=False,
            sep_token_id=None, task_specific_params=None, temperature=1.0, tf_legacy_loss=False, tie_encoder_decoder=False,
            tie_word_embeddings=True, tokenizer_class=None, top_k=50, top_p=1.0, torch_dtype=None, torchscript=False,
            transformers_version="4.16.0.dev0", typical_p=1.0, use_bfloat16=False)
TEXT_DICT = dict(hidden_size=24, intermediate_size=64, num_attention_heads=3, num_hidden_layers=2, vocab_size=200, max_position_embeddings=20)
CLIP = dict(_commit_hash=None, architectures=["CLIPModel"], initializer_factor=1.0, logit_scale_init_value=2.6592, model_type="clip", projection_dim=16,
            # text_config_dict, completed by the class defaults, overrides text_config: 2 layers, not 5; end token 49407, not 2
            text_config=dict(DUMP, **dict(TEXT_DICT, num_hidden_layers=5), model_type="clip_text_model", projection_dim=16), text_config_dict=TEXT_DICT,
            torch_dtype="float32", transformers_version=None,
            vision_config=dict(DUMP, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, image_size=24,
                               patch_size=8, model_type="clip_vision_model", projection_dim=16), vision_config_dict=None)


def write(folder, config, weights, stem):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"{stem}.safetensors", metadata={"format": "pt"})


def keep(folder, case):
    save_file({k: v.detach().to(torch.int64 if v.dtype == torch.int64 else torch.float32).contiguous() for k, v in case.items()},
              folder / "case.safetensors")


def unet(folder, gen):
    made = scatter(UNet2DConditionModel(**{k: v for k, v in UNET.items() if k[0] != "_"}), gen)
    write(folder, UNET, made.state_dict(), "diffusion_pytorch_model")
    m = UNet2DConditionModel.from_pretrained(folder).double()
    x = torch.randn(2, 4, 16, 16, generator=gen).double().requires_grad_()
    c = torch.randn(2, 7, 24, generator=gen).double().requires_grad_()
    y = m(x, 261, encoder_hidden_states=c).sample
    dy = torch.randn(y.shape, generator=gen).double()
    y.backward(dy)
    case = dict(sample=x, context=c, timestep=torch.tensor([261]), output=y, d_output=dy, d_sample=x.grad, d_context=c.grad)
    grads(m, case, ["to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "ff.net.2.weight"])
    keep(folder, case)


def vae(folder, gen):
    made = scatter(AutoencoderKL(**{k: v for k, v in VAE.items() if k[0] != "_"}), gen)
    weights = {}
    for key, value in made.state_dict().items():
        for new, old in OLD_ATTENTION.items():
            if ".attentions.0." in key:
                key = key.replace(f".{new}.", f".{old}.")
        weights[key] = value
    write(folder, VAE, weights, "diffusion_pytorch_model")
    m = AutoencoderKL.from_pretrained(folder).double()
    z = torch.randn(1, 4, 8, 6, generator=gen).double().requires_grad_()
    y = m.decode(z).sample
    dy = torch.randn(y.shape, generator=gen).double()
    y.backward(dy)
    x = torch.rand(1, 3, 32, 24, generator=gen).double() * 2 - 1
    with torch.no_grad():
        dist = m.encode(x).latent_dist
    keep(folder, dict(latent=z, decoded=y, d_decoded=dy, d_latent=z.grad, image=x, mean=dist.mean, logvar=dist.logvar))


def prefixed(state):
    """Text weights under "text_model.", as they were before transformers 5."""
    return {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in state.items() if "position_ids" not in k}


def text_encoder(folder, gen):
    made = scatter(CLIPTextModel(CLIPTextConfig(**{k: v for k, v in TEXT.items() if k not in ("_name_or_path", "torch_dtype", "transformers_version")})), gen)
    write(folder, TEXT, {**prefixed(made.state_dict()), "text_model.embeddings.position_ids": torch.arange(32)[None]}, "model")
    m = CLIPTextModel.from_pretrained(folder, dtype=torch.float64)
    ids = torch.randint(3, 1016, (2, 32), generator=gen)
    with torch.no_grad():
        keep(folder, dict(ids=ids, text_hidden=m(input_ids=ids).last_hidden_state))


def clip(folder, gen):
    config = CLIPConfig(**json.loads(json.dumps(CLIP)))
    assert config.text_config.num_hidden_layers == 2 and config.text_config.eos_token_id == 49407
    made = scatter(CLIPModel(config), gen)
    with torch.no_grad():
        made.logit_scale.fill_(2.25)                    # exact in float16
    weights = {**{k: v for k, v in made.state_dict().items() if "position_ids" not in k},
               "text_model.embeddings.position_ids": torch.arange(20)[None], "vision_model.embeddings.position_ids": torch.arange(10)[None]}
    write(folder, CLIP, weights, "model")
    m = CLIPModel.from_pretrained(folder, dtype=torch.float64)
    ids = torch.randint(3, 190, (2, 20), generator=gen)
    x = torch.randn(2, 3, 24, 24, generator=gen).double().requires_grad_()
    o = m(input_ids=ids, pixel_values=x)
    score = torch.diagonal(o.logits_per_image)
    w = torch.tensor([1., -2.]).double()
    (score * w).sum().backward()
    keep(folder, dict(ids=ids, pixels=x, text_hidden=o.text_model_output.last_hidden_state, text_embeds=o.text_embeds, image_embeds=o.image_embeds,
                      vision_hidden=o.vision_model_output.last_hidden_state, score=score, d_score=w, d_pixels=x.grad))


def main():
    out = pathlib.Path(sys.argv[1])
    gen = torch.Generator().manual_seed(15)
    torch.manual_seed(15)
    unet(out / "unet", gen)
    vae(out / "vae", gen)
    text_encoder(out / "text_encoder", gen)
    clip(out / "clip", gen)
    (out / "scheduler").mkdir(exist_ok=True)
    (out / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2, sort_keys=True) + "\n")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2, sort_keys=True) + "\n")
    demo = pathlib.Path(__file__).resolve().parents[2] / "deploy/demo/emoji-sd/tokenizer"
    shutil.copytree(demo, out / "tokenizer", dirs_exist_ok=True)


if __name__ == "__main__":
    main()
