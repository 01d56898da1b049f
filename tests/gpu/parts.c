#include "runner.h"

#define SMALL  " --steps 2 --T 1 --size 16 --batch 1 --reward jpeg --precision fp32" /* the fakes take their time */
#define GOLDEN "tests/fixtures/golden/"
#define BF16   " --device {device} --precision bf16 " GOLDEN

/* In the order of what must be known first: eight minutes may end before the list does. */
const struct part parts[] = {
    {"device", "device", "gpu_check job device --device {device}", "gpu_check job device --device {device}", 60, false,
     "the plugin loads, the GPU answers, numbers travel there and back, a product is right, two clocks agree"},
    {"ops", "ops", "gpu_check ops --device {device} --spoil {spoil}",
     "gpu_check ops --device {device} --threads 2 --spoil {spoil}", 90, true,
     "every op on odd sizes: output and gradients within 1e-5 of the CPU's, a second run to the same bits"},
    {"ops-full-size", "ops", "gpu_check ops --device {device} --large", 0, 90, true,
     "the same at the sizes of SD 1.5 and CLIP-H"},
    {"ops-bf16", "ops", "gpu_check ops --device {device} --precision bf16",
     "gpu_check ops --device {device} --precision bf16 --threads 2", 60, true, "in bf16, within 2e-2"},
    {"ops-full-size-bf16", "ops", "gpu_check ops --device {device} --precision bf16 --large", 0, 90, true,
     "the same at full size"},

    {"golden/vae", "golden", "gpu_check golden --device {device} " GOLDEN "vae",
     "gpu_check golden --threads 2 --device {device} " GOLDEN "vae", 60, false, "beside PyTorch in float64"},
    {"golden/clip_l", "golden", "gpu_check golden --device {device} " GOLDEN "clip_l",
     "gpu_check golden --threads 2 --device {device} " GOLDEN "clip_l", 60, false, ""},
    {"golden/clip_h", "golden", "gpu_check golden --device {device} " GOLDEN "clip_h", 0, 60, false, ""},
    {"golden/unet_demo", "golden", "gpu_check golden --device {device} " GOLDEN "unet_demo", 0, 60, false, ""},
    {"golden/unet_sd15", "golden", "gpu_check golden --device {device} " GOLDEN "unet_sd15", 0, 60, false, ""},
    {"golden/unet_sd21", "golden", "gpu_check golden --device {device} " GOLDEN "unet_sd21", 0, 60, false, ""},
    {"golden/samplers", "golden", "gpu_check golden --device {device} " GOLDEN "samplers.safetensors", 0, 60, false,
     ""},
    {"golden/resize", "golden", "gpu_check golden --device {device} " GOLDEN "resize_bicubic_antialias.safetensors",
     "gpu_check golden --threads 2 --device {device} " GOLDEN "resize_bicubic_antialias.safetensors", 60, false, ""},
    {"golden/lpips", "golden", "gpu_check golden --device {device} " GOLDEN "lpips.safetensors", 0, 60, false, ""},
    {"golden/pictures", "golden", "gpu_check golden --device {device} " GOLDEN "pictures.safetensors", 0, 60, false,
     "diffusers' pictures of the same seeds"},

    {"golden-bf16/vae", "golden", "gpu_check golden" BF16 "vae", "gpu_check golden --threads 2" BF16 "vae", 60, false,
     "beside PyTorch in float64, in bf16: 3e-2 forward, 2e-1 gradients"},
    {"golden-bf16/clip_l", "golden", "gpu_check golden" BF16 "clip_l", "gpu_check golden --threads 2" BF16 "clip_l", 60,
     false, ""},
    {"golden-bf16/clip_h", "golden", "gpu_check golden" BF16 "clip_h", "gpu_check golden --threads 2" BF16 "clip_h", 60,
     false, ""},
    {"golden-bf16/unet_demo", "golden", "gpu_check golden" BF16 "unet_demo",
     "gpu_check golden --threads 2" BF16 "unet_demo", 60, false, ""},
    {"golden-bf16/unet_sd15", "golden", "gpu_check golden" BF16 "unet_sd15", 0, 60, false, ""},
    {"golden-bf16/unet_sd21", "golden", "gpu_check golden" BF16 "unet_sd21", 0, 60, false, ""},

    {"replay/k1", "replay", "gpu_check golden --device {device} " GOLDEN "draft_plus/k1.safetensors", 0, 60, false,
     "ten steps of DRaFT+ as PyTorch took them in float64: loss, reward, KL, gradients"},
    {"replay/k_all", "replay", "gpu_check golden --device {device} --recompute " GOLDEN "draft_plus/k_all.safetensors",
     0, 60, false, "DRaFT through all steps, recomputed"},
    {"replay/kl0", "replay", "gpu_check golden --device {device} " GOLDEN "draft_plus/kl0.safetensors", 0, 60, false,
     ""},
    {"replay/lv2", "replay", "gpu_check golden --device {device} " GOLDEN "draft_plus/lv2.safetensors", 0, 60, false,
     ""},

    {"job/same", "job", "gpu_check job same --device {device}", "gpu_check job same --device {device}" SMALL, 60, false,
     "two runs give the same checkpoint, to the bit"},
    {"job/eager", "job", "gpu_check job eager --device {device}", "gpu_check job eager --device {device}" SMALL, 60,
     false, "a step replayed as CUDA graphs gives the bits that it gives op by op"},
    {"job/resume", "job", "gpu_check job resume --device {device}", "gpu_check job resume --device {device}" SMALL, 60,
     false, "gone on from a checkpoint, to the bit"},
    {"job/rewards", "job", "gpu_check job rewards --device {device}", "gpu_check job rewards --device {device}" SMALL,
     60, false, "three steps with each reward as the CPU takes them: reward, loss and gradient within a hundredth"},
    {"job/full", "job", "gpu_check job full --device {device} --steps 2", "gpu_check job full --device {device}" SMALL,
     90, false, "on a full GPU a job fails with a sentence, and the next one runs"},
    {"job/refused", "job", "gpu_check job refused --device {device}", "gpu_check job refused --device {device}" SMALL,
     60, false, "a job that 8 GiB cannot hold is refused before it begins, with what would fit"},
    {"job/same-bf16", "job", "gpu_check job same --device {device} --precision bf16", 0, 60, false, "in bf16"},
    {"job/resume-bf16", "job", "gpu_check job resume --device {device} --precision bf16", 0, 60, false, "in bf16"},
    {"job/flat", "job", "gpu_check job flat --device {device} --steps 1000 --T 2",
     "gpu_check job flat --device {device}" SMALL, 120, false, "memory after 1000 steps is what it was after ten"},

    {"models/sd15", "models", "random_model sd15 {models}/sd15 --tokenizer deploy/demo/emoji-sd/tokenizer",
     "random_model tiny-sd1 {models}/sd15 --tokenizer tests/fixtures/era15/tokenizer", 60, false,
     "random full-size weights, made here"},
    {"models/clip-h", "models", "random_model clip-h {models}/clip-h --tokenizer deploy/demo/emoji-sd/tokenizer", 0, 60,
     false, ""},

    {"bench/batch1", "bench",
     "gpu_check bench {models}/sd15 {models}/clip-h --device {device} --precision bf16 --batch 1 --T 50 --K 1 "
     "--cfg 7.5 --kl 0.25 --rank 32 --warm 3 --steps 5 --preview 4 --profile 40",
     "gpu_check bench {models}/sd15 jpeg --device {device} --precision fp32 --batch 1 --T 2 --size 64 --rank 4 "
     "--warm 0 --steps 1 --preview 1 --profile 10",
     120, false,
     "DRaFT+ on SD 1.5 at 512x512 with CLIP-H: T = 50, guidance 7.5, K = 1, KL on; four pictures; where time goes"},
    {"bench/batch8", "bench",
     "gpu_check bench {models}/sd15 {models}/clip-h --device {device} --precision bf16 --batch 8 --T 50 --K 1 "
     "--cfg 7.5 --kl 0.25 --rank 32 --warm 2 --steps 3 --profile 20",
     0, 120, false, "eight pictures at once"},
    {"bench/batch1-fp32", "bench",
     "gpu_check bench {models}/sd15 {models}/clip-h --device {device} --precision fp32 --batch 1 --T 50 --K 1 "
     "--cfg 7.5 --kl 0.25 --rank 32 --warm 1 --steps 2",
     0, 90, false, "in fp32, without TF32"},
    {"peer/batch1", "peer", "python3 tests/peers/gpu_step.py {models}/sd15 {models}/clip-h --batch 1 --steps 5", 0, 90,
     false, "the same step in PyTorch: diffusers, bf16 autocast, channels_last, eager"},
    {"peer/batch8", "peer", "python3 tests/peers/gpu_step.py {models}/sd15 {models}/clip-h --batch 8 --steps 3", 0, 90,
     false, ""},
    {"peer/batch1-compiled", "peer",
     "python3 tests/peers/gpu_step.py {models}/sd15 {models}/clip-h --batch 1 --steps 5 --compile", 0, 120, false,
     "with torch.compile"},
    {"peer/batch8-compiled", "peer",
     "python3 tests/peers/gpu_step.py {models}/sd15 {models}/clip-h --batch 8 --steps 3 --compile", 0, 120, false, ""},
};
const int part_count = sizeof parts / sizeof *parts;

