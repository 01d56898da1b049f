/*
 * Random full-size models on the machine that needs them: what tests/tools/random_model.py writes in float16, byte for
 * byte, without Python and on all cores. 4 GB, sd15 and clip-h together.
 *
 *   random_model sd15|clip-h|tiny-sd1 OUT [--tokenizer FOLDER] [--empty]     OUT: a folder; its files are written anew
 *
 * --empty: all numbers are zero and take no room on the disk, for who wants shapes alone.
 * A number is a hash of its tensor's name and its place: v of 1024 values, so a table of 1024 halves a tensor.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model_shapes.h"
#include "tensor/half.h"

static const struct pipeline_size SD15 = {.channels = {320, 640, 1280, 1280},
                                          .vae = {128, 256, 512, 512},
                                          .context = 768,
                                          .heads = 8,
                                          .sample = 64,
                                          .text = {768, 3072, 12, 49408, 77, "quick_gelu"}};
static const struct pipeline_size TINY = {.channels = {32, 64, 64, 64},
                                          .vae = {32, 32, 64, 64},
                                          .context = 128,
                                          .heads = 8,
                                          .sample = 64,
                                          .text = {128, 256, 2, 1018, 32, "quick_gelu"}};
static const struct clip_size CLIP_H = {.text = {1024, 4096, 24, 49408, 77, "gelu"},
                                        .width = 1280,
                                        .wide = 5120,
                                        .layers = 32,
                                        .patch = 14,
                                        .projection = 1024,
                                        .activation = "gelu"};

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "random_model: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

/* --- Values ---------------------------------------------------------------------------------------------------------
 */

enum { VALUES = 1024, PIECE = 1 << 20, MAX_THREADS = 64 };

struct piece_job {
    const struct model_tensors *list;
    const char *part; /* "unet": a value depends on "unet/<tensor's name>" */
    int file;
    int64_t *start; /* of each tensor, in numbers, and of the end */
    int64_t data;   /* where the file's numbers begin, in bytes */
    int64_t next;   /* piece that nobody has taken yet */
    bool failed;
    pthread_mutex_t lock;
};

static int64_t count_of(const struct model_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static uint64_t hash_of(const char *part, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    const char *text[] = {part, "/", name};
    for (int i = 0; i < 3; i++)
        for (const char *p = text[i]; *p; p++)
            h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    return h;
}

/* Values of a matrix shrink with its fan-in, so that activations keep their size; a norm's weight is near 1. */
static void make_table(const struct model_tensor *t, uint16_t table[VALUES])
{
    int64_t fan = 1;
    float shrink = 1;
    size_t length = strlen(t->name);
    bool gain = length > 6 && strcmp(t->name + length - 6, "weight") == 0;
    for (int i = 1; i < t->rank; i++)
        fan *= t->dim[i];
    for (int64_t square = 1; square < fan; square *= 4)
        shrink /= 2;
    for (int v = -VALUES / 2; v < VALUES / 2; v++) {
        float value = t->rank > 1 ? (float)v / 512 * shrink : (float)(v >> 3) / 512 + (gain ? 1 : 0);
        table[v + VALUES / 2] = draft_f32_to_f16(value);
    }
}

static void fill(const struct model_tensor *t, const char *part, int64_t first, int64_t count, uint16_t *out)
{
    uint16_t table[VALUES];
    uint64_t hash = hash_of(part, t->name);
    make_table(t, table);
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = hash + (uint64_t)(first + i);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        out[i] = table[z >> 40 & (VALUES - 1)];
    }
}

/* Takes pieces of the file until none is left. */
static void *work(void *context)
{
    struct piece_job *job = context;
    uint16_t *out = malloc(PIECE * sizeof *out);
    int64_t end = job->start[job->list->count];
    int tensor = 0;
    for (bool ok = out != NULL;;) {
        pthread_mutex_lock(&job->lock);
        job->failed |= !ok;
        int64_t first = job->next * PIECE;
        job->next++;
        pthread_mutex_unlock(&job->lock);
        if (!ok || first >= end)
            break;
        int64_t last = first + PIECE < end ? first + PIECE : end;
        for (int64_t at = first; at < last;) {
            while (at >= job->start[tensor + 1])
                tensor++;
            int64_t stop = last < job->start[tensor + 1] ? last : job->start[tensor + 1];
            fill(&job->list->tensor[tensor], job->part, at - job->start[tensor], stop - at, out + (at - first));
            at = stop;
        }
        ssize_t bytes = (ssize_t)((last - first) * (int64_t)sizeof *out);
        ok = pwrite(job->file, out, (size_t)bytes, job->data + first * (int64_t)sizeof *out) == bytes;
    }
    free(out);
    return NULL;
}

/* --- Files ----------------------------------------------------------------------------------------------------------
 */

static bool empty;

static void make_folder(const char *path)
{
    if (mkdir(path, 0755) != 0 && access(path, F_OK) != 0)
        fail("cannot make", path);
}

