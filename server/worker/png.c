#include "worker/png.h"

#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"

struct writer {
    struct draft_atomic_file *file;
    uint64_t bytes;
};

static void write_bytes(png_structp png, png_bytep data, size_t size)
{
    struct writer *writer = png_get_io_ptr(png);
    draft_atomic_write(writer->file, data, size); /* keeps the first failure for commit */
    writer->bytes += size;
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

static bool is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

static void add_text(png_structp png, png_infop info, const char *key, const char *text)
{
    png_text chunk = {.compression = is_ascii(text) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                      .key = (char *)(uintptr_t)key,
                      .text = (char *)(uintptr_t)text};
    png_set_text(png, info, &chunk, 1);
}

static void to_bytes(const float *in, png_byte *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = in[i] > 0 ? (in[i] < 1 ? in[i] : 1) : 0; /* NaN becomes 0 */
        out[i] = (png_byte)lrintf(v * 255);
    }
}

/* Everything that libpng's longjmp may leave. False: libpng gave up. */
static bool encode(struct writer *writer, const float *rgb, int height, int width, png_byte *row,
                   const char *parameters, const char *draftd)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_set_write_fn(png, writer, write_bytes, flush_nothing);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (parameters)
        add_text(png, info, "parameters", parameters);
    if (draftd)
        add_text(png, info, "draftd", draftd);
    png_write_info(png, info);
    for (int y = 0; y < height; y++) {
        to_bytes(rgb + (size_t)y * (size_t)width * 3, row, (size_t)width * 3);
        png_write_row(png, row);
    }
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return true;
}

bool draftd_png_write(const char *path, const float *rgb, int height, int width, const char *parameters,
                      const char *draftd, uint64_t *bytes, struct draft_error *err)
{
    struct writer writer = {.file = draft_atomic_begin(path, err)};
    if (!writer.file)
        return false;
    png_byte *row = malloc((size_t)width * 3);
    bool encoded = row && encode(&writer, rgb, height, width, row, parameters, draftd);
    free(row);
    if (!encoded) {
        draft_atomic_abort(writer.file);
        return draft_fail(err, DRAFT_INTERNAL, "the picture %s could not be encoded", path);
    }
    if (!draft_atomic_commit(writer.file, err))
        return false;
    if (bytes)
        *bytes = writer.bytes;
    return true;
}