/* Goals: an H200, weights and activations in bf16. */
const struct benchmark benchmarks[] = {
    {"guided UNet steps", "1/s", "bench/batch1", "guided_steps_per_s", "peer/batch1", "peer/batch1-compiled", 120, 0, 0,
     false},
    {"DRaFT+ step, batch 1", "samples/s", "bench/batch1", "samples_per_s", "peer/batch1", "peer/batch1-compiled", 2.2,
     1.5, 1.5, false},
    {"DRaFT+ step, batch 8", "samples/s", "bench/batch8", "samples_per_s", "peer/batch8", "peer/batch8-compiled", 3,
     1.5, 1.1, false},
    {"DRaFT+ step, batch 1, fp32", "samples/s", "bench/batch1-fp32", "samples_per_s", 0, 0, 0, 0, 0, false},
    {"peak GPU memory, batch 1", "GB", "bench/batch1", "device_peak_gb", "peer/batch1", 0, 10, 0.5, 0, true},
    {"peak GPU memory, batch 8", "GB", "bench/batch8", "device_peak_gb", "peer/batch8", 0, 0, 0.5, 0, true},
    {"preview of 4 pictures", "s", "bench/batch1", "preview_seconds", 0, 0, 3, 0, 0, true},
};
const int benchmark_count = sizeof benchmarks / sizeof *benchmarks;
