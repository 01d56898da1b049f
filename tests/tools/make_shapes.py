"""tests/fixtures/shapes: tiny models of shapes that the golden ones do not have, with what diffusers gives for them.

    python make_shapes.py OUT

unet_mixed: per-level layers, heads and transformer layers, other kernels, frequency shift, latents of odd sides; heads that do not
divide the channels. unet_plain_middle: UNetMidBlock2D. unet_no_middle: mid_block_type null. vae_bare: no middle attention, no quant
convolutions, one block.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peers"))
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from make import grads, save, scatter

COMMON = dict(in_channels=4, out_channels=4, norm_num_groups=4, cross_attention_dim=20)


def unet(out, name, config, gen, side, t):
    m = scatter(UNet2DConditionModel(**COMMON, **config), gen).double()
    x = torch.randn(2, 4, *side, generator=gen).double().requires_grad_()
    c = torch.randn(2, 5, 20, generator=gen).double().requires_grad_()
    y = m(x, t, encoder_hidden_states=c).sample
    dy = torch.randn(y.shape, generator=gen).double()
    y.backward(dy)
    case = dict(sample=x, context=c, timestep=torch.tensor([t]), output=y, d_output=dy, d_sample=x.grad, d_context=c.grad)
    grads(m, case, ["to_q.weight", "to_k.weight", "ff.net.2.weight", "conv_in.", "proj_out", "samplers"])
    save(f"{out}/{name}", m, case)


def vae(out, name, config, gen):
    m = scatter(AutoencoderKL(**config), gen).double()
    z = torch.randn(2, 3, 5, 7, generator=gen).double().requires_grad_()
    y = m.decode(z).sample
    dy = torch.randn(y.shape, generator=gen).double()
    y.backward(dy)
    f = 2 ** (len(config["block_out_channels"]) - 1)
    x = torch.rand(2, 3, 5 * f, 7 * f, generator=gen).double() * 2 - 1
    with torch.no_grad():
        dist = m.encode(x).latent_dist
    save(f"{out}/{name}", m, dict(latent=z, decoded=y, d_decoded=dy, d_latent=z.grad, image=x, mean=dist.mean, logvar=dist.logvar))


def main():
    out = sys.argv[1]
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    gen = torch.Generator().manual_seed(23)
    torch.manual_seed(23)
    unet(out, "unet_mixed", dict(
        sample_size=(13, 18), block_out_channels=(12, 16, 20), layers_per_block=[1, 2, 1], attention_head_dim=[5, 4, 2],
        transformer_layers_per_block=[2, 1, 2], down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), conv_in_kernel=5, conv_out_kernel=1, freq_shift=1,
        flip_sin_to_cos=False, time_embedding_dim=30, norm_eps=1e-3), gen, (13, 18), 77)
    unet(out, "unet_plain_middle", dict(
        sample_size=8, block_out_channels=(8, 12), layers_per_block=1, attention_head_dim=2, mid_block_type="UNetMidBlock2D",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")), gen, (8, 8), 3)
    unet(out, "unet_no_middle", dict(
        sample_size=8, block_out_channels=(8, 12), layers_per_block=1, attention_head_dim=2, mid_block_type=None, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")), gen, (8, 8), 999)
    vae(out, "vae_bare", dict(
        block_out_channels=(8, 12), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3,
        layers_per_block=1, norm_num_groups=4, mid_block_add_attention=False, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=.5), gen)


if __name__ == "__main__":
    main()