/* Length, header padded to 8 bytes; as Python's json writes it without spaces. */
static int64_t write_header(FILE *file, const struct model_tensors *list, const int64_t *start)
{
    char *text;
    size_t size;
    FILE *header = open_memstream(&text, &size);
    fprintf(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = 0; i < list->count; i++) {
        const struct model_tensor *t = &list->tensor[i];
        fprintf(header, ",\"%s\":{\"dtype\":\"F16\",\"shape\":[", t->name);
        for (int k = 0; k < t->rank; k++)
            fprintf(header, "%s%lld", k ? "," : "", (long long)t->dim[k]);
        fprintf(header, "],\"data_offsets\":[%lld,%lld]}", 2 * (long long)start[i], 2 * (long long)start[i + 1]);
    }
    fputc('}', header);
    for (fflush(header); size % 8 != 0; fflush(header))
        fputc(' ', header);
    fclose(header);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)size >> 8 * i);
    fwrite(length, 1, sizeof length, file);
    fwrite(text, 1, size, file);
    free(text);
    return (int64_t)(sizeof length + size);
}

static void write_tensors(const char *path, const char *part, const struct model_tensors *list)
{
    struct piece_job job = {.list = list, .part = part, .lock = PTHREAD_MUTEX_INITIALIZER};
    FILE *file = fopen(path, "wb");
    job.start = calloc((size_t)list->count + 1, sizeof *job.start);
    if (file == NULL || job.start == NULL)
        fail("cannot write", path);
    for (int i = 0; i < list->count; i++)
        job.start[i + 1] = job.start[i] + count_of(&list->tensor[i]);
    job.data = write_header(file, list, job.start);
    job.file = fileno(file);
    pthread_t thread[MAX_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = 0;
    if (fflush(file) != 0 || ftruncate(job.file, job.data + 2 * job.start[list->count]) != 0)
        fail("cannot write", path);
    while (!empty && threads < cores && threads < MAX_THREADS &&
           pthread_create(&thread[threads], NULL, work, &job) == 0)
        threads++;
    if (!empty && threads == 0)
        work(&job);
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    if (fclose(file) != 0 || job.failed)
        fail("cannot write", path);
    free(job.start);
}

static void write_config(const char *path, json_t *config)
{
    if (config == NULL || json_dump_file(config, path, JSON_INDENT(2) | JSON_SORT_KEYS) != 0)
        fail("cannot write", path);
    json_decref(config);
}

static void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    if (in == NULL || out == NULL)
        fail("cannot copy", from);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        fwrite(buffer, 1, n, out);
    fclose(in);
    if (fclose(out) != 0)
        fail("cannot write", to);
}

static void copy_tokenizer(const char *from, const char *out)
{
    char to[1024], source[1024], target[1300];
    snprintf(to, sizeof to, "%s/tokenizer", out);
    make_folder(to);
    DIR *folder = opendir(from);
    if (folder == NULL)
        fail("cannot read", from);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(source, sizeof source, "%.500s/%.250s", from, entry->d_name);
        snprintf(target, sizeof target, "%s/%.250s", to, entry->d_name);
        copy_file(source, target);
    }
    closedir(folder);
}

/* --- Configurations -------------------------------------------------------------------------------------------------
 */

enum { HEAD = 64 };

static json_t *text_config(const struct text_size *t)
{
    return json_pack("{s[s] sf si si ss si si sf si ss si si si si}", "architectures", "CLIPTextModel",
                     "attention_dropout", 0.0, "bos_token_id", 0, "eos_token_id", 2, "hidden_act", t->activation,
                     "hidden_size", t->width, "intermediate_size", t->wide, "layer_norm_eps", 1e-5,
                     "max_position_embeddings", t->positions, "model_type", "clip_text_model", "num_attention_heads",
                     t->width / HEAD > 1 ? t->width / HEAD : 1, "num_hidden_layers", t->layers, "pad_token_id", 1,
                     "vocab_size", t->vocabulary);
}

static json_t *clip_config(const struct clip_size *c)
{
    json_t *text = text_config(&c->text);
    json_object_set_new(text, "projection_dim", json_integer(c->projection));
    return json_pack("{s[s] sf ss si so s{ss si si si sf ss si si si si}}", "architectures", "CLIPModel",
                     "logit_scale_init_value", 2.6592, "model_type", "clip", "projection_dim", c->projection,
                     "text_config", text, "vision_config", "hidden_act", c->activation, "hidden_size", c->width,
                     "image_size", 224, "intermediate_size", c->wide, "layer_norm_eps", 1e-5, "model_type",
                     "clip_vision_model", "num_attention_heads", 16, "num_hidden_layers", c->layers, "patch_size",
                     c->patch, "projection_dim", c->projection);
}

