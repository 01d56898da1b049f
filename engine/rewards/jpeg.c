/*
 * The size of a picture as JPEG: a taste for what compresses well, or badly (Black et al. 2023, DDPO). The reward is a
 * differentiable estimate of the size (ops/jpeg_size.c), minus it or plus it, in kB = 1000 bytes; beside it the true
 * size is measured with libjpeg at the same quality: 4:2:0, baseline, standard Huffman tables, as PIL's default writes
 * it. Options: quality=1..100 (95, as DDPO), mode=compressibility (the default) or incompressibility.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "ops/ops.h"
#include "rewards/reward.h"

enum { DEFAULT_QUALITY = 95 };

struct jpeg_reward {
    struct draft_reward reward;
    int quality;
    float sign; /* -1: small is good */
};

static bool read_option(void *context, const char *key, const char *value, struct draft_error *err)
{
    struct jpeg_reward *jpeg = context;
    if (strcmp(key, "quality") == 0) {
        char *end;
        long quality = strtol(value, &end, 10);
        if (*value == '\0' || *end != '\0' || quality < 1 || quality > 100)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "jpeg: quality is \"%s\", expected an integer from 1 to 100",
                              value);
        jpeg->quality = (int)quality;
        return true;
    }
    if (strcmp(key, "mode") == 0 && strcmp(value, "compressibility") == 0)
        jpeg->sign = -1;
    else if (strcmp(key, "mode") == 0 && strcmp(value, "incompressibility") == 0)
        jpeg->sign = 1;
    else
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "jpeg: %s=%s is not understood, expected quality=1..100, mode=compressibility or "
                          "mode=incompressibility",
                          key, value);
    return true;
}

static struct draft_reward *open_jpeg(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                      struct draft_error *err)
{
    (void)arena;
    if (spec->path[0] != '\0') {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "jpeg: the reward takes no path, found %s", spec->path);
        return NULL;
    }
    struct jpeg_reward *jpeg = calloc(1, sizeof *jpeg);
    if (jpeg == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the reward jpeg");
        return NULL;
    }
    *jpeg = (struct jpeg_reward){{.kind = &draft_reward_jpeg}, DEFAULT_QUALITY, -1};
    if (draft_reward_options_each(spec->options, jpeg, read_option, err))
        return &jpeg->reward;
    free(jpeg);
    return NULL;
}

static void close_jpeg(struct draft_reward *reward)
{
    free(reward);
}

static struct draft_tensor *score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  struct draft_tensor *text)
{
    const struct jpeg_reward *jpeg = (const struct jpeg_reward *)reward;
    (void)text;
    return draft_axpby(g, jpeg->sign, draft_jpeg_size(g, images, jpeg->quality), 0, NULL);
}

/* --- The true size ---------------------------------------------------------------------------------------------------
 */

struct failure {
    struct jpeg_error_mgr manager;
    jmp_buf back;
    char words[JMSG_LENGTH_MAX];
};

static void fail(j_common_ptr info)
{
    struct failure *failure = (struct failure *)info->err;
    info->err->format_message(info, failure->words);
    longjmp(failure->back, 1);
}

static void be_quiet(j_common_ptr info)
{
    (void)info;
}

/* What one picture's encoding owns: outside of the function that longjmp comes back to. */
struct encoder {
    struct jpeg_compress_struct info;
    struct failure failure;
    unsigned char *out;
    unsigned long size;
};

static bool encode(struct encoder *encoder, JSAMPLE *rgb, int h, int w, int quality)
{
    struct jpeg_compress_struct *info = &encoder->info;
    info->err = jpeg_std_error(&encoder->failure.manager);
    encoder->failure.manager.error_exit = fail;
    encoder->failure.manager.output_message = be_quiet;
    if (setjmp(encoder->failure.back) != 0)
        return false;
    jpeg_create_compress(info);
    jpeg_mem_dest(info, &encoder->out, &encoder->size);
    info->image_width = (JDIMENSION)w;
    info->image_height = (JDIMENSION)h;
    info->input_components = 3;
    info->in_color_space = JCS_RGB;
    jpeg_set_defaults(info);
    jpeg_set_quality(info, quality, TRUE);
    jpeg_start_compress(info, TRUE);
    while (info->next_scanline < info->image_height) {
        JSAMPROW row = rgb + (size_t)info->next_scanline * (size_t)w * 3;
        jpeg_write_scanlines(info, &row, 1);
    }
    jpeg_finish_compress(info);
    return true;
}

/* The number of bytes of one picture of 8-bit RGB; 0 with a sentence when libjpeg fails. */
static unsigned long encoded_size(JSAMPLE *rgb, int h, int w, int quality, struct draft_error *err)
{
    struct encoder encoder = {.size = 0};
    bool ok = encode(&encoder, rgb, h, w, quality);
    if (!ok)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "jpeg: libjpeg cannot write a picture of %d x %d: %s", w, h,
                   encoder.failure.words);
    jpeg_destroy_compress(&encoder.info);
    free(encoder.out);
    return ok ? encoder.size : 0;
}

static JSAMPLE to_byte(float value)
{
    float scaled = value * 255.0f + 0.5f;
    return (JSAMPLE)(scaled >= 255.0f ? 255 : scaled >= 0.0f ? scaled : 0); /* NaN: 0 */
}

static bool measure(struct draft_reward *reward, const float *images, int n, int h, int w, double *out,
                    struct draft_error *err)
{
    const struct jpeg_reward *jpeg = (const struct jpeg_reward *)reward;
    size_t numbers = (size_t)h * (size_t)w * 3;
    JSAMPLE *rgb = malloc(numbers);
    if (rgb == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for a picture of %d x %d", w, h);
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        for (size_t k = 0; k < numbers; k++)
            rgb[k] = to_byte(images[(size_t)i * numbers + k]);
        unsigned long size = encoded_size(rgb, h, w, jpeg->quality, err);
        out[i] = (double)size / 1000;
        ok = size > 0;
    }
    free(rgb);
    return ok;
}

const struct draft_reward_kind draft_reward_jpeg = {
    .name = "jpeg",
    .open = open_jpeg,
    .score = score,
    .measure_name = "jpeg_kb",
    .measure = measure,
    .close = close_jpeg,
};
