/* image in [0, 1] -> ycbcr (JPEG's, 0 to 255) -> dct of its 8x8 blocks, [n, 3, h/8, w/8, 8, 8]. */
#include <stdlib.h>

#include "golden.h"
#include "ops/jpeg.h"

struct picture {
    int64_t n, h, w;
    float *rgb;         /* [n, h, w, 3] */
    float *ycbcr, *dct; /* ours, in the file's layouts */
};

static void colours(struct picture *p)
{
    int64_t positions = p->h * p->w;
    for (int64_t i = 0; i < p->n * positions; i++) {
        double value[3];
        draft_jpeg_ycbcr(p->rgb + i * 3, value);
        for (int64_t c = 0; c < 3; c++)
            p->ycbcr[(i / positions * 3 + c) * positions + i % positions] = (float)(value[c] + 128);
    }
}

static void blocks(struct picture *p)
{
    float *out = p->dct;
    for (int64_t plane = 0; plane < p->n * 3; plane++)
        for (int64_t y = 0; y < p->h; y += 8)
            for (int64_t x = 0; x < p->w; x += 8, out += 64) {
                double block[64], frequency[64];
                for (int64_t k = 0; k < 64; k++) {
                    const float *rgb = p->rgb + ((plane / 3 * p->h + y + k / 8) * p->w + x + k % 8) * 3;
                    double value[3];
                    draft_jpeg_ycbcr(rgb, value);
                    block[k] = value[plane % 3];
                }
                draft_jpeg_dct(block, frequency);
                for (int k = 0; k < 64; k++)
                    out[k] = (float)frequency[k];
            }
}

void golden_jpeg_dct(struct golden *t, const struct draft_safetensors *file)
{
    const struct draft_safetensors_entry *image = draft_safetensors_find(file, "image");
    if (image == NULL || image->rank != 4 || image->dim[1] != 3 || image->dim[2] % 8 != 0 || image->dim[3] % 8 != 0) {
        golden_fail(t, "image is not [n, 3, h, w] with sides of whole blocks");
        return;
    }
    int64_t count, colour_count, dct_count;
    struct picture p = {.n = image->dim[0], .h = image->dim[2], .w = image->dim[3]};
    p.rgb = golden_numbers(t, file, "image", &count);
    p.ycbcr = malloc((size_t)count * sizeof *p.ycbcr + 1);
    p.dct = malloc((size_t)count * sizeof *p.dct + 1);
    float *colour = golden_plain(t, file, "ycbcr", &colour_count), *dct = golden_plain(t, file, "dct", &dct_count);
    if (p.rgb != NULL && p.ycbcr != NULL && p.dct != NULL && colour != NULL && dct != NULL && colour_count == count &&
        dct_count == count) {
        colours(&p);
        blocks(&p);
        golden_row(t, GOLDEN_FORWARD, golden_relative(p.ycbcr, colour, count), t->forward_bound, "ycbcr");
        golden_row(t, GOLDEN_FORWARD, golden_relative(p.dct, dct, count), t->forward_bound, "dct");
    }
    free(p.rgb);
    free(p.ycbcr);
    free(p.dct);
    free(colour);
    free(dct);
}
