/* Pictures read back by libpng's own reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/png.h"

enum { HEIGHT = 3, WIDTH = 5, NUMBERS = HEIGHT * WIDTH * 3 };
static char path[64];

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/draft-png-%d.png", (int)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

struct read_back {
    png_byte pixel[NUMBERS];
    char key[4][80], text[4][400];
    int compression[4], texts;
};

static void read_back(struct read_back *out)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png)))
        fail_msg("libpng cannot read its own file");
    png_init_io(png, file);
    png_read_info(png, info);
    assert_int_equal(png_get_image_width(png, info), WIDTH);
    assert_int_equal(png_get_image_height(png, info), HEIGHT);
    assert_int_equal(png_get_bit_depth(png, info), 8);
    assert_int_equal(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);
    for (int y = 0; y < HEIGHT; y++)
        png_read_row(png, out->pixel + y * WIDTH * 3, NULL);
    png_textp text;
    out->texts = png_get_text(png, info, &text, NULL);
    for (int i = 0; i < out->texts && i < 4; i++) {
        snprintf(out->key[i], sizeof out->key[i], "%s", text[i].key);
        snprintf(out->text[i], sizeof out->text[i], "%s", text[i].text);
        out->compression[i] = text[i].compression;
    }
    png_destroy_read_struct(&png, &info, NULL);
    fclose(file);
}

static void test_worker_png__keeps_pixels_and_texts(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct read_back got;
    float rgb[NUMBERS];
    uint64_t bytes;
    for (int i = 0; i < NUMBERS; i++)
        rgb[i] = (float)i / (NUMBERS - 1);
    rgb[0] = -0.5f;
    rgb[1] = 1.5f;
    rgb[2] = NAN;
    static const char parameters[] = "a lion\nSteps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 3, Size: 5x3";
    assert_true(draftd_png_write(path, rgb, HEIGHT, WIDTH, parameters, "{\"step\":7}", &bytes, &err));
    read_back(&got);
    assert_int_equal(got.pixel[0], 0);
    assert_int_equal(got.pixel[1], 255);
    assert_int_equal(got.pixel[2], 0);
    for (int i = 3; i < NUMBERS; i++)
        assert_int_equal(got.pixel[i], lrint(255.0 * rgb[i]));
    assert_int_equal(got.texts, 2);
    assert_string_equal(got.key[0], "parameters");
    assert_string_equal(got.text[0], parameters);
    assert_int_equal(got.compression[0], PNG_TEXT_COMPRESSION_NONE); /* tEXt */
    assert_string_equal(got.key[1], "draftd");
    assert_string_equal(got.text[1], "{\"step\":7}");
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    assert_int_equal(ftell(file), bytes);
    fclose(file);
}

static void test_worker_png__a_prompt_beyond_ascii_becomes_itxt(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct read_back got;
    static const float rgb[NUMBERS];
    static const char prompt[] = "ein L\xc3\xb6we \xf0\x9f\xa6\x81\nSteps: 4";
    assert_true(draftd_png_write(path, rgb, HEIGHT, WIDTH, prompt, NULL, NULL, &err));
    read_back(&got);
    assert_int_equal(got.texts, 1);
    assert_string_equal(got.text[0], prompt);
    assert_int_equal(got.compression[0], PNG_ITXT_COMPRESSION_NONE);
}

static void test_worker_png__a_folder_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    struct draft_error err = {0};
    static const float rgb[NUMBERS];
    assert_false(draftd_png_write("/no/such/folder/0.png", rgb, HEIGHT, WIDTH, NULL, NULL, NULL, &err));
    assert_true(err.code != DRAFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_png__keeps_pixels_and_texts),
        cmocka_unit_test(test_worker_png__a_prompt_beyond_ascii_becomes_itxt),
        cmocka_unit_test(test_worker_png__a_folder_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