static json_t *unet_config(const struct pipeline_size *p)
{
    static const char DOWN[] = "CrossAttnDownBlock2D", UP[] = "CrossAttnUpBlock2D";
    const int *c = p->channels;
    return json_pack("{ss ss si s[iiii] sb si s[ssss] si sb si si si si sf si si si s[ssss] sb}", "_class_name",
                     "UNet2DConditionModel", "act_fn", "silu", "attention_head_dim", p->heads, "block_out_channels",
                     c[0], c[1], c[2], c[3], "center_input_sample", 0, "cross_attention_dim", p->context,
                     "down_block_types", DOWN, DOWN, DOWN, "DownBlock2D", "downsample_padding", 1, "flip_sin_to_cos", 1,
                     "freq_shift", 0, "in_channels", 4, "layers_per_block", 2, "mid_block_scale_factor", 1, "norm_eps",
                     1e-5, "norm_num_groups", 32, "out_channels", 4, "sample_size", p->sample, "up_block_types",
                     "UpBlock2D", UP, UP, UP, "use_linear_projection", 0);
}

static json_t *vae_config(const struct pipeline_size *p)
{
    static const char DOWN[] = "DownEncoderBlock2D", UP[] = "UpDecoderBlock2D";
    const int *c = p->vae;
    return json_pack("{ss ss s[iiii] s[ssss] si si si si si si sf s[ssss]}", "_class_name", "AutoencoderKL", "act_fn",
                     "silu", "block_out_channels", c[0], c[1], c[2], c[3], "down_block_types", DOWN, DOWN, DOWN, DOWN,
                     "in_channels", 3, "latent_channels", 4, "layers_per_block", 2, "norm_num_groups", 32,
                     "out_channels", 3, "sample_size", 512, "scaling_factor", 0.18215, "up_block_types", UP, UP, UP,
                     UP);
}

static json_t *scheduler_config(void)
{
    return json_pack("{ss sf ss sf sb si ss sb si ss}", "_class_name", "DDIMScheduler", "beta_end", 0.012,
                     "beta_schedule", "scaled_linear", "beta_start", 0.00085, "clip_sample", 0, "num_train_timesteps",
                     1000, "prediction_type", "epsilon", "set_alpha_to_one", 0, "steps_offset", 1, "timestep_spacing",
                     "leading");
}

static json_t *model_index(void)
{
    return json_pack("{ss s[nn] s[nn] s[ss] s[ss] s[ss] s[ss] s[ss]}", "_class_name", "StableDiffusionPipeline",
                     "feature_extractor", "safety_checker", "scheduler", "diffusers", "DDIMScheduler", "text_encoder",
                     "transformers", "CLIPTextModel", "tokenizer", "transformers", "CLIPTokenizer", "unet", "diffusers",
                     "UNet2DConditionModel", "vae", "diffusers", "AutoencoderKL");
}

/* --- A model --------------------------------------------------------------------------------------------------------
 */

static struct model_tensors tensors;

static void write_part(const char *out, const char *part, const char *stem, json_t *config)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", out, part);
    make_folder(path);
    snprintf(path, sizeof path, "%s/%s/%s.safetensors", out, part, stem);
    write_tensors(path, part, &tensors);
    snprintf(path, sizeof path, "%s/%s/config.json", out, part);
    write_config(path, config);
    tensors.count = 0;
}

static void write_pipeline(const char *out, const struct pipeline_size *p)
{
    char path[1100];
    model_unet(&tensors, p);
    write_part(out, "unet", "diffusion_pytorch_model", unet_config(p));
    model_vae(&tensors, p);
    write_part(out, "vae", "diffusion_pytorch_model", vae_config(p));
    model_text(&tensors, &p->text);
    write_part(out, "text_encoder", "model", text_config(&p->text));
    snprintf(path, sizeof path, "%s/scheduler", out);
    make_folder(path);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", out);
    write_config(path, scheduler_config());
    snprintf(path, sizeof path, "%s/model_index.json", out);
    write_config(path, model_index());
}

static void write_clip(const char *out, const struct clip_size *c)
{
    char path[1100];
    model_clip(&tensors, c);
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    write_tensors(path, "clip", &tensors);
    snprintf(path, sizeof path, "%s/config.json", out);
    write_config(path, clip_config(c));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"tokenizer", required_argument, NULL, 't'}, {"empty", no_argument, NULL, 'e'}, {NULL, 0, NULL, 0}};
    const char *tokenizer = NULL;
    bool good = true;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        good = good && (o == 't' || o == 'e');
        empty = empty || o == 'e';
        tokenizer = o == 't' ? optarg : tokenizer;
    }
    const char *preset = good && argc - optind == 2 ? argv[optind] : "";
    const struct pipeline_size *p = strcmp(preset, "sd15") == 0       ? &SD15
                                    : strcmp(preset, "tiny-sd1") == 0 ? &TINY
                                                                      : NULL;
    if (p == NULL && strcmp(preset, "clip-h") != 0) {
        fprintf(stderr, "usage: random_model sd15|clip-h|tiny-sd1 OUT [--tokenizer FOLDER] [--empty]\n");
        return 2;
    }
    const char *out = argv[optind + 1];
    make_folder(out);
    if (p != NULL)
        write_pipeline(out, p);
    else
        write_clip(out, &CLIP_H);
    if (tokenizer != NULL)
        copy_tokenizer(tokenizer, out);
    return 0;
}
